"""Settings that methods share. Imports nothing heavy: the command line reads this file."""

import math
from typing import Literal

from pydantic.dataclasses import dataclass

from dualat.settings import STRICT


@dataclass(config=STRICT)
class AttackSettings:
    """The attack of adversarial training: PGD on the cross-entropy, inside a ball."""

    norm: Literal["L2", "Linf"] = "L2"
    """Norm of the ball."""
    eps: float = 0.5
    """Radius of the ball, in pixel units of [0, 1]."""
    steps: int = 10
    """Gradient steps."""
    step_size: float = 0.1
    """Length of a step, in pixel units of [0, 1]."""
    random_start: bool = False
    """Start at a random point of the ball instead of at the image."""

    def __post_init__(self) -> None:
        if not 0 <= self.eps < math.inf:
            raise ValueError(f"attack.eps is {self.eps}, but must be 0 or more, and finite.")
        if self.steps < 0 or not 0 < self.step_size < math.inf:
            raise ValueError(
                f"attack.steps must be 0 or more and attack.step_size above 0, "
                f"not {self.steps} and {self.step_size}."
            )
        if self.steps and self.steps * self.step_size < self.eps * (1 - 1e-6):
            raise ValueError(
                f"the attack cannot reach the edge of its ball: attack.steps * attack.step_size is "
                f"{self.steps * self.step_size:g}, below attack.eps = {self.eps:g}."
            )


@dataclass(config=STRICT)
class ContrastiveSettings:
    """Contrastive samples of stage 2, and the curriculum on their number of steps T."""

    t_max: int = 50
    """T_max: the largest number of gradient steps."""
    auc_threshold: float = 0.8
    """AUC_th: T grows by one when the mean AUROC over the window reaches this, 0.5 to 1."""
    window: int = 1000
    """Images over which the AUROC is averaged before T may grow: ceil(window / batch) training steps."""
    step_size: float = 0.1
    """eta: L2 length of a step, in pixel units of [0, 1]."""
    energy: Literal["joint", "marginal"] = "joint"
    """Energy that the steps lower: E(x, y) with the labels of the real batch, or E(x)."""

    def __post_init__(self) -> None:
        if self.t_max < 0 or self.window < 1 or not 0 < self.step_size < math.inf:
            raise ValueError(
                f"contrastive.t_max must be 0 or more, contrastive.window 1 or more and "
                f"contrastive.step_size above 0, not {self.t_max}, {self.window} and {self.step_size}."
            )
        if not 0 <= self.auc_threshold <= 1:
            raise ValueError(f"contrastive.auc_threshold is {self.auc_threshold}, but is an AUROC: 0 to 1.")


@dataclass(config=STRICT)
class LossSettings:
    """Weights of the terms of the loss."""

    cross_entropy: float = 1.0
    """Weight of the robust classification loss L_AT-CE."""
    energy: float = 1.0
    """Weight of the energy loss L_BCE (stage 2)."""
    r1: float = 0.0
    """Weight of the gradient penalty R1 on real images (stage 2); 0 logs it only."""

    def __post_init__(self) -> None:
        weights = (self.cross_entropy, self.energy, self.r1)
        if not all(0 <= w < math.inf for w in weights) or self.cross_entropy == self.energy == 0:
            raise ValueError(
                f"weights of the loss must be 0 or more, one of the first two above 0, not {weights}."
            )
