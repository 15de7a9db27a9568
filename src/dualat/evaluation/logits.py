"""What a model says of many images, and what the gradient loop makes of them: batch by batch, onto the CPU."""

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from dualat.core.classifier import check_images, check_logits, device_of, logits_of
from dualat.core.energy import marginal_energy
from dualat.core.geometry import ThreatModel
from dualat.core.loop import frozen, pgd
from dualat.core.objectives import Objective
from dualat.data.images import ImageData
from dualat.system.distributed import all_reduced, mine


def check_measured(model: nn.Module, images: Tensor | ImageData, batch_size: int) -> None:
    """ValueError for no images, images outside [0, 1] or of another kind or shape, or a batch size below 1."""
    if isinstance(images, Tensor):
        name, shape = "images", tuple(images.shape[1:])
        check_images(images, name)
    else:
        name, shape = images.name, images.shape
    if not len(images):
        raise ValueError(f"{name} holds no images: give at least one.")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, but must be 1 or more.")
    expected = getattr(model, "shape", None)
    if isinstance(expected, tuple) and shape != expected:
        raise ValueError(
            f"{name} has images of shape {shape}, but this model takes {expected}: "
            "fit them to it by their `fitted`."
        )


def batches(model: nn.Module, images: Tensor | ImageData, batch_size: int) -> Iterator[Tensor]:
    """The images in order, as float32 (n, C, H, W) on the model's device. Raises as `check_measured`."""
    check_measured(model, images, batch_size)
    device = device_of(model)
    for first in range(0, len(images), batch_size):
        part = slice(first, first + batch_size)
        yield (images[part].float() if isinstance(images, Tensor) else images.float(part)).to(device)


def dealt_batches(
    model: nn.Module, data: ImageData, batch_size: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """This rank's batches: their positions, images (n, C, H, W) and labels (n,) on the model's device."""
    check_measured(model, data, batch_size)
    device = device_of(model)
    for first in mine(range(0, len(data), batch_size)):
        part = slice(first, first + batch_size)
        yield part, data.float(part).to(device), data.labels[part].to(device)


def empty_logits(model: nn.Module, data: ImageData) -> Tensor:
    """Zeros (N, K), to be filled by the ranks; K is what the model gives of one image."""
    (x,) = batches(model, data.take(torch.arange(min(1, len(data)))), 1)
    with frozen(model), torch.no_grad():
        return torch.zeros(len(data), check_logits(logits_of(model, x)).shape[1])


def shared_logits(model: nn.Module, data: ImageData, batch_size: int = 500) -> Tensor:
    """`predict_logits` of all images, each rank computing its part."""
    logits = empty_logits(model, data)
    with frozen(model), torch.no_grad():
        for part, x, _ in dealt_batches(model, data, batch_size):
            logits[part] = check_logits(logits_of(model, x)).float().cpu()
    return all_reduced(logits)


def predict_logits(model: nn.Module, images: Tensor | ImageData, batch_size: int = 500) -> Tensor:
    """Logits (N, K), float32 on the CPU, in eval mode and without gradients. ValueError where they are not finite."""
    with frozen(model), torch.no_grad():
        return torch.cat(
            [check_logits(logits_of(model, x).float().cpu()) for x in batches(model, images, batch_size)]
        )


def gradient_norms(model: nn.Module, images: Tensor | ImageData, batch_size: int = 500) -> Tensor:
    """|| grad_x E(x) || of each image: (N,) float32 on the CPU. Weights keep no gradients."""
    norms = []
    with frozen(model), torch.enable_grad():
        for x in batches(model, images, batch_size):
            x = x.detach().requires_grad_(True)
            logits = check_logits(logits_of(model, x))
            (gradient,) = torch.autograd.grad(marginal_energy(logits).sum(), x)
            norms.append(torch.linalg.vector_norm(gradient.flatten(1), dim=1).cpu())
    return torch.cat(norms)


def climb(
    model: nn.Module,
    data: ImageData,
    objective: Objective,
    threat: ThreatModel,
    steps: int,
    step_size: float,
    batch_size: int = 500,
) -> Tensor:
    """Every image's iterate of the gradient loop with the largest objective: (N, C, H, W) float32 on the CPU."""
    loop = partial(pgd, model, threat=threat, steps=steps, step_size=step_size, keep="best")
    return torch.cat([loop(x, objective).cpu() for x in batches(model, data, batch_size)])


def attack_step_size(threat: ThreatModel, steps: int, factor: float = 2.5) -> float:
    """factor * eps / steps, so that the path can cross the ball; ValueError for no ball or no steps."""
    if steps < 1 or not math.isfinite(threat.eps):
        raise ValueError(
            f"an attack needs a finite eps and at least 1 step, but they are {threat.eps} and {steps}."
        )
    return factor * threat.eps / steps if threat.eps else 1.0
