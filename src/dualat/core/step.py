"""One step of the gradient loop, as a pure function: eager (loop.py) and compiled (compiled.py) execution share it.

    v_{t+1} = momentum * v_t + g / ||g||_1  (or g),   x_{t+1} = project( project( x_t + ascent(v_{t+1}, eta) ) + sigma z )

g: gradient of the objective at x_t. project: into the ball, then into [0, 1], each where there is one.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dualat.core.geometry import accumulate, ascent, project
from dualat.types import Norm, StepRule

Gradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images x (N, C, H, W) -> the objective's gradient at x, in their shape, and its values (N,); both detached."""


@dataclass(frozen=True)
class Move:
    """What is fixed over all steps of a loop, and what a compiled step is traced for."""

    rule: StepRule
    """How long a step is (geometry.ascent)."""
    norm: Norm
    """Of the ball."""
    ball: bool
    """Whether there is one."""
    clip: bool
    """Whether iterates stay in [0, 1]."""


def step(
    gradient: Gradient,
    move: Move,
    x: Tensor,
    centre: Tensor,
    size: float | Tensor,
    eps: float | Tensor,
    momentum: float | Tensor = 0.0,
    velocity: Tensor | None = None,
    noise: float | Tensor = 0.0,
    z: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """From x_t to x_{t+1}.

    Args:
        gradient, move: see above.
        x, centre: iterate and centre of the ball, (N, C, H, W).
        size: eta_t, length of the step, in pixel units.
        eps: radius of the ball, where there is one.
        momentum, velocity: coefficient and v_t; None: no momentum.
        noise, z: standard deviation, in pixel units, and a draw of N(0, I) in the shape of x; None: no noise.

    Returns:
        x_{t+1}, the objective's values (N,) at x_t, and v_{t+1}.
    """
    direction, value = gradient(x)
    if velocity is not None:
        direction = velocity = accumulate(velocity, direction, momentum)
    radius = eps if move.ball else None
    x = project(x + ascent(direction, move.rule, size), centre, move.norm, radius, move.clip)
    if z is not None:
        x = project(x + noise * z, centre, move.norm, radius, move.clip)
    return x, value, velocity
