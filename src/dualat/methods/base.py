"""What every method has in common: two batches in, a loss and its figures out, and a state that a resume restores."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dualat.geometry import ThreatModel
from dualat.methods.settings import AttackSettings
from dualat.objectives import raise_cross_entropy
from dualat.pgd import pgd


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


class Method(ABC):
    """One system of the comparison. Subclasses state their loss in `loss`."""

    name: ClassVar[str]
    needs_energy_batch: ClassVar[bool]

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The scalar to minimise, and figures to log. The model's mode is set by the training loop."""

    def warning(self) -> str | None:
        """A sentence where the run so far shows that nothing is being learned."""
        return None

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold, as JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - a method without state restores nothing
        """Take `state()` back."""


def adversarial(model: nn.Module, images: Tensor, labels: Tensor, attack: AttackSettings) -> Tensor:
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
    )


def batchnorm_modules(model: nn.Module) -> list[nn.Module]:
    """All BatchNorm layers of a model."""
    return [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
