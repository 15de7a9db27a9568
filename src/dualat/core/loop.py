"""The one gradient loop. Attacks, contrastive samples, sampling and counterfactuals are all this function.

    x_0 = start,   x_{t+1} = clip_[0,1]( project( x_t + step( grad_x objective(f(x_t)), eta_t ) ) )

Source: DAT (arXiv 2510.13872), eq. 8 (contrastive samples, no ball); Madry et al. 2018 (attacks, ball). Langevin
dynamics (Welling and Teh, 2011; JEM) is the rule "gradient" with noise: x_{t+1} = x_t + eta * g + sigma * z, z ~ N(0, I).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from dualat.core.classifier import NotFinite, check_images, check_logits, logits_of, loop_dtype
from dualat.core.compiled import compiled_advance
from dualat.core.geometry import Rule, ThreatModel, accumulate, ascent, per_image
from dualat.core.objectives import Objective

Schedule = Literal["constant", "linear", "cosine", "exponential"]


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
    schedule: Schedule = "constant",
    momentum: float = 0.0,
    rule: Rule | None = None,
    noise: float = 0.0,
    clip: bool = True,
    random_start: bool = False,
    keep: str = "last",
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
    generator: torch.Generator | None = None,
    checked: bool = True,
) -> Tensor:
    """Climb `objective` from images x by normalised gradient steps, inside a threat model and the box [0, 1].

    Args:
        model: any module from images (N, C, H, W) to logits (N, K). Its mode, requires_grad flags and gradients
            are left as found. It gets images in its own precision.
        x: images in [0, 1], the start of the loop and the centre of the ball; without `clip` any that are finite.
        objective: logits (N, K) -> (N,), raised for each image by itself (see objectives.py).
        threat: ball around x and norm of the steps; None: L2 steps and no ball.
        steps: number of gradient steps, 0 or more.
        step_size: length of a step in the threat model's norm, in pixel units of [0, 1].
        schedule: how eta_t goes over the steps; step_size is its mean (see `step_sizes`).
        momentum: in [0, 1): each step goes along v <- momentum * v + g / ||g||_1 in place of g.
        rule: how long a step is (see `geometry.ascent`); None: step_size in the threat model's norm.
        noise: deviation of the normal noise added after each step, in pixel units.
        clip: keep iterates in [0, 1]; without it they go where the steps lead.
        random_start: begin at a uniform point of the ball instead of at x.
        keep: "last" iterate, or the "best" one of each image by the objective (start included).
        callback: called as callback(t, x_t, value_t) for t = 0 .. steps with images and objective values (N,).
        generator: source of the random start and of the noise.
        checked: False, as in training, looks at no number, so that nothing waits for the device: images outside [0, 1]
            are clipped, and NaN stays NaN.

    Returns:
        Images (N, C, H, W), detached; in [0, 1] with `clip`. float32, in which all arithmetic is, or float64 where the
        images or the model are.

    Raises:
        ValueError: settings that make no sense, images outside [0, 1], or logits or gradients that are not finite, as
            seen in the first step and after the last.
    """
    check(steps, step_size, momentum, noise, keep)
    threat = threat or ThreatModel()
    centre = (check_images(x, boxed=clip) if checked else x).detach().to(loop_dtype(model, x))
    first, last = (watched(objective), watched(objective)) if checked else (objective, objective)
    x = threat.random_start(centre, generator) if random_start else threat.project(centre, centre, clip)
    judged = keep == "best" or callback is not None  # then the last iterate needs a value too
    best = Best() if keep == "best" else None
    sizes = step_sizes(schedule, steps, step_size)
    velocity = torch.zeros_like(x) if momentum else None
    plain = rule in (None, threat.norm) and clip
    advance = compiled_advance(model, objective, threat, momentum, centre) if plain else None
    with frozen(model), torch.enable_grad():
        advance = advance or partial(eager_advance, model, first, threat, rule or threat.norm, momentum, clip)
        for t in range(steps + 1):
            if checked and t == steps:
                check_walked(x, steps)
            if t < steps:
                following, value, velocity = advance(x, centre, sizes[t], velocity)
            elif judged:
                with torch.no_grad():
                    following, value = x, last(logits_of(model, x))
            else:
                break
            if judged:
                if callback is not None:
                    callback(t, x, value)
                if best is not None:
                    best.see(x, value)
            x = following
            if noise and t < steps:
                x = threat.project(x + noise * normal(x, generator), centre, clip)
    return x if best is None else best.images


def check(steps: int, step_size: float, momentum: float, noise: float, keep: str) -> None:
    """ValueError where the loop's numbers make no sense."""
    if steps < 0 or not step_size > 0:
        raise ValueError(
            f"steps must be 0 or more and step_size above 0, but they are {steps} and {step_size}."
        )
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}, but must be 0 (none) or more, and below 1.")
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise is {noise}, but is a deviation: 0 (none) or more, and finite.")
    if keep not in ("last", "best"):
        raise ValueError(f"keep is {keep!r}, but must be 'last' or 'best'.")


def check_walked(x: Tensor, steps: int) -> None:
    """NotFinite where the steps have led to NaN, from which no step leads back, or to infinity."""
    if not x.is_meta and not bool(x.isfinite().all()):
        raise NotFinite(
            f"the model's gradients became infinite or undefined within {steps} steps, so that the images are not finite: "
            "take smaller steps, another checkpoint, or a model in float32."
        )


def watched(objective: Objective) -> Objective:
    """The objective, which at its first call refuses logits that are not finite: a look at each would wait for the device."""
    looked = False

    def watching(logits: Tensor) -> Tensor:
        nonlocal looked
        if not looked:
            check_logits(logits)
            looked = True
        return objective(logits)

    return watching


def normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """z ~ N(0, I), float32, shaped like images; drawn where the generator lives, so that its seed decides on every device."""
    where = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=where, dtype=torch.float32).to(like.device)


def step_sizes(schedule: Schedule, steps: int, mean: float) -> list[float]:
    """eta_t for t = 0 .. T-1, of the given mean, so that the path T * eta is as long under every schedule.

    constant: eta_t = eta;   linear: eta_t = 2 eta (1 - u);   cosine: eta_t = eta (1 + cos(pi u));   u = (t + 1/2) / T
    exponential: eta_t ~ 10^(-4 u), squares of noise levels that fall to a hundredth (DDIM; methods/egc.py)
    """
    places = [(t + 0.5) / steps for t in range(steps)]
    if schedule == "constant":
        return [mean] * steps
    if schedule == "linear":
        return [2 * mean * (1 - u) for u in places]
    if schedule == "cosine":
        return [mean * (1 + math.cos(math.pi * u)) for u in places]
    if schedule == "exponential":
        sizes = [10 ** (-4 * u) for u in places]
        return [mean * steps * size / sum(sizes) for size in sizes]
    raise ValueError(f"schedule is {schedule!r}, but must be constant, linear, cosine or exponential.")


def eager_advance(
    model: nn.Module,
    objective: Objective,
    threat: ThreatModel,
    rule: Rule,
    momentum: float,
    clip: bool,
    x: Tensor,
    centre: Tensor,
    size: float,
    velocity: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One step of the loop: x_{t+1}, the objective's value (N,) at x_t, and the velocity where there is momentum."""
    x = x.detach().requires_grad_(True)
    value = objective(logits_of(model, x))
    (gradient,) = torch.autograd.grad(value.sum(), x)
    if velocity is not None:
        gradient = velocity = accumulate(velocity, gradient, momentum)
    moved = threat.project(x.detach() + ascent(gradient, rule, size), centre, clip)
    return moved, value.detach(), velocity


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
