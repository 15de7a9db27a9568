"""Where the batches of a stage come from: order, augmentation, starting points of contrastive samples."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dualat.data.augment import augment
from dualat.data.distributions import InitialDistribution
from dualat.data.draws import Draws
from dualat.data.in_distribution import ImageData
from dualat.data.loaders import BatchStream
from dualat.data.settings import AugmentSettings
from dualat.methods.base import Batch
from dualat.system.distributed import share
from dualat.system.seeds import mix_seed


@dataclass
class Feed:
    """Where the batches of a stage come from."""

    train: ImageData
    robust_augment: AugmentSettings
    energy_augment: AugmentSettings
    initial: InitialDistribution | None
    device: torch.device

    def streams(self, seed: int, stage: int, batch_size: int) -> tuple[BatchStream, BatchStream]:
        """Two independent orders of the same images: for the classification loss and for the energy loss."""
        pin = self.device.type == "cuda"
        part = share(min(batch_size, len(self.train)))
        return (
            BatchStream(self.train, batch_size, mix_seed(seed, stage, "robust"), part, pin),
            BatchStream(self.train, batch_size, mix_seed(seed, stage, "energy"), part, pin),
        )

    def moved(self, images: Tensor) -> Tensor:
        """uint8 images as float32 in [0, 1] on the device: bytes travel, a quarter as much."""
        return images.to(self.device, non_blocking=True).float() / 255

    def batch(self, streams: tuple[BatchStream, BatchStream], step: int, seed: int, energy: bool) -> Batch:
        """This rank's part of one step's batch, on the device. Its random numbers are those of the whole batch."""
        generator = Draws(
            torch.Generator().manual_seed(seed), streams[0].batch_size, share(streams[0].batch_size)
        )
        images, labels = streams[0].batch(step)
        robust = augment(self.moved(images), self.robust_augment, generator)
        if not energy:
            return Batch(robust, labels.to(self.device))
        images, energy_labels = streams[1].batch(step)
        real = augment(self.moved(images), self.energy_augment, generator)
        assert self.initial is not None
        starts = self.initial.sample(len(real), energy_labels, generator).to(self.device)
        return Batch(robust, labels.to(self.device), real, energy_labels.to(self.device), starts)
