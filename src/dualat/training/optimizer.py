"""Optimiser and learning rate from the settings. The rate is a function of the step alone, so it needs no state."""

import math

import torch
from torch import nn

from dualat.training.settings import OptimizerSettings


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW, over all weights."""
    if settings.name == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            settings.lr,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
            weight_decay=settings.weight_decay,
        )
    return torch.optim.AdamW(
        model.parameters(), settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
    )


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
