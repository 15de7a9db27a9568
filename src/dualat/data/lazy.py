"""Images that stay on disk: read by position, decoded by threads, with the interface of images in memory.

PIL sets Python's interpreter lock free while it decodes and resizes, so that threads use all cores and nothing has to
be sent between processes.
"""

import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dualat.data.decode import BadImage, View
from dualat.data.images import ImageData, Shape, check_labels, check_memory

_AT_A_TIME = 256
_MOST_WORKERS = 16
ADVICE = "replace or remove it, or list all such images with `dualat data prepare images` and give the list to `exclude`"


def default_workers() -> int:
    """Threads that decode unless told otherwise: one per core that this process may use, 16 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads for images that are waited for at once; batches ahead of the training loop have threads of their own."""
    return ThreadPoolExecutor(workers, thread_name_prefix="dualat-decode")


class Pictures(ABC):
    """Pictures of one shape (C, H, W) without labels, read by position; they never change."""

    def __deepcopy__(self, memo: object) -> Self:
        """Itself: copies of a model share what is on disk."""
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


class Files(Pictures):
    """Pictures in files of their own format, decoded one by one."""

    def __init__(self, view: View):
        self.view = view

    @property
    def shape(self) -> Shape:
        return self.view.shape

    @abstractmethod
    def read(self, position: int) -> np.ndarray:
        """uint8 (C, H, W). Raises BadImage; called by several threads at a time."""

    @abstractmethod
    def raw(self, position: int) -> bytes:
        """The file as it is. Raises BadImage where it cannot be read."""

    @abstractmethod
    def told(self, position: int) -> tuple[str, int]:
        """Name and size in bytes of the file."""

    def seen(self, view: View) -> Self:
        """The same files, decoded in another way."""
        other = copy.copy(self)
        other.view = view
        return other

    def gather(self, positions: Tensor, workers: int | None = None) -> Tensor:
        images = torch.empty(len(positions), *self.shape, dtype=torch.uint8)
        array = images.numpy()
        for row, result in enumerate(decoded(self, positions.tolist(), workers)):
            if isinstance(result, BadImage):
                raise ValueError(f"{result}: {ADVICE}.") from result
            array[row] = result
        return images


def decoded(
    files: Files, positions: Sequence[int], workers: int | None = None
) -> Iterator[np.ndarray | BadImage]:
    """The images at these positions in order, uint8 (C, H, W), some hundred at a time; an error where one is bad."""

    def read(position: int) -> np.ndarray | BadImage:
        try:
            return files.read(position)
        except BadImage as error:
            return error

    workers = default_workers() if workers is None else workers
    for start in range(0, len(positions), _AT_A_TIME):
        part = positions[start : start + _AT_A_TIME]
        yield from _pool(workers).map(read, part) if workers else map(read, part)


class Decoding:
    """A batch in the making: a tensor that the threads of a pool fill."""

    def __init__(self, files: Files, positions: Tensor, pool: ThreadPoolExecutor, pin: bool):
        self.images = torch.empty(len(positions), *files.shape, dtype=torch.uint8, pin_memory=pin)
        array = self.images.numpy()

        def fill(row: int, position: int) -> None:
            array[row] = files.read(position)

        self.futures: list[Future[None]] = [
            pool.submit(fill, row, position) for row, position in enumerate(positions.tolist())
        ]

    def result(self) -> Tensor:
        """The finished batch, uint8 (n, C, H, W). ValueError: an image is bad."""
        try:
            for future in self.futures:
                future.result()
        except BadImage as error:
            self.cancel()
            raise ValueError(f"{error}: {ADVICE}.") from error
        return self.images

    def cancel(self) -> None:
        """Leave undone what no thread has begun."""
        for future in self.futures:
            future.cancel()


class LazyImages(ImageData):
    """Labelled images that are decoded whenever they are needed; what needs them all at once gets them in memory.

    Attributes:
        files: where they are, and how they are decoded.
        positions: (N,), int64, of these images among the files.
        workers: threads that decode; 0: none; None: `default_workers`. Images do not depend on it.
    """

    def __init__(
        self,
        files: Files,
        labels: Tensor,
        class_names: tuple[str, ...],
        name: str,
        workers: int | None = None,
        positions: Tensor | None = None,
    ):
        self.files, self.labels, self.class_names, self.name = files, labels, class_names, name
        self.workers = workers
        self.positions = torch.arange(len(files)) if positions is None else positions
        self._images: Tensor | None = None
        check_labels(labels, len(self.positions), class_names, name)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def shape(self) -> Shape:
        return self.files.shape

    @property
    def images(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """All images, decoded at the first call and kept. ValueError: they take more than 8 GiB."""
        if self._images is None:
            check_memory(len(self), self.shape, self.name)
            self._images = self.pixels()
        return self._images

    @cached_property
    def content(self) -> str:
        """SHA-256 of shape, class names, labels, and the name and size of every file: pixels are not read for it."""
        digest = hashlib.sha256(f"files {self.files.view} {len(self)} {self.class_names}".encode())
        for position in self.positions.tolist():
            name, size = self.files.told(position)
            digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()

    def pixels(self, indices: Tensor | slice | None = None) -> Tensor:
        if self._images is not None:
            return self._images if indices is None else self._images[indices]
        return self.files.gather(self.positions if indices is None else self.positions[indices], self.workers)

    def take(self, indices: Tensor, name: str | None = None) -> "LazyImages":
        labels, positions = self.labels[indices], self.positions[indices]
        return LazyImages(self.files, labels, self.class_names, name or self.name, self.workers, positions)

    def renamed(self, name: str) -> "LazyImages":
        return LazyImages(self.files, self.labels, self.class_names, name, self.workers, self.positions)

    def seen(self, view: View) -> "LazyImages":
        """The same images, decoded in another way."""
        files = self.files.seen(view)
        return LazyImages(files, self.labels, self.class_names, self.name, self.workers, self.positions)

    def fitted(self, shape: Shape) -> "LazyImages":
        return self.seen(self.files.view.of_shape(shape))

    def told(self) -> list[str]:
        """Names of the files, in order."""
        return [self.files.told(position)[0] for position in self.positions.tolist()]

    def readable(self) -> tuple[Tensor, list[str]]:
        """Decode every image: positions of the good ones, and a sentence about each bad one."""
        results = decoded(self.files, self.positions.tolist(), self.workers)
        problems = {i: str(result) for i, result in enumerate(results) if isinstance(result, BadImage)}
        good = torch.tensor([i not in problems for i in range(len(self))], dtype=torch.bool)
        return good.nonzero().flatten(), list(problems.values())

    def held(self) -> ImageData:
        """The same images in memory. ValueError: a bad one."""
        images = torch.empty(len(self), *self.shape, dtype=torch.uint8)
        array = images.numpy()
        for row, result in enumerate(decoded(self.files, self.positions.tolist(), self.workers)):
            if isinstance(result, BadImage):
                advice = "replace or remove it, or give `--data.on-bad-image skip`"
                raise ValueError(f"{result}: {advice}.") from result
            array[row] = result
        return ImageData(images, self.labels, self.class_names, self.name)
