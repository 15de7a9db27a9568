"""BatchNorm whose statistics, in train mode, are those of all ranks' images: a run's outcome then does not depend on how
many processes share its batches. PyTorch's own SyncBatchNorm does the same on GPUs alone.

    mu = mean over all ranks,   sigma^2 = mean of (x - mu)^2 over all ranks,   y = (x - mu) / sqrt(sigma^2 + eps) * w + b
"""

from typing import Any

import torch
from torch import Tensor, nn

from dualat.distributed import ranks, summed


class RankSum(torch.autograd.Function):
    """Sum over the ranks; its gradient is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return summed(x.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return rank_sum(gradient)  # differentiable itself: R1 needs the second derivative


def rank_sum(x: Tensor) -> Tensor:
    """Differentiable sum over the ranks."""
    found = RankSum.apply(x)
    assert isinstance(found, Tensor)
    return found


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d with the same weights, buffers and names; the same in eval mode."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or ranks() == 1:
            return super().forward(input)
        x = input.float()
        count = x.numel() // x.shape[1] * ranks()
        mean = rank_sum(x.sum(dim=(0, 2, 3))) / count
        centred = x - mean.view(1, -1, 1, 1)
        variance = rank_sum(centred.square().sum(dim=(0, 2, 3))) / count
        self.remember(mean.detach(), variance.detach() * count / max(1, count - 1))
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(input.dtype)

    @torch.no_grad()
    def remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards this batch's."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def synchronise_batchnorm(model: nn.Module) -> None:
    """Make every nn.BatchNorm2d of a model a SyncedBatchNorm2d, in place; weights and names stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats:
            module.__class__ = SyncedBatchNorm2d
