"""The gradient loop's step (step.py) as one compiled graph: forward pass, input gradient, step, projection, noise.

A `GradientLoop` (loop.py) that compiles has one `CompiledSteps`; the result is the eager one up to rounding.

Three things keep it to one trace per objective and kind of move, whatever T, eps and the weights' values are:
- The graph runs on a view of the network that shares its storage, never requires grad and is always in eval mode. On the
  network itself each switch of a flag or mode would compile anew, and weight gradients would be computed for nothing.
- Labels, eps, step size and noise are inputs of the graph; T is a loop around it.
- Batches have one size, or few: larger inputs are cut into parts, smaller ones filled up with copies of their first image.

On CUDA the step is recorded as a CUDA graph and replayed: one launch in place of hundreds. Nothing in the loop waits for
the device: numbers reach it by fill kernels, not by copies from the host.
"""

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from dualat.core.classifier import dtype_of, take_logits
from dualat.core.geometry import ThreatModel
from dualat.core.objectives import Labelled, Objective
from dualat.core.step import Move, step


class Advance(Protocol):
    """One step of a loop whose model, objective and settings are given."""

    def __call__(
        self, x: Tensor, centre: Tensor, size: float, velocity: Tensor | None, z: Tensor | None, look: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """x_t, centre, eta_t, v_t and a draw of N(0, I) to x_{t+1}, the objective's values (N,) at x_t, and v_{t+1}.

        look: whether logits that are not finite are refused; compiled steps leave that to the check after the last.
        """
        ...


def shared_view(module: nn.Module) -> nn.Module:
    """A module with the same storage for all weights and buffers, in eval mode, none of which requires grad."""
    if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
        return Mean()
    view = copy.copy(module)
    # no gradient of weights is taken here, so nothing is saved by checkpoints, through which no compiler sees
    view.__class__ = getattr(module, "without_checkpoints", type(module))  # pyright: ignore[reportAttributeAccessIssue]
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


class CompiledSteps:
    """Compiled steps of one model, one per objective, kind of move and precision.

    A module whose images influence each other says so by `mixes_images`: its steps run compiled on batches of
    exactly one of the sizes. One whose view is not its `shared_view` makes it by a method of that name.

    Args:
        sizes: numbers of images of a compiled step; none: that of the first batch.
    """

    def __init__(self, model: nn.Module, sizes: tuple[int, ...] = ()):
        own = getattr(model, "shared_view", None)
        self.view: nn.Module = shared_view(model) if own is None else own()
        self.mixes = getattr(model, "mixes_images", False)
        self.sizes = sizes
        self.failed = False
        self.graphs: dict[tuple, Callable[..., tuple[Tensor, ...]]] = {}

    def fits(self, count: int, objective: Objective) -> bool:
        """Whether steps of so many images run compiled: with an objective of objectives.py, and for at least half of the
        smallest size. Where no size was given, the first batch's is taken from now on."""
        if self.failed or not isinstance(objective, Labelled):
            return False
        self.sizes = self.sizes or (count,)
        return count in self.sizes if self.mixes else 2 * count >= min(self.sizes)

    def size_for(self, count: int) -> int:
        """The size of the steps that so many images take: the least into which they fit, or else the largest."""
        return min((size for size in self.sizes if size >= count), default=max(self.sizes))

    def advance(
        self,
        objective: Objective,
        threat: ThreatModel,
        move: Move,
        momentum: float,
        noise: float,
        centre: Tensor,
    ) -> Advance | None:
        """The step on batches of any size; None where they do not fit, or, after a warning, where it cannot be compiled."""
        if not self.fits(len(centre), objective):
            return None
        assert isinstance(objective, Labelled)
        kind, images_ = centre.device.type, self.size_for(len(centre))
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        own, labels = dtype_of(self.view), () if objective.labels is None else (objective.labels,)
        traced = (objective.function, move, momentum > 0, noise > 0, dtype, own)
        key = (*traced, len(labels), centre.shape[1:], images_)
        new = key not in self.graphs
        if new:
            self.graphs[key] = compile_step(traced_step(self.view, *traced), kind)
        graph = self.graphs[key]
        number = partial(torch.full, (), dtype=centre.dtype, device=centre.device)
        numbers = (number(threat.eps if move.ball else 0.0), number(momentum), number(noise))

        def advance(
            x: Tensor, centre: Tensor, size: float, velocity: Tensor | None, z: Tensor | None, look: bool
        ) -> tuple[Tensor, Tensor, Tensor | None]:
            length, parts = number(size), []
            carried = [tensor for tensor in (velocity, z, *labels) if tensor is not None]
            for first in range(0, len(x), images_):
                part = slice(first, first + images_)
                images, middle, *more = (filled(tensor[part], images_) for tensor in (x, centre, *carried))
                # the same modes outside at every call: each is a condition under which the graph holds
                with torch.no_grad(), torch.autocast(kind, enabled=False):
                    found = graph(images, middle, length, *numbers, *more)
                parts.append([tensor[: len(x[part])] for tensor in found])
            joined = [p[0] if len(p) == 1 else torch.cat(p) for p in zip(*parts, strict=True)]
            return joined[0], joined[1], joined[2] if momentum else None

        return advance if not new or self.works(advance, centre, momentum > 0, noise > 0) else None

    def works(self, advance: Advance, centre: Tensor, has_momentum: bool, has_noise: bool) -> bool:
        """Compile and run the step; where that fails, say so and never try again."""
        calls = 3 if replays(centre.device.type) else 1  # a CUDA graph is warmed up, recorded, replayed
        try:
            for _ in range(calls):
                # copies: which inputs are one tensor is a condition of the graph too
                velocity = torch.zeros_like(centre) if has_momentum else None
                z = torch.zeros_like(centre, dtype=torch.float32) if has_noise else None
                advance(centre.clone(), centre, 0.1, velocity, z, False)
        except Exception as error:  # the compiler's own errors are of many kinds, and eager steps do the same
            self.failed = True
            warnings.warn(
                f"the gradient loop runs uncompiled, as its step cannot be compiled here: {first_line(error)}.",
                stacklevel=5,
            )
        return not self.failed


def filled(x: Tensor, count: int) -> Tensor:
    """The rows, up to `count` with copies of the first; channels last where x is images."""
    if len(x) < count:
        x = torch.cat([x, x[:1].expand(count - len(x), *x.shape[1:])])
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


def traced_step(
    view: nn.Module,
    objective: Callable[..., Tensor],
    move: Move,
    has_momentum: bool,
    has_noise: bool,
    dtype: torch.dtype,
    own: torch.dtype | None = None,
) -> Callable[..., tuple[Tensor, ...]]:
    """The function that is compiled: `step.step` on tensors alone. Inputs: x, centre, eta, eps, momentum, noise, then the
    velocity if there is momentum, then z if there is noise, then labels if the objective has them. Outputs: x_{t+1}, the
    objective's values, and the velocity if there is momentum.

    has_momentum, has_noise: whether there is any. dtype: of autocast; float32: none.
    own: type in which the view takes images; None: theirs.
    """

    def values(x: Tensor, labels: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            value = objective(take_logits(view(x if own is None else x.to(own))), *labels)
        return value.sum(), value

    def traced(
        x: Tensor,
        centre: Tensor,
        size: Tensor,
        eps: Tensor,
        momentum: Tensor,
        noise: Tensor,
        *more: Tensor,
    ) -> tuple[Tensor, ...]:
        velocity = more[0] if has_momentum else None
        z = more[int(has_momentum)] if has_noise else None
        labels = more[has_momentum + has_noise :]

        def gradient(x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.func.grad(values, has_aux=True)(x, labels)

        x, value, velocity = step(gradient, move, x, centre, size, eps, momentum, velocity, noise, z)
        return (x, value) if velocity is None else (x, value, velocity)

    # The compiler keeps its graphs, at most eight, with a function's code: every step gets code of its own.
    traced.__code__ = traced.__code__.replace()
    return traced


def first_line(error: BaseException) -> str:
    """What an error says, without the compiler's pages of advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
