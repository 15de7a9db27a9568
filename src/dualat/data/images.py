"""Labelled images, and splits of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dualat.data.decode import BadImage, View
from dualat.data.files import SKIPPING, Files
from dualat.data.pictures import InMemory, Pictures, Shape, check_memory, check_pixels, described, evenly
from dualat.system.seeds import mix_seed


class ImageData(Pictures):
    """Labelled pictures, in memory or where they lie.

    Attributes:
        pictures: what they are among; those on disk are decoded whenever they are needed.
        positions: (N,), int64, of these images among `pictures`.
        labels: (N,), int64, 0 to len(class_names) - 1.
        class_names: one name per class.
        name: what a message or a record calls this set.

    Args:
        images: uint8 (N, C, H, W), 0 to 255, or pictures.
        positions: None: all, in their order.
    """

    def __init__(
        self,
        images: Tensor | Pictures,
        labels: Tensor,
        class_names: tuple[str, ...],
        name: str,
        positions: Tensor | None = None,
    ):
        if isinstance(images, Tensor):
            check_pixels(images, name)
            images = InMemory(images)
        self.pictures, self.labels, self.class_names, self.name = images, labels, class_names, name
        self.positions = torch.arange(len(images)) if positions is None else positions
        self._images = images.images if isinstance(images, InMemory) else None
        check_labels(labels, len(self.positions), class_names, name)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def shape(self) -> Shape:
        return self.pictures.shape

    @property
    def in_memory(self) -> bool:
        """Whether the images were given in memory."""
        return isinstance(self.pictures, InMemory)

    @property
    def files(self) -> Files:
        """The files that the images are in. AssertionError: they are in none."""
        assert isinstance(self.pictures, Files)
        return self.pictures

    @property
    def images(self) -> Tensor:
        """All images, uint8 (N, C, H, W), decoded at the first call and kept. ValueError: they take more than 8 GiB."""
        if self._images is None:
            check_memory(len(self), self.shape, self.name)
            self._images = self.pixels()
        return self._images

    @cached_property
    def content(self) -> str:
        """SHA-256 of shape, class names, labels, and every pixel; of files their names and sizes instead of pixels."""
        digest = self.pictures.digest(self.positions, f" {self.class_names}")
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()

    def gather(self, positions: Tensor) -> Tensor:
        return self.pixels(positions)

    def pixels(self, indices: Tensor | slice | None = None) -> Tensor:
        """Images as uint8 (n, C, H, W): all, or those at `indices`."""
        if self._images is not None:
            return self._images if indices is None else self._images[indices]
        return self.pictures.gather(self.positions if indices is None else self.positions[indices])

    def float(self, indices: Tensor | slice | None = None) -> Tensor:
        """Images as float32 (n, C, H, W) in [0, 1]: all, or those at `indices`."""
        return self.pixels(indices).to(torch.float32) / 255

    def take(self, indices: Tensor, name: str | None = None) -> ImageData:
        """The images at `indices` (n,), in that order; those in memory as a copy."""
        pictures, positions = self.pictures, self.positions[indices]
        if isinstance(pictures, InMemory):
            pictures, positions = InMemory(pictures.images[indices]), None
        return ImageData(pictures, self.labels[indices], self.class_names, name or self.name, positions)

    def renamed(self, name: str) -> ImageData:
        """The same images under another name."""
        return ImageData(self.pictures, self.labels, self.class_names, name, self.positions)

    def _of(self, pictures: Pictures) -> ImageData:
        """The same labels with other pictures, one for each."""
        return ImageData(pictures, self.labels, self.class_names, self.name, self.positions)

    def fitted(self, shape: Shape, name: str = "") -> ImageData:
        """The same images with `shape` (C, H, W), as `Pictures.fitted` says; themselves where they have it."""
        return (
            self if self.shape == tuple(shape) else self._of(self.pictures.fitted(shape, name or self.name))
        )

    def seen(self, view: View) -> ImageData:
        """The same images, decoded from their files in another way."""
        return self._of(self.files.seen(view))

    def told(self) -> list[str]:
        """Names of the files, in order."""
        return [self.files.told(position)[0] for position in self.positions.tolist()]

    def readable(self) -> tuple[Tensor, list[str]]:
        """Decode every file: positions of the good ones, and a sentence about each bad one."""
        results = self.files.decoded(self.positions.tolist())
        problems = {i: str(result) for i, result in enumerate(results) if isinstance(result, BadImage)}
        good = torch.tensor([i not in problems for i in range(len(self))], dtype=torch.bool)
        return good.nonzero().flatten(), list(problems.values())

    def held(self) -> ImageData:
        """The same images in memory. ValueError: a bad one."""
        if self.in_memory:
            return self
        images = self.files.gather(self.positions, SKIPPING)
        return ImageData(images, self.labels, self.class_names, self.name)


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
        raise ValueError(f"labels of {name} must be int64, one per image, not {described(labels)}.")
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < len(class_names):
        raise ValueError(f"labels of {name} must lie in 0 to {len(class_names) - 1}.")


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
