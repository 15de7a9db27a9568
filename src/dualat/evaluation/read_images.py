"""8-bit images and arrays from folders and .npz files, refused with one sentence where they are not what is asked for.

No pickle is ever read: an array of Python objects may run code.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dualat.data.decode import View
from dualat.data.folder import FolderFiles
from dualat.data.formats import WANTED, open_picture, why
from dualat.data.listing import list_images
from dualat.data.pictures import Shape, check_levels, check_memory
from dualat.data.plain_arrays import read_members

Pick = Callable[[int], Tensor]
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 exchange width and height


def read_npz(path: Path, shape: Shape | None, pick: Pick) -> tuple[Tensor, Tensor | None]:
    """Images (N, C, H, W), uint8, and labels of an .npz file: arr_0 is uint8 NHWC, arr_1 one integer per image."""
    arrays, names = read_members(path, ("arr_0", "arr_1"))
    if "arr_0" not in arrays:
        raise ValueError(
            f"{path} has the arrays {', '.join(names) or 'none'}, but images must be in arr_0 (uint8, NHWC): "
            "write it with numpy.savez(path, images)."
        )
    images, labels = arrays["arr_0"], arrays.get("arr_1")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        raise ValueError(
            f"arr_0 of {path} is {images.dtype} of shape {images.shape}, but must be uint8 of shape (N, H, W, C) with "
            "1 or 3 channels: scale images to 0 to 255, round them, and put the channels last."
        )
    if labels is not None and (labels.shape != images.shape[:1] or labels.dtype.kind not in "iu"):
        raise ValueError(
            f"arr_1 of {path} is {labels.dtype} of shape {labels.shape}, but labels must be one integer per image "
            f"({len(images)}): correct or leave them out."
        )
    found = (images.shape[3], *images.shape[1:3])
    if shape is not None and found != tuple(shape):
        raise ValueError(_other_shape(f"images of {path}", found, shape))
    chosen = pick(len(images))
    kept = torch.from_numpy(images)[chosen].permute(0, 3, 1, 2).contiguous()
    check_levels(kept, str(path))
    return kept, None if labels is None else torch.from_numpy(labels.astype(np.int64))[chosen]


def read_folder(
    folder: Path, shape: Shape | None, pick: Pick, resize: bool = False
) -> tuple[Tensor, tuple[str, ...]]:
    """Images (N, C, H, W), uint8, of all image files below a folder, in the order of their paths, and these paths, below
    the folder, with /.

    Args:
        shape: (C, H, W) that they must have; None: that of the first image.
        pick: from the number of files to the positions of those to read.
        resize: bring images of other sizes to `shape` (dualat.data.folder.read_image) instead of refusing them.
    """
    entries = list_images(folder)
    if not entries:
        raise ValueError(f"{folder} has no images: put {WANTED} there.")
    chosen = pick(len(entries))
    names = tuple(entries[i][0] for i in chosen.tolist())
    wanted = shape or natural_shape(folder / names[0])
    for path in () if resize else (folder / name for name in names):
        if (natural := natural_shape(path, wanted[0])) != tuple(wanted):
            raise ValueError(_other_shape(str(path), natural, wanted))
    check_memory(len(names), wanted, str(folder))
    images = FolderFiles(folder, entries, View(wanted)).gather(chosen, "replace or remove it")
    check_levels(images, str(folder))
    return images, names


def natural_shape(path: Path, channels: int = 1) -> Shape:
    """(C, H, W) of an image file, upright, from its header.

    Args:
        channels: of a picture whose palette is grey, which is a grey picture and a colour one.

    Raises:
        ValueError: it is no readable image.
    """
    try:
        with open_picture(path) as image:
            width, height = image.size
            if image.getexif().get(_ORIENTATION, 1) >= 5:
                width, height = height, width
            if image.mode == "P" and _is_grey(image.getpalette() or []):
                return channels, height, width
            return (1 if image.mode in _GREY_MODES else 3), height, width
    except MemoryError:
        raise
    except Exception as error:  # PIL's readers raise whatever a damaged file makes them raise
        raise ValueError(
            f"{path} cannot be read as an image ({why(error)}): replace or remove it."
        ) from error


def _is_grey(palette: list[int]) -> bool:
    return palette[::3] == palette[1::3] == palette[2::3]


def _other_shape(what: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    one, other = ("x".join(map(str, shape)) for shape in (found, wanted))
    verb = "have" if what.startswith("images of") else "has"
    return f"{what} {verb} shape {one} (channels x height x width), but {other} is wanted: give images of one size."
