"""What every method has in common: two batches in, a loss and its figures out, and a state that a resume restores."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dualat.core.geometry import ThreatModel
from dualat.core.loop import GradientLoop, ModelOrLoop, pgd
from dualat.core.objectives import raise_cross_entropy
from dualat.methods.curriculum import Curriculum
from dualat.methods.registry import row_of
from dualat.methods.settings import AttackSettings, MethodSettings
from dualat.models.batchnorm import batchnorm_modules


@dataclass
class Batch:
    """Images of one training step, float (B, C, H, W) in [0, 1], drawn and augmented separately.

    robust_*: strong augmentation, for the classification loss. energy_*: basic augmentation, for the energy loss,
    with `starts` from the initial distribution; None for methods that have no energy loss.
    """

    robust_images: Tensor
    robust_labels: Tensor
    energy_images: Tensor | None = None
    energy_labels: Tensor | None = None
    starts: Tensor | None = None

    def split(self, parts: int) -> "list[Batch]":
        """The batch in `parts` equal parts, for gradient accumulation."""
        if parts == 1:
            return [self]
        tensors = (getattr(self, f.name) for f in fields(self))
        pieces = [[None] * parts if t is None else list(t.chunk(parts)) for t in tensors]
        return [Batch(*part) for part in zip(*pieces, strict=True)]  # pyright: ignore[reportArgumentType]


class Method(ABC):
    """One system of the comparison: the images that it makes, and its loss on them. Its settings stand in registry.py."""

    one_process: ClassVar[bool] = False
    """Whether it has a state of its own, such as a replay buffer, that several processes cannot share."""
    compiles: ClassVar[bool] = True
    """Whether it has a gradient loop, which can run compiled."""
    curriculum: Curriculum | None = None
    """What decides T, the number of contrastive steps, where anything does."""
    sharpness: float = 0.0
    """rho of sharpness-aware minimisation (training/sharpness.py); 0: plain gradient steps."""

    def __init__(self, settings: MethodSettings, batch_size: int):
        """settings: what a configuration has under `method`. batch_size: images of each batch of a step, of all processes."""
        self.settings, self.batch_size = settings, batch_size

    @property
    def name(self) -> str:
        """What configurations call it."""
        return self.settings.name

    @property
    def needs_energy_batch(self) -> bool:
        """Whether a step needs images for the energy loss, and starts."""
        row = row_of(self.name)
        return row.energy_images or row.starts

    def loop_steps(self) -> int:
        """Gradient steps of a training step, for each image: those of its attack and of its chain, not the curriculum's T."""
        groups = (getattr(self.settings, name, None) for name in ("attack", "chain"))
        return sum(group.steps for group in groups if group is not None)

    def loop_sizes(self, images: int) -> tuple[int, ...]:
        """Sizes of the batches that climb the gradient loop in a step on so many images."""
        return (images,)

    @abstractmethod
    def generate(self, model: ModelOrLoop, batch: Batch) -> dict[str, Tensor]:
        """Images that gradient loops make for this step, by name: (B, C, H, W) each. No gradient reaches the weights.

        model: in training a `GradientLoop`, to be handed to `pgd`, or the network itself (`loop_of(model).model`).
        """

    @abstractmethod
    def loss_on(
        self, model: nn.Module, batch: Batch, made: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The scalar to minimise given the images made, and metric values to log. The training loop sets the model's mode. A
        method with a curriculum notes the scores of these images; `after_step` then decides on T."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Both in one: make the images, then the loss on them. A loop of your own also calls `after_step` once per step;
        to look at a loss without moving the curriculum, call this on a copy of the method."""
        return self.loss_on(model, batch, self.generate(GradientLoop(model), batch))

    def after_step(self) -> dict[str, float]:
        """What is decided on a step's whole batch, once all its parts have been seen; figures to log."""
        return {} if self.curriculum is None else self.curriculum.after_step()

    def warning(self) -> str | None:
        """A sentence where the run so far shows that nothing is being learned."""
        return None if self.curriculum is None else self.curriculum.warning()

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold, as JSON."""
        return {} if self.curriculum is None else {"curriculum": self.curriculum.state()}

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside `state()`, as tensors."""
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take `state()` and `tensors()` back."""
        if self.curriculum is not None:
            self.curriculum.restore(state["curriculum"])


def adversarial(model: ModelOrLoop, images: Tensor, labels: Tensor, attack: AttackSettings) -> Tensor:
    """x_adv of adversarial training: PGD in the ball, last iterate."""
    threat = ThreatModel(attack.norm, attack.eps)
    return pgd(
        model,
        images,
        raise_cross_entropy(labels),
        threat,
        steps=attack.steps,
        step_size=attack.step_size,
        random_start=attack.random_start,
        checked=False,
    )


def forward(model: nn.Module, batches: list[Tensor]) -> list[Tensor]:
    """Logits of several batches: one pass where images do not influence each other, one pass each where a
    BatchNorm layer in train mode would mix them."""
    if any(module.training for module in batchnorm_modules(model)):
        return [model(x) for x in batches]
    return list(model(torch.cat(batches)).split([len(x) for x in batches]))


def noisy(images: Tensor, standard_deviation: float) -> Tensor:
    """x + sigma z, z ~ N(0, I): the input noise of the JEM family."""
    return images + standard_deviation * torch.randn_like(images) if standard_deviation else images
