"""Sharpness-aware minimisation (SAM): the gradient is taken at the top of a short climb, the step from the old weights.

    w' = w + rho * w^2 g / || |w| g ||_2        (adaptive climb; Kwon et al., ASAM, ICML 2021; used by SADA-JEM)

Source of the idea: Foret et al., ICLR 2021.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dualat.core.geometry import TINY
from dualat.models.batchnorm import untracked


@contextmanager
def climbed(model: nn.Module, rho: float) -> Iterator[None]:
    """Inside, the weights stand at the top of the climb along their present gradients, which are then set to None; running
    statistics of BatchNorm are those of the old weights, and stay."""
    moved = [p for p in model.parameters() if p.grad is not None]
    with torch.no_grad():
        gradients = [p.grad for p in moved if p.grad is not None]
        scaled = torch.stack([(w.abs() * g).norm() for w, g in zip(moved, gradients, strict=True)])
        factor = rho / (scaled.norm() + TINY)
        kept = [p.clone() for p in moved]
        for weight, gradient in zip(moved, gradients, strict=True):
            weight.add_(factor * weight.square() * gradient)
    model.zero_grad(set_to_none=True)
    try:
        with untracked(model):
            yield
    finally:
        with torch.no_grad():
            for weight, old in zip(moved, kept, strict=True):
                weight.copy_(old)
