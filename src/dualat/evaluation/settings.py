"""Settings of evaluation. Imports nothing heavy: the command line reads this file."""

import math
from typing import Literal

from pydantic.dataclasses import dataclass

from dualat.settings import STRICT


@dataclass(config=STRICT)
class EvaluationSettings:
    """What is measured on the held-out images at the end of a run, and more briefly while training."""

    norm: Literal["L2", "Linf"] = "L2"
    """Norm of the attack's ball."""
    eps: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Radii at which robust accuracy is measured, in pixel units of [0, 1]."""
    steps: int = 20
    """Gradient steps of the attack, each 2.5 * eps / steps long."""
    robust_images: int | None = None
    """Held-out images that are attacked, evenly picked; None: all."""
    samples: int = 500
    """Class-balanced samples drawn for the generation figures."""
    validation_images: int = 500
    """Images of the validation split used while training."""
    validation_samples: int = 200
    """Samples drawn at each evaluation while training."""
    validation_eps: float = 0.5
    """Radius of the attack while training: the best-robust checkpoint is chosen at this one."""

    def __post_init__(self) -> None:
        if not self.eps or not all(0 <= e < math.inf for e in (*self.eps, self.validation_eps)):
            raise ValueError(
                f"evaluation.eps must be finite radii of 0 or more, not {self.eps} (and "
                f"{self.validation_eps} while training)."
            )
        if self.robust_images is not None and self.robust_images < 1:
            raise ValueError(
                f"evaluation.robust_images is {self.robust_images}, but must be 1 or more (None: all)."
            )
        if len(set(self.eps)) != len(self.eps):
            raise ValueError(f"evaluation.eps names a radius twice: {self.eps}.")
        if self.steps < 1 or min(self.samples, self.validation_images, self.validation_samples) < 2:
            raise ValueError(
                "evaluation.steps must be 1 or more, and numbers of images and samples 2 or more."
            )
