"""Batches by step number: the batch of any step is a pure function of (data, batch size, seed, step)."""

import weakref
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from dualat.data.files import Decoding, Files
from dualat.data.images import ImageData
from dualat.system.seeds import mix_seed

_AHEAD = 2  # batches that are decoded while the present one is used


class BatchStream:
    """Endless batches in a new random order each epoch.

    Nothing has to be saved or replayed to resume: step 1,234 has the same batch in every run with this seed. An
    incomplete batch at an epoch's end is dropped; a batch larger than the data is cut to the data. Of images that are
    not in memory, the batches of the next two steps are decoded by threads meanwhile.

    Args:
        data: what batches are made of.
        batch_size: images in the batch of a step, of all processes together.
        seed: of the order.
        part: those positions of every batch that this process wants; all unless told otherwise.
        pin: put images into page-locked memory, from where they reach a GPU while it computes.

    Raises:
        ValueError: no images, or a batch size below 1.
    """

    def __init__(
        self, data: ImageData, batch_size: int, seed: int, part: slice = slice(None), pin: bool = False
    ):
        if batch_size < 1:
            raise ValueError(f"batch size is {batch_size}, but must be at least 1.")
        if not len(data):
            raise ValueError(f"{data.name} has no images: give data with at least one.")
        self.data, self.seed, self.part, self.pin = data, seed, part, pin
        self.batch_size = min(batch_size, len(data))
        self._order: tuple[int, Tensor] | None = None  # last epoch's permutation, only to save time
        self._decoding: dict[int, Decoding] = {}
        self._pool: ThreadPoolExecutor | None = None
        if isinstance(data.pictures, Files) and data.pictures.workers:
            self._pool = ThreadPoolExecutor(data.pictures.workers, thread_name_prefix="dualat-ahead")
            weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data) // self.batch_size

    def indices(self, step: int) -> Tensor:
        """Positions (batch_size,), int64, of the images of this step, 0 being the first, of all processes together.

        Raises:
            ValueError: a negative step.
        """
        if step < 0:
            raise ValueError(f"step is {step}, but must be 0 or more.")
        epoch, place = divmod(step, self.steps_per_epoch)
        order = self._permutation(epoch)
        return order[place * self.batch_size : (place + 1) * self.batch_size].clone()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W), uint8, and labels (n,), int64, of this process's part of this step.

        Raises:
            ValueError: a negative step, or an image that cannot be decoded.
        """
        indices = self.indices(step)[self.part]
        if self._pool is not None:
            return self._decoded(step, self._pool), self.data.labels[indices]
        images = self.data.pixels(indices)
        return images.pin_memory() if self.pin else images, self.data.labels[indices]

    def _decoded(self, step: int, pool: ThreadPoolExecutor) -> Tensor:
        """Images of this step; those of the next steps are begun."""
        wanted = range(step, step + 1 + _AHEAD)
        for other in [other for other in self._decoding if other not in wanted]:
            self._decoding.pop(other).cancel()
        for ahead in wanted:
            if ahead not in self._decoding:
                positions = self.data.positions[self.indices(ahead)[self.part]]
                self._decoding[ahead] = Decoding(self.data.files, positions, pool, self.pin)
        return self._decoding.pop(step).result()

    def _permutation(self, epoch: int) -> Tensor:
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(mix_seed("batches", self.seed, epoch))
            self._order = epoch, torch.randperm(len(self.data), generator=generator)
        return self._order[1]
