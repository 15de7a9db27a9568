"""Optimiser and learning rate from the settings. The rate is a function of the step alone, so it needs no state."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dualat.training.settings import OptimizerSettings


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW, over all weights."""
    weights, decay = list(model.parameters()), settings.weight_decay
    way = kernels(weights)
    if settings.name == "sgd":
        nesterov = settings.nesterov and settings.momentum > 0
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            weights, settings.lr, momentum=settings.momentum, nesterov=nesterov, weight_decay=decay, **way
        )
    else:
        optimizer = torch.optim.AdamW(weights, settings.lr, betas=settings.betas, weight_decay=decay, **way)
    optimizer.register_load_state_dict_pre_hook(keep_kernels)
    return optimizer


def kernels(weights: Iterable[Tensor]) -> dict[str, bool]:
    """How a step is carried out: by one fused kernel where all weights are floats on CUDA, else by few for all."""
    fused = all(w.is_cuda and w.is_floating_point() for w in weights)
    return {"fused": True} if fused else {"foreach": True}


def keep_kernels(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """The saved state for this optimiser's own kernels: a run may go on on another kind of device."""
    own = [{name: group[name] for name in ("fused", "foreach")} for group in optimizer.param_groups]
    groups = [{**group, **way} for group, way in zip(saved["param_groups"], own, strict=True)]
    return {**saved, "param_groups": groups}


def learning_rate(settings: OptimizerSettings, step: int, total: int) -> float:
    """Learning rate of training step `step` (0-based) of `total`."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / (settings.warmup_steps + 1)
    if settings.schedule == "cosine":
        done = (step - settings.warmup_steps) / max(1, total - settings.warmup_steps)
        return settings.lr * 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "step":
        return settings.lr * settings.gamma ** sum(step >= m * total for m in settings.milestones)
    return settings.lr
