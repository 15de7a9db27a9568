"""How many passes through the network a method's training step makes, counted while it makes them.

The method itself runs, one step on two tiny images and a network of two layers; nothing about it is written down twice.
"""

import copy
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualat.core.loop import GradientLoop
from dualat.methods.base import Batch, Method

_IMAGES = 2
_SIDE = 4


@dataclass(frozen=True)
class Passes:
    """Passes per image of the batch and training step."""

    loop: float
    """Forward and back to the image: steps of attacks, of contrastive samples and of chains."""
    first: float
    """The same through the first layer alone (JEM++)."""
    forward: float
    """Forward alone (the last iterate where the best one is kept)."""
    learn: float
    """Forward and back to the weights: images in the loss, twice with sharpness-aware minimisation."""
    penalty: float
    """Forward, back to the image, and back through both to the weights (R1)."""
    rounds: int
    """How often the loss is taken: twice with sharpness-aware minimisation."""
    made: tuple[str, ...]
    """Names of the images that the gradient loops make."""


def count_passes(method: Method, channels: int, classes: int) -> Passes:
    """Passes of one training step of a method, with T where its curriculum stands.

    Args:
        channels: of an image.
        classes: number of classes K.
    """
    method = copy.deepcopy(method)  # it learns from what it sees
    shape = (_IMAGES, channels, _SIDE, _SIDE)
    rounds = 2 if method.sharpness else 1
    with torch.random.fork_rng(devices=[]):
        network = _Tiny(channels, classes)
        images, labels = torch.rand(shape), torch.arange(_IMAGES) % classes
        batch = Batch(images, labels)
        if method.needs_energy_batch:
            batch = Batch(images, labels, torch.rand(shape), labels, torch.rand(shape))
        made = method.generate(GradientLoop(network), batch)
        for _ in range(rounds):
            method.loss_on(network, batch, made)
    each = {kind: count / _IMAGES for kind, count in network.seen.items()}
    kinds = {kind: each.get(kind, 0.0) for kind in ("loop", "first", "forward", "learn", "penalty")}
    return Passes(**kinds, rounds=rounds, made=tuple(made))


class _Tiny(nn.Module):
    """A convolution and a linear layer that count the images that pass, by kind of pass."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.seen = Counter[str]()
        self.first = _First(channels, self.seen)
        self.last = nn.Linear(2, classes)

    def forward(self, x: Tensor) -> Tensor:
        self.seen[self._kind(x)] += len(x)
        self.seen["first"] -= len(x)  # which the first layer adds: here it is not alone
        return self.last(self.first(x).mean(dim=(2, 3)))

    def _kind(self, x: Tensor) -> str:
        if not torch.is_grad_enabled():
            return "forward"
        if not self.last.weight.requires_grad:
            return "loop"
        return "penalty" if x.requires_grad else "learn"


class _First(nn.Conv2d):
    def __init__(self, channels: int, seen: Counter[str]):
        super().__init__(channels, 2, 1)
        self.seen = seen

    def forward(self, input: Tensor) -> Tensor:
        self.seen["first"] += len(input)
        return super().forward(input)
