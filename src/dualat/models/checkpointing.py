"""Activation checkpointing: a block keeps its input alone, and its activations are computed again in the backward pass.

Memory falls from all activations to those of one block and the blocks' inputs, for about a third more computation.
"""

from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from dualat.models.batchnorm import FirstPass

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
            context_fn=lambda: (nullcontext(), Again(self)),
        )

    own = {"forward": forward, "without_checkpoints": kind}  # the compiled loop looks for it
    return type(f"Checkpointed{kind.__name__}", (kind,), own)


class Again:
    """What passes that compute activations again find as the first pass did: BatchNorm, and the kernels of attention.
    Entered once per pass: a loss that is differentiated twice has several."""

    def __init__(self, block: nn.Module):
        self.norms = FirstPass(block)
        self.unfused = not torch.backends.cuda.flash_sdp_enabled()  # a switch of CPUs too, whatever its name
        self.entered = ExitStack()

    def __enter__(self) -> None:
        if self.unfused:
            self.entered.enter_context(sdpa_kernel(SDPBackend.MATH))
        self.entered.enter_context(self.norms)

    def __exit__(self, *_: object) -> None:
        self.entered.close()
