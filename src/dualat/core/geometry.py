"""Geometry of the gradient loop, per image: step along the gradient, project into the threat model, start inside it.

Everything here treats each image of a batch by itself: a norm runs over one image's values, never over the batch.
Of images and gradients in half precision all arithmetic is float32's, and so are the results.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dualat.types import Norm, StepRule

TINY = 1e-10  # keeps g / ||g|| finite where the gradient vanishes (DAT's code uses the same constant)
LIMIT = 2.0
"""Largest derivative that `clipped` lets through, per pixel unit of [0, 1]: 1 per unit of [-1, 1], as JEM++ has it."""


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1, ...) so that it broadcasts over images `like`."""
    return values.view(-1, *[1] * (like.dim() - 1))


def wide(x: Tensor) -> Tensor:
    """float32 for half precision, where TINY is 0 and norms overflow; others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def image_norm(x: Tensor, norm: Norm) -> Tensor:
    """||x_i||_p of each image: (N, ...) -> (N,), float32 at least."""
    x = wide(x)
    return torch.linalg.vector_norm(x.flatten(1), ord=2 if norm == "L2" else math.inf, dim=1)


def ascent(gradient: Tensor, rule: StepRule, size: float | Tensor) -> Tensor:
    """The step of length `size` in a norm along which a linear function rises most; or size * g, or that clipped:

    L2: size * g / ||g||_2;   Linf: size * sign(g);   gradient: size * g;   clipped: size * clip(g, +-LIMIT)
    """
    gradient = wide(gradient)
    if rule == "Linf":
        return size * gradient.sign()
    if rule == "gradient":
        return size * gradient
    if rule == "clipped":
        return size * gradient.clamp(-LIMIT, LIMIT)
    return gradient * per_image(size / (image_norm(gradient, "L2") + TINY), gradient)


def accumulate(velocity: Tensor, gradient: Tensor, momentum: float | Tensor) -> Tensor:
    """v <- momentum * v + g / ||g||_1, per image: directions of earlier steps count on. (RATIO, Augustin et al., 2020.)"""
    gradient = wide(gradient)
    length = gradient.flatten(1).abs().sum(dim=1)
    return momentum * velocity + gradient * per_image(1 / (length + TINY), gradient)


def into_ball(x: Tensor, centre: Tensor, norm: Norm, eps: float | Tensor) -> Tensor:
    """The point nearest to x whose distance from `centre` is eps at most."""
    x, centre = wide(x), wide(centre)
    offset = x - centre
    if norm == "Linf":
        # a plain number stays one: as a tensor it would have to be copied to the device
        tensor = isinstance(eps, Tensor)
        offset = offset.maximum(-eps).minimum(eps) if tensor else offset.clamp(-eps, eps)
    else:
        length = image_norm(offset, "L2").clamp_min(TINY)
        offset = offset * per_image((eps / length).clamp(max=1), offset)
    return centre + offset


def project(x: Tensor, centre: Tensor, norm: Norm, eps: float | Tensor | None, clip: bool = True) -> Tensor:
    """Nearest point of the ball around `centre` (None: there is none), then, with `clip`, of the box [0, 1]."""
    if eps is not None:
        x = into_ball(x, centre, norm, eps)
    return x.clamp(0, 1) if clip else x


@dataclass(frozen=True)
class ThreatModel:
    """The set {x' : ||x' - x||_p <= eps} around an image, in pixel units of [0, 1]. eps = inf: no ball.

    Raises ValueError for another norm, or a negative or undefined eps.
    """

    norm: Norm = "L2"
    eps: float = math.inf

    def __post_init__(self) -> None:
        if self.norm not in ("L2", "Linf"):
            raise ValueError(f"norm is {self.norm!r}, but must be 'L2' or 'Linf'.")
        if not self.eps >= 0:
            raise ValueError(f"eps is {self.eps}, but must be at least 0 (inf for no ball).")

    def step(self, gradient: Tensor, size: float) -> Tensor:
        """Steepest ascent of length `size` in this norm: size * g / ||g||_2 (L2), size * sign(g) (Linf)."""
        return ascent(gradient, self.norm, size)

    def project(self, x: Tensor, centre: Tensor, clip: bool = True) -> Tensor:
        """Nearest point of the ball around `centre`, then, with `clip`, of the box [0, 1], which never leaves the ball."""
        return project(x, centre, self.norm, self.eps if math.isfinite(self.eps) else None, clip)

    def random_start(self, centre: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A point drawn uniformly from the ball around each image, clipped to [0, 1]. Needs a finite eps.

        Random numbers are float32, drawn where the generator lives, so that its seed decides on every device.
        """
        if not math.isfinite(self.eps):
            raise ValueError(
                "a random start needs a finite eps: give the threat model one, or start without it."
            )
        centre = wide(centre)
        where = centre.device if generator is None else generator.device
        drawn: dict[str, Any] = {"generator": generator, "device": where, "dtype": torch.float32}
        if self.norm == "Linf":
            noise = torch.rand(centre.shape, **drawn).to(centre.device) * 2 - 1
            return self.project(centre + self.eps * noise, centre)
        direction = torch.randn(centre.shape, **drawn).to(centre.device)
        radius = torch.rand(len(centre), **drawn).to(centre.device) ** (1 / math.prod(centre.shape[1:]))
        return self.project(centre + self.step(direction, self.eps) * per_image(radius, centre), centre)
