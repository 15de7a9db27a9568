"""How a trained model is sampled: settings of a recipe, and a part of the saved model. Does not import PyTorch."""

import math
from dataclasses import asdict
from typing import Any

from dualat.strict import strict
from dualat.types import Energy, SamplerRule, Schedule

_NEW = ("start", "batch_statistics")


@strict
class SamplingSettings:
    """How the trained model is sampled; kept with it as its default."""

    steps: int = 40
    """Gradient steps."""
    step_size: float = 0.1
    """Mean length of a step (see rule), in pixel units of [0, 1]."""
    schedule: Schedule = "constant"
    """How the length goes over the steps: constant, falling to 0 along a line or a cosine, or to a ten-thousandth."""
    momentum: float = 0.0
    """Share of the direction of earlier steps that counts on in each, in [0, 1)."""
    energy: Energy = "joint"
    """Energy that the steps lower: E(x, y) of the class asked for, or E(x), which knows no classes."""
    rule: SamplerRule = "L2"
    """Length of a step: step_size in the L2 norm, step_size times the gradient (Langevin dynamics), or that with every
    derivative clipped."""
    noise: float = 0.0
    """Standard deviation of the normal noise added after each step, in pixel units of [0, 1]."""
    start: str | None = None
    """Part of a mixed initial distribution that samples start from, by its kind, as in class-gaussian; None: all of them."""
    start_noise: float = 0.0
    """Standard deviation of the normal noise added to what samples start from, in pixel units of [0, 1]."""
    batch_statistics: bool = False
    """BatchNorm takes the statistics of the images that are drawn together, as JEM++, SADA-JEM and EB-JDAT sample: an image
    then depends on the others of its batch."""
    clip: bool = True
    """Keep images in [0, 1] at each step, and not only at the end."""

    def recorded(self) -> dict[str, Any]:
        """As records hold it: what earlier versions had not is named where it is chosen alone."""
        return {name: value for name, value in asdict(self).items() if value or name not in _NEW}

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 < self.step_size < math.inf:
            raise ValueError(
                f"sampling.steps must be 0 or more and sampling.step_size above 0, "
                f"not {self.steps} and {self.step_size}."
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"sampling.momentum is {self.momentum}, but must be 0 or more, and below 1.")
        for name in ("noise", "start_noise"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"sampling.{name} is {value}, but is a standard deviation: 0 (none) or more."
                )
