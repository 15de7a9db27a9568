"""One GPU's share of a training step: how many passes through the network, and their operations and memory.

Passes are counted while the method itself makes one step on two tiny images and a network of two layers; operations and
memory are seen on tensors without data. Nothing about a method is written down twice.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from dualat.core.loop import GradientLoop, frozen, gradient_at
from dualat.core.objectives import lower_energy
from dualat.core.step import Move, step
from dualat.methods.base import Batch, Method
from dualat.planning.observe import META, Observation, observe, on_gpu

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


@dataclass
class StepCost:
    """One part of a GPU's batch: what passes cost, and what the step is made of."""

    images: int
    """Images of the part, of each of its batches."""
    passes: Passes
    loop: Observation
    """One pass of all of them, forward and back to the images."""
    first: Observation
    """The same through the first layer alone."""
    forward: Observation
    learn: Observation
    """The loss of the part, forward and back to the weights."""
    image_bytes: int
    """Of one image in each batch, and in each that the gradient loops make."""

    def works(self, passes: Passes | None = None) -> list[tuple[float, Observation]]:
        """How often each is done; with the numbers of other passes where T is another."""
        p = passes or self.passes
        return [
            (p.loop, self.loop),
            (p.first, self.first),
            (p.forward, self.forward),
            (p.rounds, self.learn),
        ]

    def flops(self, passes: Passes | None = None) -> float:
        """Operations per image of the batch and training step."""
        return sum(count * seen.flops for count, seen in self.works(passes)) / self.images

    def least_seconds(self, peak: float, bandwidth: float | None, passes: Passes | None = None) -> float:
        """What a device needs for the part at least."""
        return sum(count * seen.least_seconds(peak, bandwidth) for count, seen in self.works(passes))


def step_cost(
    model: nn.Module,
    method: Method,
    passes: Passes,
    images: int,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
) -> StepCost:
    """See one part of a training step.

    Args:
        model: on "meta", in the mode in which it is trained.
        method: whose loss it is.
        passes: what `count_passes` gave for it.
        images: of each batch, on one GPU and in one part.
        shape: (C, H, W) of one.
        dtype: torch.bfloat16 for autocast, or torch.float32.

    Raises:
        ValueError: the loss cannot be differentiated through this network.
    """

    def pictures() -> Tensor:
        return torch.empty(images, *shape, device=META)

    labels = torch.zeros(images, dtype=torch.int64, device=META)
    convolution = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), nn.Identity())

    def one_pass(module: nn.Module, objective: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        def advance() -> object:
            x, centre = pictures(), pictures()
            with on_gpu(dtype):
                gradient = partial(gradient_at, module, objective)
                return step(gradient, Move("L2", "L2", ball=False, clip=True), x, centre, 0.1, math.inf)

        return advance

    def forward() -> object:
        with torch.no_grad(), on_gpu(dtype):
            return model(pictures())

    with frozen(model):
        through = observe(one_pass(model, lower_energy(labels)))
        first = observe(one_pass(convolution, _total)) if passes.first else Observation()
        alone = observe(forward) if passes.forward else Observation()
    for weight in model.parameters():
        weight.grad = torch.empty_like(weight)  # there beforehand: gradients are counted apart
    with on_gpu(dtype):
        learn = observe(lambda: _learn(model, copy.deepcopy(method), passes.made, pictures, labels))
    kinds = (3 if method.needs_energy_batch else 1) + len(passes.made)
    return StepCost(images, passes, through, first, alone, learn, kinds * math.prod(shape) * 4)


def _total(outputs: Tensor) -> Tensor:
    return outputs.float().flatten(1).sum(dim=1)


def _learn(
    model: nn.Module,
    method: Method,
    names: tuple[str, ...],
    pictures: Callable[[], Tensor],
    labels: Tensor,
) -> None:
    """The method's own loss on a batch and the images made of it, and its gradient."""
    batch = Batch(pictures(), labels)
    if method.needs_energy_batch:
        batch = Batch(pictures(), labels, pictures(), labels, pictures())
    made = {name: pictures() for name in names}
    try:
        loss, _ = method.loss_on(model, batch, made)
        loss.backward()
    except RuntimeError as error:
        raise ValueError(
            f"the loss of {method.name} cannot be differentiated through this network ({str(error).splitlines()[0]}): "
            "choose another network."
        ) from error
