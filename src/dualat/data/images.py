"""Images with labels in memory, splits of them, and their fitting to another shape."""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from dualat.system.seeds import mix_seed

Shape = tuple[int, int, int]
MEMORY_LIMIT = 8 * 2**30  # bytes
_LONG = 8  # of an image that is cut before it is resized: longer side by shorter, at least


@dataclass(eq=False)
class ImageData:
    """Labelled images in memory.

    Attributes:
        images: (N, C, H, W), uint8, 0 to 255.
        labels: (N,), int64, 0 to len(class_names) - 1.
        class_names: one name per class.
        name: what a message or a record calls this set.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise ValueError(
                f"images of {self.name} must be uint8 of shape (N, C, H, W), not {_describe(self.images)}."
            )
        check_labels(self.labels, len(self.images), self.class_names, self.name)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> Shape:
        """(C, H, W) of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @cached_property
    def content(self) -> str:
        """SHA-256 of shape, class names, pixels and labels."""
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {self.class_names}".encode())
        digest.update(self.images.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()

    def pixels(self, indices: Tensor | slice | None = None) -> Tensor:
        """Images as uint8 (n, C, H, W): all, or those at `indices`."""
        return self.images if indices is None else self.images[indices]

    def float(self, indices: Tensor | slice | None = None) -> Tensor:
        """Images as float32 (n, C, H, W) in [0, 1]: all, or those at `indices`."""
        return self.pixels(indices).to(torch.float32) / 255

    def take(self, indices: Tensor, name: str | None = None) -> ImageData:
        """The images at `indices` (n,), in that order, as a copy."""
        return replace(self, images=self.images[indices], labels=self.labels[indices], name=name or self.name)

    def renamed(self, name: str) -> ImageData:
        """The same images under another name."""
        return replace(self, name=name)

    def fitted(self, shape: Shape) -> ImageData:
        """The same images with another shape: `fit_to_shape` says how."""
        check_memory(len(self), shape, self.name)
        return replace(self, images=fit_pixels(self.images, shape, self.name))


@dataclass
class Splits:
    """Training, validation and test images: the same shape and classes, no image in two of them."""

    train: ImageData
    validation: ImageData
    test: ImageData

    def __post_init__(self) -> None:
        for part in (self.validation, self.test):
            if (part.shape, part.class_names) != (self.train.shape, self.train.class_names):
                raise ValueError(
                    f"{part.name} and {self.train.name} must have the same image shape and classes."
                )


def check_labels(labels: Tensor, count: int, class_names: tuple[str, ...], name: str) -> None:
    """ValueError unless `labels` are `count` classes, int64."""
    if labels.shape != (count,) or labels.dtype != torch.int64:
        raise ValueError(f"labels of {name} must be int64, one per image, not {_describe(labels)}.")
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < len(class_names):
        raise ValueError(f"labels of {name} must lie in 0 to {len(class_names) - 1}.")


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def split_indices(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split positions 0 to N-1 in two, class by class: (the rest, a share `fraction` of every class), both ascending.

    Of each class with two images or more, both parts get at least one. The same labels, fraction and seed give the
    same split.

    Args:
        labels: (N,), int64.
        fraction: share of the second part, in (0, 1).
        seed: any integer.
    """
    generator = torch.Generator().manual_seed(mix_seed("split", seed))
    taken = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique(sorted=True):
        members = (labels == label).nonzero().flatten()
        order = members[torch.randperm(len(members), generator=generator)]
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        taken[order[:count]] = True
    return (~taken).nonzero().flatten(), taken.nonzero().flatten()


def split_off(
    data: ImageData, fraction: float, seed: int, rest: str, part: str
) -> tuple[ImageData, ImageData]:
    """`data` in two by `split_indices`, named `rest` and `part`."""
    kept, taken = split_indices(data.labels, fraction, seed)
    return data.take(kept, rest), data.take(taken, part)


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


def fit_to_shape(data: ImageData, shape: Shape) -> ImageData:
    """The same images with `shape` (C, H, W): grey or colour, resized to cover H x W (bilinear, antialiased) and
    cut to the centre.

    Colour becomes grey by the luma weights of ITU-R BT.601; grey is repeated over three channels. Images that are
    decoded from files are decoded to the new shape.

    Raises:
        ValueError: channels other than 1 or 3 that would have to change, or too much memory.
    """
    return data if data.shape == tuple(shape) else data.fitted(shape)


def fit_pixels(images: Tensor, shape: Shape, name: str, chunk: int = 1024) -> Tensor:
    """uint8 images (N, C, H, W) with another shape, as `fit_to_shape` says."""
    result = torch.empty(len(images), *shape, dtype=torch.uint8)
    for start in range(0, len(images), chunk):
        part = _convert_channels(images[start : start + chunk].to(torch.float32), shape[0], name)
        result[start : start + chunk] = _cover(part, shape[1], shape[2]).round().clamp(0, 255).to(torch.uint8)
    return result


def channel_statistics(
    data: ImageData, most: int = 20_000, chunk: int = 1000
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, in [0, 1], over `most` evenly picked images."""
    counts = torch.zeros(data.shape[0], 256, dtype=torch.int64)
    for part in evenly(len(data), most).split(chunk):
        for channel, levels in enumerate(data.pixels(part).transpose(0, 1)):
            counts[channel] += torch.bincount(levels.flatten().long(), minlength=256)
    levels = torch.arange(256, dtype=torch.float64) / 255
    weights = counts.double() / counts.double().sum(1, keepdim=True)
    mean = weights @ levels
    std = (weights @ levels.square() - mean.square()).clamp_min(1e-4).sqrt()
    return mean.tolist(), std.tolist()


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
