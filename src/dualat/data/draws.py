"""Random numbers for each image of a batch, the same however the batch is divided among processes."""

import torch
from torch import Tensor


class Draws:
    """Random numbers for the images of a batch, of which this process has a part.

    They are drawn for the whole batch and cut to the part, so that an image's numbers do not depend on who has it.

    Args:
        generator: source of the numbers; None: PyTorch's own of `device`.
        whole: images in the whole batch.
        part: those of them that this process has.
        device: where the numbers are drawn without a generator.
    """

    def __init__(
        self,
        generator: torch.Generator | None,
        whole: int,
        part: slice = slice(None),
        device: torch.device | str = "cpu",
    ):
        self.generator, self.whole, self.part = generator, whole, part
        self.device = torch.device(device) if generator is None else generator.device

    def __len__(self) -> int:
        return len(range(self.whole)[self.part])

    def integers(self, high: int, *size: int) -> Tensor:
        """int64 (n, *size), uniform in 0 to high - 1."""
        shape = (self.whole, *size)
        return torch.randint(high, shape, generator=self.generator, device=self.device)[self.part]

    def uniform(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """(n, *size), uniform in [0, 1)."""
        shape = (self.whole, *size)
        return torch.rand(shape, generator=self.generator, device=self.device, dtype=dtype)[self.part]

    def normal(self, *size: int) -> Tensor:
        """float32 (n, *size), standard normal."""
        shape = (self.whole, *size)
        return torch.randn(shape, generator=self.generator, device=self.device)[self.part]


def draws_for(
    count: int, generator: "torch.Generator | Draws | None", device: torch.device | str = "cpu"
) -> Draws:
    """Draws for `count` images: the given ones, or those of a generator for a batch that is not divided.

    Raises:
        ValueError: given draws are for another number of images.
    """
    if not isinstance(generator, Draws):
        return Draws(generator, count, device=device)
    if len(generator) != count:
        raise ValueError(f"there are {count} images, but draws for {len(generator)}: divide both alike.")
    return generator
