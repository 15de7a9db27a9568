"""Samples of the model: images from the initial distribution, carried down the energy by the gradient loop.

    x_0 ~ initial distribution,   x_{t+1} = clip_[0,1]( x_t + eta * g / ||g||_2 ),   g = grad_x f(x)[y]  or  grad_x s(x)

Source: DAT (arXiv 2510.13872), sec. 3. Other systems walk by other rules: see core/sampler_settings.py and geometry.ascent.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from dualat.core.classifier import check_images, device_of
from dualat.core.energy import check_labels
from dualat.core.loop import normal, pgd
from dualat.core.objectives import lower_energy
from dualat.core.sampler_settings import SamplingSettings
from dualat.data.distributions import InitialDistribution
from dualat.data.draws import draws_for
from dualat.data.images import Shape
from dualat.data.initial import part_of
from dualat.data.starts import Start, plain_kind, start_from
from dualat.models.batchnorm import BatchStatistics
from dualat.models.model import LoadedModel
from dualat.models.own import count_classes
from dualat.system.precision import float32_by_default
from dualat.types import Schedule


def descend(
    model: torch.nn.Module,
    x: Tensor,
    labels: Tensor | None,
    sampling: SamplingSettings,
    generator: torch.Generator | None = None,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Carry images x: (N, C, H, W) in [0, 1] down the energy by a sampler's settings; (N, C, H, W) in [0, 1].

    labels: (N,), read where the settings name the joint energy. generator: source of the sampler's noise, if it has any.
    """
    if sampling.start_noise:
        x = check_images(x) + sampling.start_noise * normal(x, generator)
        x = x.clamp(0, 1) if sampling.clip else x
    found = pgd(
        BatchStatistics(model) if sampling.batch_statistics else model,
        x,
        lower_energy(labels if sampling.energy == "joint" else None),
        steps=sampling.steps,
        step_size=sampling.step_size,
        schedule=sampling.schedule,
        momentum=sampling.momentum,
        rule=sampling.rule,
        noise=sampling.noise,
        clip=sampling.clip,
        generator=generator,
        callback=callback,
    )
    return found.clamp(0, 1)


def draw(
    model: torch.nn.Module,
    initial: InitialDistribution,
    count: int,
    labels: Tensor | None,
    sampling: SamplingSettings,
    *,
    generator: torch.Generator | None = None,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
    batch_size: int = 500,
) -> Tensor:
    """`count` samples from any module and initial distribution; the building block of `sample` and of evaluation.

    All starting points are drawn before the first batch, so that the result does not depend on batch_size (but for
    the noise of a sampler that adds some).
    labels: (count,), or None for the marginal energy. Returns (count, C, H, W) in [0, 1] on the model's device.
    """
    device = device_of(model)
    of_starts = labels
    if labels is None and initial.classes:  # of no class in particular: of any
        of_starts = draws_for(count, generator).integers(initial.classes)
    with float32_by_default():
        starts = initial.sample(count, None if of_starts is None else of_starts.cpu(), generator)
    if labels is None:
        sampling = replace(sampling, energy="marginal")
    batches = []
    for first in range(0, count, batch_size):
        part = slice(first, first + batch_size)
        wanted = None if labels is None else labels[part].to(device)
        batches.append(descend(model, starts[part].to(device), wanted, sampling, generator, callback))
    return torch.cat(batches) if batches else starts.to(device)


def sample(
    model: nn.Module,
    labels: Tensor | list[int] | int,
    *,
    steps: int | None = None,
    step_size: float | None = None,
    schedule: Schedule | None = None,
    momentum: float | None = None,
    initial: Start | None = None,
    shape: Shape | None = None,
    conditional: bool = True,
    generator: torch.Generator | None = None,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Images of the classes asked for, drawn by descending the model's energy.

    Args:
        model: what `dualat.load` gives, or any module from images (N, C, H, W) in [0, 1] to logits (N, K).
        labels: one class per image, (N,); with conditional=False their number alone matters, or an int N.
        steps, step_size: gradient steps and the mean L2 length of one, in pixel units; default: the model's own, of a bare
            module those of `SamplingSettings`.
        schedule, momentum: of the steps (see `dualat.pgd`); default: the model's own.
        initial: what samples start from: a name ("gaussian", "uniform", "normal", "smooth-noise" ...), settings,
            a distribution, or a tensor (N, C, H, W) of images in [0, 1], one start for each sample; "noise" means "uniform";
            default: the one that the model was trained with. A bare module has none.
        shape: (C, H, W) of the samples, where neither the model nor `initial` tells it.
        conditional: True descends the joint energy E(x, y), unless the model's own sampler knows no classes; False the
            marginal energy E(x).
        generator: on any device; the same seed gives the same samples, on GPUs up to rounding.
        callback: called as callback(t, x_t, -E) at every step, start included, for each batch of up to 500 images.

    Returns:
        Images (N, C, H, W) in [0, 1].

    Raises:
        ValueError: a label that the model lacks, or an initial distribution that is missing or cannot be had here.
    """
    start = resolve_initial(model, initial, shape)
    if isinstance(labels, int):
        if conditional:
            raise ValueError("labels must name a class per image; a bare number needs conditional=False.")
        if labels < 0:
            raise ValueError(f"the number of samples is {labels}, but must be 0 or more.")
        count, wanted = labels, None
    else:
        wanted = torch.as_tensor(labels, dtype=torch.long if len(labels) == 0 else None)
        if conditional:
            check_labels(wanted, count_classes(model, start.shape))
        count = len(wanted)
    given = {"steps": steps, "step_size": step_size, "schedule": schedule, "momentum": momentum}
    own = model.sampling if isinstance(model, LoadedModel) else SamplingSettings()
    sampling = replace(own, **{k: v for k, v in given.items() if v is not None})
    return draw(
        model, start, count, wanted if conditional else None, sampling, generator=generator, callback=callback
    )


def resolve_initial(
    model: nn.Module, initial: Start | None, shape: Shape | None = None
) -> InitialDistribution:
    """The initial distribution meant: the model's own, or what is named; of images of `shape`, where a bare module does not
    tell it."""
    if not isinstance(model, LoadedModel):
        if initial is None:
            raise ValueError(
                "a bare module carries no initial distribution that samples could start from: pass one, as in "
                "initial='uniform' with shape=(C, H, W), or a tensor of starts (N, C, H, W)."
            )
        return start_from(initial, shape)[0]
    if shape is not None and tuple(shape) != model.shape:
        raise ValueError(
            f"shape is {tuple(shape)}, but this model takes images of shape {model.shape}: leave it out."
        )
    if initial is None:
        return model.required_initial
    if isinstance(initial, str) and model.initial is not None:
        kind, own = plain_kind(initial), model.initial_settings
        if kind in own.parts:
            return part_of(model.initial, kind)
        if kind == own.kind:
            return model.initial
    return start_from(initial, model.shape)[0]
