"""Batches by step number: the batch of any step is a pure function of (data, batch size, seed, step)."""

import torch
from torch import Tensor

from dualat.data.images import ImageData
from dualat.seeding import mix_seed


class BatchStream:
    """Endless batches in a new random order each epoch.

    Nothing has to be saved or replayed to resume: step 1,234 has the same batch in every run with this seed. An
    incomplete batch at an epoch's end is dropped; a batch larger than the data is cut to the data.

    Raises:
        ValueError: no images, or a batch size below 1.
    """

    def __init__(self, data: ImageData, batch_size: int, seed: int):
        if batch_size < 1:
            raise ValueError(f"batch size is {batch_size}, but must be at least 1.")
        if not len(data):
            raise ValueError(f"{data.name} has no images: give data with at least one.")
        self.data, self.seed = data, seed
        self.batch_size = min(batch_size, len(data))
        self._order: tuple[int, Tensor] | None = None  # last epoch's permutation, only to save time

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data) // self.batch_size

    def indices(self, step: int) -> Tensor:
        """Positions (batch_size,), int64, of the images of this step, 0 being the first.

        Raises:
            ValueError: a negative step.
        """
        if step < 0:
            raise ValueError(f"step is {step}, but must be 0 or more.")
        epoch, place = divmod(step, self.steps_per_epoch)
        order = self._permutation(epoch)
        return order[place * self.batch_size : (place + 1) * self.batch_size].clone()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (batch_size, C, H, W), uint8, and labels (batch_size,), int64, of this step."""
        indices = self.indices(step)
        return self.data.images[indices], self.data.labels[indices]

    def _permutation(self, epoch: int) -> Tensor:
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(mix_seed("batches", self.seed, epoch))
            self._order = epoch, torch.randperm(len(self.data), generator=generator)
        return self._order[1]
