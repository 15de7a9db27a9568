"""Pictures of one shape, read by position: the one protocol for images in memory, in files, in shards and in arrays.

memory   InMemory (here), with labels ImageData (images.py)
files    FolderFiles (folder.py)        shards   ShardFiles (shards.py)
arrays   ArrayPictures, TinyImages, Without (arrays.py)
"""

import hashlib
import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, int, int]
MEMORY_LIMIT = 8 * 2**30  # bytes
_AT_A_TIME = 1024  # pictures
_LONG = 8  # of an image that is cut before it is resized: longer side by shorter, at least


class Pictures(ABC):
    """Pictures of one shape (C, H, W), read by position; they never change."""

    def __deepcopy__(self, memo: object) -> Self:
        """Itself: copies of a model share their pictures."""
        return self

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """(C, H, W) of each."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def gather(self, positions: Tensor) -> Tensor:
        """uint8 (n, C, H, W), on the CPU, of the pictures at `positions` (n,), int64.

        Raises:
            ValueError: one cannot be read; the sentence names it.
        """

    def fitted(self, shape: Shape, name: str) -> "Pictures":
        """The same pictures with `shape` (C, H, W): grey or colour, resized to cover H x W (bilinear, antialiased) and cut to
        the centre. Colour becomes grey by the luma weights of ITU-R BT.601; grey is repeated over three channels.

        Raises:
            ValueError: channels other than 1 or 3 that would have to change, or too much memory.
        """
        return Fitted(self, shape, name)

    def digest(self, positions: Tensor, words: str) -> "hashlib._Hash":
        """SHA-256 of the shape, of more words, and of every pixel at `positions`."""
        digest = hashlib.sha256(f"{(len(positions), *self.shape)}{words}".encode())
        for part in positions.split(_AT_A_TIME):
            digest.update(self.gather(part).contiguous().numpy().data)
        return digest


@dataclass(eq=False)
class InMemory(Pictures):
    """Pictures in memory: uint8 (N, C, H, W)."""

    images: Tensor

    @property
    def shape(self) -> Shape:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def gather(self, positions: Tensor) -> Tensor:
        return self.images[positions]

    def fitted(self, shape: Shape, name: str) -> "InMemory":
        check_memory(len(self), shape, name)
        return InMemory(fit_pixels(self.images, shape, name))


class Fitted(Pictures):
    """Pictures brought to another shape whenever they are read."""

    def __init__(self, pictures: Pictures, shape: Shape, name: str):
        self.pictures, self.name = pictures, name
        self._shape = shape

    @property
    def shape(self) -> Shape:
        return self._shape

    def __len__(self) -> int:
        return len(self.pictures)

    def gather(self, positions: Tensor) -> Tensor:
        return fit_pixels(self.pictures.gather(positions), self._shape, self.name)


def check_pixels(images: Tensor, name: str) -> None:
    """ValueError unless images are uint8 (N, C, H, W)."""
    if images.ndim != 4 or images.dtype != torch.uint8:
        raise ValueError(f"images of {name} must be uint8 of shape (N, C, H, W), not {described(images)}.")


def described(tensor: Tensor) -> str:
    """Type and shape, for a message."""
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def evenly(count: int, wanted: int) -> Tensor:
    """At most `wanted` of the positions 0 to count-1, evenly spread and ascending."""
    if count <= wanted:
        return torch.arange(count)
    return torch.arange(wanted) * count // wanted


def check_memory(count: int, shape: Shape, name: str) -> None:
    """Refuse images that would take more than 8 GiB.

    Raises:
        ValueError: they would.
    """
    size = count * math.prod(shape)
    if size > MEMORY_LIMIT:
        raise ValueError(
            f"{count} images of shape {tuple(shape)} from {name} take {size / 2**30:.1f} GiB, more than the "
            f"{MEMORY_LIMIT / 2**30:.0f} GiB that are held in memory: choose a smaller image size or fewer images."
        )


def check_levels(images: Tensor, name: str) -> None:
    """Refuse uint8 images that were in [0, 1] before they were made whole numbers; a warning where all are black.

    Raises:
        ValueError: all levels are 0 and 1.
    """
    highest = int(images.max())
    if highest == 1:
        raise ValueError(
            f"images of {name} hold only zeros and ones, but their levels go from 0 to 255: multiply by 255 and round "
            "before they are written as uint8."
        )
    if highest == 0:
        warnings.warn(f"all images of {name} are black.", stacklevel=4)


def fit_pixels(images: Tensor, shape: Shape, name: str) -> Tensor:
    """uint8 images (N, C, H, W) with another shape, as `Pictures.fitted` says."""
    result = torch.empty(len(images), *shape, dtype=torch.uint8)
    for start in range(0, len(images), _AT_A_TIME):
        part = _convert_channels(images[start : start + _AT_A_TIME].to(torch.float32), shape[0], name)
        result[start : start + _AT_A_TIME] = (
            _cover(part, shape[1], shape[2]).round().clamp(0, 255).to(torch.uint8)
        )
    return result


def _convert_channels(images: Tensor, channels: int, name: str) -> Tensor:
    if images.shape[1] == channels:
        return images
    if (images.shape[1], channels) == (3, 1):
        return (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    if (images.shape[1], channels) == (1, 3):
        return images.expand(-1, 3, -1, -1)
    raise ValueError(
        f"images of {name} have {images.shape[1]} channels, which cannot become {channels}: use 1 or 3."
    )


def cover_size(height: int, width: int, to_height: int, to_width: int) -> tuple[int, int]:
    """Size with the aspect of height x width, rounded, that just covers to_height x to_width."""
    scale = max(to_height / height, to_width / width)
    return max(to_height, round(height * scale)), max(to_width, round(width * scale))


def is_long(height: int, width: int, to_height: int, to_width: int) -> bool:
    """Whether an image that covers to_height x to_width is so long that it is cut before it is resized; 1 x 4000 pixels
    would take a gigabyte on their way to 224 x 224."""
    return height * width > _LONG * to_height * to_width


def _cover(images: Tensor, height: int, width: int) -> Tensor:
    size = cover_size(images.shape[2], images.shape[3], height, width)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    if is_long(*size, height, width):
        down = _triangles(images.shape[2], size[0], top, height)
        across = _triangles(images.shape[3], size[1], left, width)
        return down @ images @ across.T
    if size != tuple(images.shape[2:]):
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
    return images[:, :, top : top + height, left : left + width]


def _triangles(size: int, to_size: int, first: int, count: int) -> Tensor:
    """(count, size) weights of antialiased bilinear interpolation from `size` pixels to `to_size`, of which `count` from
    `first` on are wanted:  w_ji ~ max(0, 1 - |i + 1/2 - s (j + 1/2)| / max(s, 1)),  s = size / to_size,  sum_i w_ji = 1.
    """
    scale = size / to_size
    centres = scale * (torch.arange(first, first + count) + 0.5)
    distance = (torch.arange(size) + 0.5 - centres[:, None]).abs()
    weights = (1 - distance / max(scale, 1)).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)
