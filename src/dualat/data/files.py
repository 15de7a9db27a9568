"""Pictures in files of their own format: read by position, decoded by threads.

PIL sets Python's interpreter lock free while it decodes and resizes, so that threads use all cores and nothing has to
be sent between processes.
"""

import copy
import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dualat.data.decode import BadImage, View
from dualat.data.pictures import Pictures, Shape

_AT_A_TIME = 256
_MOST_WORKERS = 16
ADVICE = "replace or remove it, or list all such images with `dualat data prepare images` and give the list to `exclude`"
SKIPPING = "replace or remove it, or give `--data.on-bad-image skip`"
"""What to do about a bad file, while images are read into memory."""


def default_workers() -> int:
    """Threads that decode unless told otherwise: one per core that this process may use, 16 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads for images that are waited for at once; batches ahead of the training loop have threads of their own."""
    return ThreadPoolExecutor(workers, thread_name_prefix="dualat-decode")


class Files(Pictures):
    """Pictures in files of their own format, decoded one by one.

    Args:
        view: how they are decoded.
        workers: threads that decode; 0: none; None: `default_workers`. Pictures do not depend on it.
    """

    def __init__(self, view: View, workers: int | None = None):
        self.view = view
        self.workers = default_workers() if workers is None else workers

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

    def fitted(self, shape: Shape, name: str) -> Self:
        return self.seen(self.view.of_shape(shape))

    def gather(self, positions: Tensor, advice: str = ADVICE) -> Tensor:
        images = torch.empty(len(positions), *self.shape, dtype=torch.uint8)
        array = images.numpy()
        for row, result in enumerate(self.decoded(positions.tolist())):
            if isinstance(result, BadImage):
                raise ValueError(f"{result}: {advice}.") from result
            array[row] = result
        return images

    def decoded(self, positions: Sequence[int]) -> Iterator[np.ndarray | BadImage]:
        """The images at these positions in order, uint8 (C, H, W), some hundred at a time; an error where one is bad."""

        def read(position: int) -> np.ndarray | BadImage:
            try:
                return self.read(position)
            except BadImage as error:
                return error

        for start in range(0, len(positions), _AT_A_TIME):
            part = positions[start : start + _AT_A_TIME]
            yield from _pool(self.workers).map(read, part) if self.workers else map(read, part)

    def digest(self, positions: Tensor, words: str) -> "hashlib._Hash":
        """SHA-256 of the view, of more words, and of the name and size of every file: pixels are not read for it."""
        digest = hashlib.sha256(f"files {self.view} {len(positions)}{words}".encode())
        for position in positions.tolist():
            name, size = self.told(position)
            digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
        return digest


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
