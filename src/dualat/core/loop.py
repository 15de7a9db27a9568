"""The one gradient loop. Attacks, contrastive samples, sampling and counterfactuals are all this function.

    x_0 = start,   x_{t+1} = clip_[0,1]( project( x_t + ascent( grad_x objective(f(x_t)), eta_t ) ) )

Source: DAT (arXiv 2510.13872), eq. 8 (contrastive samples, no ball); Madry et al. 2018 (attacks, ball). Langevin
dynamics (Welling and Teh, 2011; JEM) is the rule "gradient" with noise: x_{t+1} = x_t + eta * g + sigma * z, z ~ N(0, I).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from dualat.core.classifier import NotFinite, check_images, check_logits, logits_of, loop_dtype
from dualat.core.compiled import Advance, CompiledSteps
from dualat.core.geometry import ThreatModel, per_image
from dualat.core.objectives import Objective
from dualat.core.step import Move, step
from dualat.types import Schedule, StepRule


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
    model: "ModelOrLoop",
    x: Tensor,
    objective: Objective,
    threat: ThreatModel | None = None,
    *,
    steps: int,
    step_size: float,
    schedule: Schedule = "constant",
    momentum: float = 0.0,
    rule: StepRule | None = None,
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
        model: any module from images (N, C, H, W) to logits (N, K), on which steps run eagerly, or a `GradientLoop` on
            one, which says whether they run compiled. Its mode, requires_grad flags and gradients are left as found. It
            gets images in its own precision.
        x: images in [0, 1], the start of the loop and the centre of the ball; without `clip` any that are finite.
        objective: logits (N, K) -> (N,), raised for each image by itself (see objectives.py).
        threat: ball around x and norm of the steps; None: L2 steps and no ball.
        steps: number of gradient steps, 0 or more.
        step_size: length of a step in the threat model's norm, in pixel units of [0, 1].
        schedule: how eta_t goes over the steps; step_size is its mean (see `step_sizes`).
        momentum: in [0, 1): each step goes along v <- momentum * v + g / ||g||_1 in place of g.
        rule: how long a step is (see `geometry.ascent`); None: step_size in the threat model's norm.
        noise: standard deviation of the normal noise added after each step, in pixel units.
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
    loop, threat = loop_of(model), threat or ThreatModel()
    model = loop.model
    centre = (check_images(x, boxed=clip) if checked else x).detach().to(loop_dtype(model, x))
    x = threat.random_start(centre, generator) if random_start else threat.project(centre, centre, clip)
    judged = keep == "best" or callback is not None  # then the last iterate needs a value too
    best = Best() if keep == "best" else None
    sizes = step_sizes(schedule, steps, step_size)
    velocity = torch.zeros_like(x) if momentum else None
    move = Move(rule or threat.norm, threat.norm, math.isfinite(threat.eps), clip)
    advance = loop.advance(objective, threat, move, momentum, noise, centre)
    with frozen(model), torch.enable_grad():
        for t in range(steps + 1):
            if checked and t == steps:
                check_walked(x, steps)
            if t < steps:
                z = normal(x, generator) if noise else None
                following, value, velocity = advance(x, centre, sizes[t], velocity, z, checked and not t)
            elif judged:
                with torch.no_grad():
                    following, value = x, objective(logits_at(model, x, checked))
            else:
                break
            if judged:
                if callback is not None:
                    callback(t, x, value)
                if best is not None:
                    best.see(x, value)
            x = following
    return x if best is None else best.images


class GradientLoop:
    """The gradient loop on one model, and whether its steps run compiled: what is handed to whatever climbs, as a method.

    Args:
        model: module from images to logits; its weights may change between calls, in place.
        compile: run steps compiled (compiled.py): equal to eager ones up to rounding. Those of an objective that is
            none of objectives.py, and of less than half a batch, run eagerly nonetheless.
        batch_size: number of images of a compiled step, or several such numbers, where batches of several sizes climb;
            None: that of the first call.
    """

    climb = pgd
    """loop.climb(x, objective, threat, steps=..., step_size=...): all that `pgd` takes, but for the model."""

    def __init__(
        self, model: nn.Module, compile: bool = False, batch_size: int | tuple[int, ...] | None = None
    ):
        self.model = model
        sizes = (batch_size,) if isinstance(batch_size, int) else batch_size or ()
        self.steps = CompiledSteps(model, sizes) if compile else None
        self.batch_size = batch_size
        self._parts: dict[str, GradientLoop] = {}

    @property
    def compiled(self) -> bool:
        """Whether steps run compiled. Where no compiler is to be had, or a network cannot be traced, one warning says so
        at the first step, and from then on this is False and steps are eager."""
        return self.steps is not None and not self.steps.failed

    def part(self, name: str, make: Callable[[nn.Module], nn.Module]) -> "GradientLoop":
        """The loop on a module made of this model's own weights, as its first layer, compiled if this one is; made and
        compiled once under its name."""
        if name not in self._parts:
            self._parts[name] = GradientLoop(make(self.model), self.compiled, self.batch_size)
        return self._parts[name]

    def advance(
        self,
        objective: Objective,
        threat: ThreatModel,
        move: Move,
        momentum: float,
        noise: float,
        centre: Tensor,
    ) -> Advance:
        """One step with these settings on images like `centre`: compiled, or the eager one."""
        if self.steps is not None:
            compiled = self.steps.advance(objective, threat, move, momentum, noise, centre)
            if compiled is not None:
                return compiled

        def eager(
            x: Tensor, centre: Tensor, size: float, velocity: Tensor | None, z: Tensor | None, look: bool
        ) -> tuple[Tensor, Tensor, Tensor | None]:
            gradient = partial(gradient_at, self.model, objective, look=look)
            return step(gradient, move, x, centre, size, threat.eps, momentum, velocity, noise, z)

        return eager


ModelOrLoop: TypeAlias = nn.Module | GradientLoop
"""What a gradient loop runs on: a model, eagerly, or a loop on one."""


def loop_of(model: ModelOrLoop) -> GradientLoop:
    """The loop itself, or the eager one on a model."""
    return model if isinstance(model, GradientLoop) else GradientLoop(model)


def logits_at(model: nn.Module, x: Tensor, look: bool) -> Tensor:
    """Logits (N, K) of images. look: refuse those that are not finite, which waits for the device."""
    logits = logits_of(model, x)
    return check_logits(logits) if look else logits


def gradient_at(
    model: nn.Module, objective: Objective, x: Tensor, look: bool = False
) -> tuple[Tensor, Tensor]:
    """The objective's gradient at images x, and its values (N,) there."""
    x = x.detach().requires_grad_(True)
    value = objective(logits_at(model, x, look))
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return gradient, value.detach()


def check(steps: int, step_size: float, momentum: float, noise: float, keep: str) -> None:
    """ValueError where the loop's numbers make no sense."""
    if steps < 0 or not step_size > 0:
        raise ValueError(
            f"steps must be 0 or more and step_size above 0, but they are {steps} and {step_size}."
        )
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}, but must be 0 (none) or more, and below 1.")
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise is {noise}, but is a standard deviation: 0 (none) or more, and finite.")
    if keep not in ("last", "best"):
        raise ValueError(f"keep is {keep!r}, but must be 'last' or 'best'.")


def check_walked(x: Tensor, steps: int) -> None:
    """NotFinite where the steps have led to NaN, from which no step leads back, or to infinity."""
    if not x.is_meta and not bool(x.isfinite().all()):
        raise NotFinite(
            f"the model's gradients became infinite or undefined within {steps} steps, so that the images are not finite: "
            "take smaller steps, another checkpoint, or a model in float32."
        )


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
