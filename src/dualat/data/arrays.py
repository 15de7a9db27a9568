"""Pictures in one file, read where they lie: the .bin file of 80 Million Tiny Images, and .npy and .npz files.

tiny_images.bin is 79,302,017 pictures of 3,072 bytes, nothing else. Each is 32 x 32 x 3 in column-major order, as MATLAB
writes it: byte  row + 32 column + 1024 channel,  channels red, green, blue.
Source: the data set's readers in public code, which agree: picture i is 3,072 bytes at 3,072 i, reshaped to (32, 32, 3) in
Fortran's order (hendrycks/outlier-exposure; xuwangyin/DAT, InNOutRobustness/utils/datasets/tinyImages.py).
"""

import mmap
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dualat.data.pictures import Pictures, Shape, check_levels, evenly
from dualat.data.plain_arrays import read_members

FILES = (".bin", ".npy", ".npz")
"""Endings of such files."""
TINY_BYTES = 3072
_LOOKED_AT = 1000  # pictures whose levels are checked


class ArrayPictures(Pictures):
    """The pictures of an array (N, C, H, W), uint8, in memory or memory-mapped, in any order in memory."""

    def __init__(self, array: np.ndarray):
        self.array = array

    @property
    def shape(self) -> Shape:
        channels, height, width = self.array.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.array)

    def gather(self, positions: Tensor) -> Tensor:
        return torch.from_numpy(self.array[positions.numpy()].copy())


class TinyImages(ArrayPictures):
    """The pictures of a .bin file, memory-mapped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: its size is no multiple of 3,072 bytes.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: put the .bin file there, or name another.")
        size = path.stat().st_size
        if not size or size % TINY_BYTES:
            raise ValueError(
                f"{path} has {size} bytes, but pictures of {TINY_BYTES} bytes each make a multiple of that: it is "
                "truncated or no .bin file of 80 Million Tiny Images; fetch it again."
            )
        with open(path, "rb") as handle:
            self._map = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):
            self._map.madvise(mmap.MADV_RANDOM)  # reading ahead would be 40 times as much
        stored = np.frombuffer(self._map, dtype=np.uint8).reshape(-1, 3, 32, 32)  # (n, channel, column, row)
        super().__init__(stored.transpose(0, 1, 3, 2))

    def gather(self, positions: Tensor) -> Tensor:
        if hasattr(mmap, "MADV_WILLNEED"):  # all reads under way at once, not each when it is waited for
            for position in positions.tolist():
                first = position * TINY_BYTES // mmap.PAGESIZE * mmap.PAGESIZE
                self._map.madvise(mmap.MADV_WILLNEED, first, (position + 1) * TINY_BYTES - first)
        return super().gather(positions)


def read_array(path: Path) -> ArrayPictures:
    """The pictures of an .npy file (memory-mapped), or of an .npz file (its arr_0, or its only array).

    Pictures are uint8 (N, H, W, C) with 1 or 3 channels, or (N, H, W) in grey: the layout of 300K_random_images.npy.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, a pickle, or an array of another type or shape.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: put the file there, or name another.")
    if path.suffix == ".npz":
        _, names = read_members(path, ())
        name = "arr_0" if "arr_0" in names else names[0] if len(names) == 1 else ""
        found = read_members(path, (name,))[0].get(name, np.empty(0))
    else:
        found = _mapped(path)
    array = found[..., None] if found.ndim == 3 else found
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] not in (1, 3) or not array.size:
        raise ValueError(
            f"{path} holds {found.dtype} of shape {found.shape}, but pictures must be one array, uint8 of shape "
            "(N, H, W, C) with 1 or 3 channels: write it anew."
        )
    pictures = ArrayPictures(array.transpose(0, 3, 1, 2))
    check_levels(pictures.gather(evenly(len(array), _LOOKED_AT)), str(path))
    return pictures


def _mapped(path: Path) -> np.ndarray:
    """The array of an .npy file, memory-mapped."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except PermissionError:
        raise
    except Exception as error:  # a damaged header makes numpy and tokenize raise whatever they like
        raise ValueError(
            f"{path} is damaged, or no plain array of numbers: write it anew with numpy.save."
        ) from error
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{path} is an .npz file by its content: give it that ending.")
    return found


class Without(Pictures):
    """Pictures without those at some positions, ascending; nothing is kept of the others, however many they are.

    Picture k of the rest is at  k + #{j : excluded_j - j <= k}.
    """

    def __init__(self, pictures: Pictures, excluded: np.ndarray):
        self.pictures = pictures
        self._before = excluded - np.arange(len(excluded))  # pictures of the rest before each
        if len(excluded) >= len(pictures):
            raise ValueError(f"the lists exclude all {len(pictures)} pictures: give others.")

    @property
    def shape(self) -> Shape:
        return self.pictures.shape

    def __len__(self) -> int:
        return len(self.pictures) - len(self._before)

    def gather(self, positions: Tensor) -> Tensor:
        rest = positions.numpy()
        return self.pictures.gather(
            torch.from_numpy(rest + np.searchsorted(self._before, rest, side="right"))
        )
