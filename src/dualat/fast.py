"""The gradient loop's step as one compiled graph: forward pass, input gradient, normalised step, projection, clip.

`with compiled(model, batch_size):` makes `pgd` on that model run this graph; the result is the eager one up to rounding.

Three things keep it to one trace per objective and norm, whatever T, eps and the weights' values are:
- The graph runs on a view of the network that shares its storage, never requires grad and is always in eval mode. On the
  network itself each switch of a flag or mode would compile anew, and weight gradients would be computed for nothing.
- Labels, eps and step size are inputs of the graph; T is a loop around it.
- The batch has one size: larger inputs are cut into parts, smaller ones filled up with copies of their first image.
"""

import copy
import math
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dualat.geometry import Norm, ThreatModel, accumulate, ascent, into_ball
from dualat.objectives import Labelled, Objective

Advance = Callable[[Tensor, Tensor, float, Tensor | None], tuple[Tensor, Tensor, Tensor | None]]
"""advance(x_t, centre, step size, velocity) -> x_{t+1}, the objective's value (N,) at x_t, and the velocity"""

_enabled: "weakref.WeakKeyDictionary[nn.Module, CompiledLoop]" = weakref.WeakKeyDictionary()


@contextmanager
def compiled(model: nn.Module, batch_size: int) -> Iterator[None]:
    """Inside, `pgd` on this model runs compiled steps on batches of `batch_size` images.

    Where no compiler is to be had, or a network cannot be traced, one warning says so and eager steps go on.
    """
    _enabled[model] = CompiledLoop(model, batch_size)
    try:
        yield
    finally:
        _enabled.pop(model, None)


def compiled_advance(
    model: nn.Module, objective: Objective, threat: ThreatModel, momentum: float, centre: Tensor
) -> Advance | None:
    """The compiled step for this loop; None where the model has none, or the objective is none of objectives.py."""
    loop = _enabled.get(model)
    if (
        loop is None
        or loop.failed
        or not isinstance(objective, Labelled)
        or 2 * len(centre) < loop.batch_size
    ):
        return None
    return loop.advance(objective, threat, momentum, centre)


def shared_view(module: nn.Module) -> nn.Module:
    """A module with the same storage for all weights and buffers, in eval mode, none of which requires grad."""
    view = copy.copy(module)
    view.__dict__["_parameters"] = {
        name: None if p is None else nn.Parameter(p.detach(), requires_grad=False)
        for name, p in module._parameters.items()
    }
    view.__dict__["_buffers"] = dict(module._buffers)
    view.__dict__["_modules"] = {
        name: None if child is None else shared_view(child) for name, child in module._modules.items()
    }
    view.training = False
    return view


class CompiledLoop:
    """Compiled steps of one model, one per objective, norm and precision."""

    def __init__(self, model: nn.Module, batch_size: int):
        self.view = shared_view(model)
        self.batch_size = batch_size
        self.failed = False
        self.steps: dict[tuple, Callable[..., tuple[Tensor, ...]]] = {}

    def advance(
        self, objective: Labelled, threat: ThreatModel, momentum: float, centre: Tensor
    ) -> Advance | None:
        """The step on batches of any size; None, after a warning, where it cannot be compiled."""
        kind, ball = centre.device.type, math.isfinite(threat.eps)
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        heavy = momentum > 0
        key = (
            objective.function,
            objective.labels is None,
            threat.norm,
            ball,
            heavy,
            dtype,
            centre.shape[1:],
        )
        new = key not in self.steps
        if new:
            function = one_step(self.view, objective.function, threat.norm, ball, heavy, dtype)
            self.steps[key] = torch.compile(function, dynamic=False, fullgraph=True)
        step = self.steps[key]
        eps = torch.tensor(threat.eps if ball else 0.0, device=centre.device)
        decay = torch.tensor(momentum, device=centre.device)
        labels = () if objective.labels is None else (objective.labels,)

        def advance(
            x: Tensor, centre: Tensor, size: float, velocity: Tensor | None
        ) -> tuple[Tensor, Tensor, Tensor | None]:
            length = torch.full((), size, device=x.device)
            carried = () if velocity is None else (velocity,)
            parts = []
            for first in range(0, len(x), self.batch_size):
                part = slice(first, first + self.batch_size)
                images = (self.filled(tensor[part]) for tensor in (x, centre))
                more = (self.filled(tensor[part]) for tensor in (*carried, *labels))
                # the same modes outside at every call: each is a condition under which the graph holds
                with torch.no_grad(), torch.autocast(kind, enabled=False):
                    found = step(*images, length, eps, decay, *more)
                parts.append([tensor[: len(x[part])] for tensor in found])
            joined = [p[0] if len(p) == 1 else torch.cat(p) for p in zip(*parts, strict=True)]
            return joined[0], joined[1], joined[2] if heavy else None

        return advance if not new or self.works(advance, centre, heavy) else None

    def works(self, advance: Advance, centre: Tensor, heavy: bool) -> bool:
        """Compile and run the step once; where that fails, say so and never try again."""
        try:
            # copies: which inputs are one tensor is a condition of the graph too
            advance(centre.clone(), centre, 0.1, torch.zeros_like(centre) if heavy else None)
        except Exception as error:  # the compiler's own errors are of many kinds, and eager steps do the same
            self.failed = True
            warnings.warn(
                f"the gradient loop runs uncompiled, as its step cannot be compiled here: {first_line(error)}.",
                stacklevel=4,
            )
        return not self.failed

    def filled(self, x: Tensor) -> Tensor:
        """The first `batch_size` rows, channels last where x is images; missing rows are copies of the first."""
        if len(x) < self.batch_size:
            x = torch.cat([x, x[:1].expand(self.batch_size - len(x), *x.shape[1:])])
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()


def one_step(
    view: nn.Module,
    objective: Callable[..., Tensor],
    norm: Norm,
    ball: bool,
    heavy: bool,
    dtype: torch.dtype,
) -> Callable[..., tuple[Tensor, ...]]:
    """The function that is compiled: x_{t+1} = clip_[0,1]( project( x_t + step( grad_x objective(f(x_t)) ) ) ), the
    objective's values, and the velocity if there is momentum. Inputs: x, centre, eta, eps, momentum, then the velocity
    if there is momentum, then labels if the objective has them.

    ball: whether there is one to project into. heavy: whether there is momentum.
    """

    def values(x: Tensor, labels: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            value = objective(view(x), *labels)
        return value.sum(), value

    def step(
        x: Tensor, centre: Tensor, size: Tensor, eps: Tensor, momentum: Tensor, *more: Tensor
    ) -> tuple[Tensor, ...]:
        direction, value = torch.func.grad(values, has_aux=True)(x, more[1:] if heavy else more)
        if heavy:
            direction = accumulate(more[0], direction, momentum)
        x = x + ascent(direction, norm, size)
        x = (into_ball(x, centre, norm, eps) if ball else x).clamp(0, 1)
        return (x, value, direction) if heavy else (x, value)

    # The compiler keeps its graphs, at most eight, with a function's code: every step gets code of its own.
    step.__code__ = step.__code__.replace()
    return step


def first_line(error: BaseException) -> str:
    """What an error says, without the compiler's pages of advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
