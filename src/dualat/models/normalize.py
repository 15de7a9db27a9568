"""Input normalisation as a part of the network, so that attacks and samples always live in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dualat.models.settings import check_statistics


class Normalized(nn.Module):
    """f(x) = network( (x - mean) / std ), per channel.

    Args:
        network: logits from normalised images.
        mean, std: one value per channel, in pixel units of [0, 1]; std above 0. ValueError for others.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        if not std or len(mean) != len(std):
            raise ValueError(f"normalisation needs one mean and one std per channel, not {mean} and {std}.")
        check_statistics(mean, std)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in [0, 1]."""
        return self.network((x - self.mean) / self.std)
