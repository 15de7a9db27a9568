"""BatchNorm, in every mode that training has.

    frozen       eval mode: the running statistics that it starts with        set_train_mode
    train mode   the batch's statistics, which the running ones follow        set_train_mode
    untracked    train mode that leaves the running statistics alone          untracked
    batch's      the batch's statistics in every mode, nothing learned        BatchStatistics, as_the_loss_sees_it
    synced       train mode with the statistics of all processes' images      synchronise_batchnorm
    again        as a block's first pass found it                             FirstPass

Where BatchNorm is not frozen, the loss takes the energy of samples in train mode. A chain that lowers the energy of eval
mode lowers another one: the two drift apart, and the loss falls without end. JEM++ and SADA-JEM, whose networks have
BatchNorm, draw their samples in train mode; JEM's has no normalisation.

Synced, a run's outcome does not depend on how many processes share its batches. PyTorch's own SyncBatchNorm does the same on
GPUs alone.

    mu = mean over all ranks,   sigma^2 = mean of (x - mu)^2 over all ranks,   y = (x - mu) / sqrt(sigma^2 + eps) * w + b
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dualat.core.compiled import shared_view
from dualat.core.loop import GradientLoop, ModelOrLoop, loop_of
from dualat.system.distributed import all_reduced, world_size


def batchnorm_modules(model: nn.Module) -> list[_BatchNorm]:
    """All BatchNorm layers of a model."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm)]


def set_train_mode(model: nn.Module, freeze_batchnorm: bool) -> None:
    """Train mode; BatchNorm layers in eval mode where their statistics stay frozen."""
    model.train()
    if freeze_batchnorm:
        for layer in batchnorm_modules(model):
            layer.eval()


@contextmanager
def untracked(model: nn.Module) -> Iterator[list[_BatchNorm]]:
    """Inside, BatchNorm layers in train mode leave their running statistics alone; gives all BatchNorm layers."""
    layers = batchnorm_modules(model)
    modes = [(layer.training, layer.track_running_stats) for layer in layers]
    try:
        for layer in layers:
            if layer.training:
                layer.track_running_stats = False
        yield layers
    finally:
        for layer, (training, tracked) in zip(layers, modes, strict=True):
            layer.training, layer.track_running_stats = training, tracked


class BatchStatistics(nn.Module):
    """A model, images (B, C, H, W) -> logits, with the statistics of the batch in every mode; it learns none of them."""

    mixes_images = True  # a compiled step runs on whole batches alone

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with untracked(self.model) as layers:
            for layer in layers:
                layer.training, layer.track_running_stats = True, False
            return self.model(x)

    def shared_view(self) -> nn.Module:
        """What compiled steps run on: layers that are in the mode for good, as a graph cannot switch it."""
        view = shared_view(self.model)
        for layer in batchnorm_modules(view):
            layer.training, layer.track_running_stats = True, False
        return view


def as_the_loss_sees_it(model: ModelOrLoop) -> GradientLoop:
    """The loop on the model whose energy a chain must lower, in the mode that the training loop has set."""
    loop = loop_of(model)
    if any(layer.training for layer in batchnorm_modules(loop.model)):
        return loop.part("batch statistics", BatchStatistics)
    return loop


class FirstPass:
    """The BatchNorm layers of a block as its first pass found them, for the passes that compute its activations again
    (checkpointing.py): the same modes, whatever they are by then, and running statistics that these passes move in copies alone. Entered once per pass: a loss that is
    differentiated twice has several."""

    def __init__(self, block: nn.Module):
        self.norms = batchnorm_modules(block)
        self.modes = [(norm.training, norm.track_running_stats) for norm in self.norms]
        self.found: list[tuple[tuple[bool, bool], dict[str, Tensor | None]]] = []

    def __enter__(self) -> None:
        self.found = [((n.training, n.track_running_stats), dict(n._buffers)) for n in self.norms]
        for norm, (training, tracked) in zip(self.norms, self.modes, strict=True):
            norm.training, norm.track_running_stats = training, tracked
            norm._buffers.update({k: None if b is None else b.clone() for k, b in norm._buffers.items()})

    def __exit__(self, *_: object) -> None:
        for norm, ((training, tracked), buffers) in zip(self.norms, self.found, strict=True):
            norm.training, norm.track_running_stats = training, tracked
            norm._buffers.update(buffers)


class RankSum(torch.autograd.Function):
    """Sum over the ranks; its gradient is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return all_reduced(x.clone())

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
        if not self.training or world_size() == 1:
            return super().forward(input)
        return normalised(self, input)


def normalised(layer: _BatchNorm, images: Tensor) -> Tensor:
    """Images (B, C, H, W) of this rank by the statistics of all ranks', which the layer remembers."""
    x = images.float()
    count = x.numel() // x.shape[1] * world_size()
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
            if not self.training or world_size() == 1:
                return super().forward(x)
            after: Any = self  # timm does not say that these are layers
            return after.act(after.drop(normalised(after, x)))

    return BatchNormAct2d, SyncedBatchNormAct2d


def synchronise_batchnorm(model: nn.Module) -> None:
    """Make every BatchNorm layer of a model a synchronised one, in place; weights and names stay.

    Raises ValueError for a layer of a kind that cannot be.
    """
    for module in batchnorm_modules(model):
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
