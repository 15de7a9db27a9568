"""The energy that a loss in train mode sees: BatchNorm layers normalise by the batch at hand.

Where BatchNorm is not frozen, the loss takes the energy of samples in train mode. A chain that lowers the energy of eval
mode lowers another one: the two drift apart, and the loss falls without end. JEM++ and SADA-JEM, whose networks have
BatchNorm, draw their samples in train mode; JEM's has no normalisation.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dualat.core.compiled import shared_view
from dualat.core.loop import GradientLoop, ModelOrLoop, loop_of
from dualat.methods.base import batchnorm_modules


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
