"""The gradient loop's step as one compiled graph: forward pass, input gradient, normalised step, projection, clip.

`with compiled(model, batch_size):` makes `pgd` on that model run this graph; the result is the eager one up to rounding.

Three things keep it to one trace per objective and norm, whatever T, eps and the weights' values are:
- The graph runs on a view of the network that shares its storage, never requires grad and is always in eval mode. On the
  network itself each switch of a flag or mode would compile anew, and weight gradients would be computed for nothing.
- Labels, eps and step size are inputs of the graph; T is a loop around it.
- The batch has one size: larger inputs are cut into parts, smaller ones filled up with copies of their first image.

On CUDA the step is recorded as a CUDA graph and replayed: one launch in place of hundreds. Nothing in the loop waits for
the device: numbers reach it by fill kernels, not by copies from the host.
"""

import copy
import math
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from dualat.core.classifier import dtype_of, take_logits
from dualat.core.geometry import Norm, ThreatModel, accumulate, ascent, into_ball
from dualat.core.objectives import Labelled, Objective

Advance = Callable[[Tensor, Tensor, float, Tensor | None], tuple[Tensor, Tensor, Tensor | None]]
"""advance(x_t, centre, step size, velocity) -> x_{t+1}, the objective's value (N,) at x_t, and the velocity"""

_enabled: "weakref.WeakKeyDictionary[nn.Module, CompiledLoop]" = weakref.WeakKeyDictionary()


@contextmanager
def compiled(model: nn.Module, batch_size: int) -> Iterator["CompiledLoop"]:
    """Inside, `pgd` on this model runs compiled steps on batches of `batch_size` images.

    Where no compiler is to be had, or a network cannot be traced, one warning says so and eager steps go on; what is
    yielded tells it by `failed`.
    """
    _enabled[model] = loop = CompiledLoop(model, batch_size)
    try:
        yield loop
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
    if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
        return Mean()
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


class Mean(nn.Module):
    """Average over height and width, as PyTorch's pooling has it, without that one's `as_strided_`: its backward pass in
    channels-last networks (ConvNeXt) is what PyTorch 2.11 compiles wrongly."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(-2, -1), keepdim=True)


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
        heavy, own = momentum > 0, dtype_of(self.view)
        key = (
            objective.function,
            objective.labels is None,
            threat.norm,
            ball,
            heavy,
            dtype,
            own,
            centre.shape[1:],
        )
        new = key not in self.steps
        if new:
            function = one_step(self.view, objective.function, threat.norm, ball, heavy, dtype, own)
            self.steps[key] = compile_step(function, kind)
        step = self.steps[key]
        number = partial(torch.full, (), dtype=centre.dtype, device=centre.device)
        eps, decay = number(threat.eps if ball else 0.0), number(momentum)
        labels = () if objective.labels is None else (objective.labels,)

        def advance(
            x: Tensor, centre: Tensor, size: float, velocity: Tensor | None
        ) -> tuple[Tensor, Tensor, Tensor | None]:
            length = number(size)
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
        """Compile and run the step; where that fails, say so and never try again."""
        calls = 3 if replays(centre.device.type) else 1  # a CUDA graph is warmed up, recorded, replayed
        try:
            for _ in range(calls):
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


def replays(kind: str) -> bool:
    """Whether steps on this kind of device are recorded as CUDA graphs."""
    return kind == "cuda"


def compile_step(function: Callable[..., tuple[Tensor, ...]], kind: str) -> Callable[..., tuple[Tensor, ...]]:
    """The step as one compiled graph for this kind of device."""
    if not replays(kind):
        return torch.compile(function, dynamic=False, fullgraph=True)
    graph = torch.compile(function, dynamic=False, fullgraph=True, mode="reduce-overhead")

    def replay(*inputs: Tensor) -> tuple[Tensor, ...]:
        torch.compiler.cudagraph_mark_step_begin()
        # a replay writes where the one before it wrote: what lives on is copied
        return tuple(tensor.clone() for tensor in graph(*inputs))

    return replay


def one_step(
    view: nn.Module,
    objective: Callable[..., Tensor],
    norm: Norm,
    ball: bool,
    heavy: bool,
    dtype: torch.dtype,
    own: torch.dtype | None = None,
) -> Callable[..., tuple[Tensor, ...]]:
    """The function that is compiled: x_{t+1} = clip_[0,1]( project( x_t + step( grad_x objective(f(x_t)) ) ) ), the
    objective's values, and the velocity if there is momentum. Inputs: x, centre, eta, eps, momentum, then the velocity
    if there is momentum, then labels if the objective has them.

    ball: whether there is one to project into. heavy: whether there is momentum. dtype: of autocast; float32: none.
    own: type in which the view takes images; None: theirs.
    """

    def values(x: Tensor, labels: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            value = objective(take_logits(view(x if own is None else x.to(own))), *labels)
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
