"""BatchNorm whose statistics, in train mode, are those of all ranks' images: a run's outcome then does not depend on how
many processes share its batches. PyTorch's own SyncBatchNorm does the same on GPUs alone.

    mu = mean over all ranks,   sigma^2 = mean of (x - mu)^2 over all ranks,   y = (x - mu) / sqrt(sigma^2 + eps) * w + b
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dualat.system.distributed import ranks, summed


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
        return normalised(self, input)


def normalised(layer: _BatchNorm, images: Tensor) -> Tensor:
    """Images (B, C, H, W) of this rank by the statistics of all ranks', which the layer remembers."""
    x = images.float()
    count = x.numel() // x.shape[1] * ranks()
    mean = rank_sum(x.sum(dim=(0, 2, 3))) / count
    centred = x - mean.view(1, -1, 1, 1)
    variance = rank_sum(centred.square().sum(dim=(0, 2, 3))) / count
    remember(layer, mean.detach(), variance.detach() * count / max(1, count - 1))
    scale = (variance + layer.eps).rsqrt() * layer.weight
    return (centred * scale.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)).to(images.dtype)


@torch.no_grad()
def remember(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics towards this batch's."""
    assert layer.running_mean is not None and layer.running_var is not None
    assert layer.num_batches_tracked is not None and layer.momentum is not None
    layer.num_batches_tracked += 1
    layer.running_mean.lerp_(mean, layer.momentum)
    layer.running_var.lerp_(variance, layer.momentum)


@cache
def _with_activation() -> tuple[type, type]:
    """timm's BatchNorm that is followed by its activation, and the same synchronised. timm is imported when needed."""
    from timm.layers.norm_act import BatchNormAct2d

    class SyncedBatchNormAct2d(BatchNormAct2d):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training or ranks() == 1:
                return super().forward(x)
            after: Any = self  # timm does not say that these are layers
            return after.act(after.drop(normalised(after, x)))

    return BatchNormAct2d, SyncedBatchNormAct2d


def synchronise_batchnorm(model: nn.Module) -> None:
    """Make every BatchNorm layer of a model a synchronised one, in place; weights and names stay.

    Raises ValueError for a layer of a kind that cannot be.
    """
    for module in model.modules():
        if not isinstance(module, _BatchNorm):
            continue
        act, synced_act = _with_activation()
        synced: dict[type, type] = {nn.BatchNorm2d: SyncedBatchNorm2d, act: synced_act}
        known = type(module) in synced and module.affine and module.track_running_stats
        if known and module.momentum is not None:
            module.__class__ = synced[type(module)]
        elif type(module) not in synced.values():
            raise ValueError(
                f"layers of kind {type(module).__name__} cannot share their statistics among processes: run on one "
                "process, or freeze BatchNorm (freeze_batchnorm)."
            )
