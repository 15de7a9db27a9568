"""The one gradient loop. Attacks, contrastive samples, sampling and counterfactuals are all this function.

    x_0 = start,   x_{t+1} = clip_[0,1]( project( x_t + step( grad_x objective(f(x_t)) ) ) )

Source: DAT (arXiv 2510.13872), eq. 8 (contrastive samples, no ball); Madry et al. 2018 (attacks, ball).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from dualat.fast import compiled_advance
from dualat.geometry import ThreatModel, per_image
from dualat.objectives import Objective


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no weight gradients inside; afterwards each module's mode and each flag is as it was found."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def pgd(
    model: nn.Module,
    x: Tensor,
    objective: Objective,
    threat: ThreatModel | None = None,
    *,
    steps: int,
    step_size: float,
    random_start: bool = False,
    keep: str = "last",
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Climb `objective` from images x by normalised gradient steps, inside a threat model and the box [0, 1].

    Args:
        model: any module from images (N, C, H, W) to logits (N, K). Its mode, requires_grad flags and gradients
            are left as found.
        x: images in [0, 1], the start of the loop and the centre of the ball.
        objective: logits (N, K) -> (N,), raised for each image by itself (see objectives.py).
        threat: ball around x and norm of the steps; None: L2 steps and no ball.
        steps: number of gradient steps, 0 or more.
        step_size: length of a step in the threat model's norm, in pixel units of [0, 1].
        random_start: begin at a uniform point of the ball instead of at x.
        keep: "last" iterate, or the "best" one of each image by the objective (start included).
        callback: called as callback(t, x_t, value_t) for t = 0 .. steps with images and objective values (N,).
        generator: source of the random start.

    Returns:
        Images (N, C, H, W) in [0, 1], detached.
    """
    if steps < 0 or not step_size > 0:
        raise ValueError(
            f"steps must be 0 or more and step_size above 0, but they are {steps} and {step_size}."
        )
    if keep not in ("last", "best"):
        raise ValueError(f"keep is {keep!r}, but must be 'last' or 'best'.")
    threat = threat or ThreatModel()
    centre = x.detach()
    x = threat.random_start(centre, generator) if random_start else centre.clamp(0, 1)
    judged = keep == "best" or callback is not None  # then the last iterate needs a value too
    best = Best() if keep == "best" else None
    advance = compiled_advance(model, objective, threat, step_size, centre)
    with frozen(model), torch.enable_grad():
        advance = advance or partial(eager_advance, model, objective, threat, step_size)
        for t in range(steps + 1):
            if t < steps:
                following, value = advance(x, centre)
            elif judged:
                with torch.no_grad():
                    following, value = x, objective(model(x))
            else:
                break
            if judged:
                if callback is not None:
                    callback(t, x, value)
                if best is not None:
                    best.see(x, value)
            x = following
    return x if best is None else best.images


def eager_advance(
    model: nn.Module, objective: Objective, threat: ThreatModel, step_size: float, x: Tensor, centre: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of the loop: x_{t+1}, and the objective's value (N,) at x_t."""
    x = x.detach().requires_grad_(True)
    value = objective(model(x))
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return threat.project(x.detach() + threat.step(gradient, step_size), centre), value.detach()


class Best:
    """Of each image, the iterate with the largest value so far."""

    images: Tensor
    value: Tensor | None = None

    def see(self, x: Tensor, value: Tensor) -> None:
        if self.value is None:
            self.images, self.value = x, value
            return
        better = value > self.value
        self.images = torch.where(per_image(better, x), x, self.images)
        self.value = torch.where(better, value, self.value)
