"""Activation checkpointing: a block keeps its input alone, and its activations are computed again in the backward pass.

Memory falls from all activations to those of one block and the blocks' inputs, for about a third more computation.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

NAMES = ("Block", "Bottleneck", "BasicBlock", "ConvNeXtBlock")
"""Class names of the blocks of our networks and of timm's most used ones."""


def checkpoint_blocks(network: nn.Module) -> None:
    """Make the blocks of a network checkpoint themselves, in place; weights and names stay.

    Raises ValueError where it has no blocks that are known here.
    """
    found = list(blocks(network))
    if not found:
        raise ValueError(
            f"checkpoint_activations knows no blocks in {type(network).__name__}: set it to false for this network."
        )
    for block in found:
        block.__class__ = checkpointed(type(block))


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Outermost blocks of a network."""
    for child in module.children():
        if type(child).__name__ in NAMES:
            yield child
        else:
            yield from blocks(child)


@cache
def checkpointed(kind: type[nn.Module]) -> type[nn.Module]:
    """The same class of block, checkpointed wherever gradients are recorded."""

    def forward(self: nn.Module, *args: Any) -> Any:
        if not torch.is_grad_enabled():
            return kind.forward(self, *args)
        return checkpoint(
            kind.forward,
            self,
            *args,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), FirstPass(self)),
        )

    own = {"forward": forward, "without_checkpoints": kind}  # the compiled loop looks for it
    return type(f"Checkpointed{kind.__name__}", (kind,), own)


class FirstPass:
    """BatchNorm and kernels of attention as the first pass found them, for the passes that compute its activations again: the same modes, whatever they
    are by then, and running statistics that these passes move in copies alone. Entered once per pass: a loss that is
    differentiated twice has several."""

    def __init__(self, block: nn.Module):
        self.norms = [m for m in block.modules() if isinstance(m, _BatchNorm)]
        self.modes = [(norm.training, norm.track_running_stats) for norm in self.norms]
        self.unfused = not torch.backends.cuda.flash_sdp_enabled()  # a switch of CPUs too, whatever its name
        self.attention: AbstractContextManager[None] = nullcontext()
        self.found: list[tuple[tuple[bool, bool], dict[str, Tensor | None]]] = []

    def __enter__(self) -> None:
        self.attention = sdpa_kernel(SDPBackend.MATH) if self.unfused else nullcontext()
        self.attention.__enter__()
        self.found = [((n.training, n.track_running_stats), dict(n._buffers)) for n in self.norms]
        for norm, (training, tracked) in zip(self.norms, self.modes, strict=True):
            norm.training, norm.track_running_stats = training, tracked
            norm._buffers.update({k: None if b is None else b.clone() for k, b in norm._buffers.items()})

    def __exit__(self, *_: object) -> None:
        self.attention.__exit__(None, None, None)
        for norm, ((training, tracked), buffers) in zip(self.norms, self.found, strict=True):
            norm.training, norm.track_running_stats = training, tracked
            norm._buffers.update(buffers)
