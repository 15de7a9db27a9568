"""One training step: the method's images, its loss, the gradient, the optimiser's step."""

import math

import torch
from torch import Tensor

from dualat.core.loop import GradientLoop
from dualat.methods.base import Batch, Method
from dualat.models.batchnorm import set_train_mode
from dualat.models.model import LoadedModel
from dualat.system.distributed import average_gradients, lost_ranks, mean_over_ranks, world_size
from dualat.system.precision import autocast
from dualat.training.settings import StageSettings
from dualat.training.sharpness import climbed


def train_step(
    model: LoadedModel,
    method: Method,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    rate: float,
    settings: StageSettings,
    dtype: torch.dtype,
    loop: GradientLoop | None = None,
) -> dict[str, float]:
    """One optimiser step; returns the figures of the step as plain numbers. A non-finite
    loss or gradient changes no weight.

    loop: the gradient loop on this model that the method climbs with; None: an eager one.
    """
    loop = loop or GradientLoop(model)
    for group in optimizer.param_groups:
        group["lr"] = rate
    set_train_mode(model, settings.freeze_batchnorm)
    device, parts = batch.robust_images.device, batch.split(settings.accumulate)
    made, seen = [], []
    optimizer.zero_grad(set_to_none=True)
    for part in parts:
        with autocast(dtype, device):
            made.append(method.generate(loop, part))
            loss, figures = method.loss_on(model, part, made[-1])
        backward(loss / len(parts))
        seen.append({"loss": loss.detach(), **figures})
    average_gradients(model)
    if method.sharpness:
        with climbed(model, method.sharpness):
            for part, images in zip(parts, made, strict=True):
                with autocast(dtype, device):
                    loss, _ = method.loss_on(model, part, images)
                backward(loss / len(parts))
            average_gradients(model)
    limit = math.inf if settings.optimizer.clip_norm is None else settings.optimizer.clip_norm
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit).item()
    found = mean_over_ranks({name: sum(float(f[name]) for f in seen) / len(seen) for name in seen[0]})
    found |= {"gradient_norm": norm, **method.after_step()}
    if math.isfinite(found["loss"]) and math.isfinite(norm):
        optimizer.step()
    return found


def backward(loss: Tensor) -> None:
    """Add the loss's gradient to the weights' gradients. Synchronised BatchNorm exchanges with other ranks meanwhile."""
    with lost_ranks():
        loss.backward()


def check_division(method: Method, settings: StageSettings, batch_size: int) -> None:
    """ValueError where a batch cannot be cut into equal parts, or a method cannot run on several processes."""
    if method.one_process and world_size() > 1:
        raise ValueError(
            f"method {method.name} keeps a replay buffer, which {world_size()} processes cannot share: start it on one."
        )
    if batch_size % (world_size() * settings.accumulate):
        raise ValueError(
            f"batch_size is {batch_size}, which cannot be divided into {world_size()} (processes) x {settings.accumulate} "
            "(accumulate) equal parts: give a multiple, or change accumulate."
        )
