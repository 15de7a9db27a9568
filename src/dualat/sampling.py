"""Samples of the model: images from the initial distribution, carried down the energy by the gradient loop.

    x_0 ~ initial distribution,   x_{t+1} = clip_[0,1]( x_t + eta * g / ||g||_2 ),   g = grad_x f(x)[y]  or  grad_x s(x)

Source: DAT (arXiv 2510.13872), sec. 3. Other systems walk by other rules: see core/sampler_settings.py and geometry.ascent.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, get_args, get_type_hints

import torch
from torch import Tensor

from dualat.core.classifier import check_images, device_of
from dualat.core.energy import check_labels
from dualat.core.loop import Schedule, normal, pgd
from dualat.core.objectives import lower_energy
from dualat.core.sampler_settings import SamplingSettings
from dualat.data.draws import draws_for
from dualat.data.initial import InitialDistribution, build_initial
from dualat.data.settings import InitialSettings
from dualat.system.precision import float32_by_default

KINDS = get_args(get_type_hints(InitialSettings)["kind"])

if TYPE_CHECKING:
    from dualat.models.model import LoadedModel


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
        model,
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
    model: "LoadedModel",
    labels: Tensor | list[int] | int,
    *,
    steps: int | None = None,
    step_size: float | None = None,
    schedule: Schedule | None = None,
    momentum: float | None = None,
    initial: str | InitialSettings | InitialDistribution | None = None,
    conditional: bool = True,
    generator: torch.Generator | None = None,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Images of the classes asked for, drawn by descending the model's energy.

    Args:
        model: what `dualat.load` gives.
        labels: one class per image, (N,); with conditional=False their number alone matters, or an int N.
        steps, step_size: gradient steps and the mean L2 length of one, in pixel units; default: the model's own.
        schedule, momentum: of the steps (see `dualat.pgd`); default: the model's own.
        initial: what samples start from: a name ("gaussian", "uniform", "normal", "smooth-noise" ...), settings,
            or a distribution; "noise" means "uniform"; default: the one that the model was trained with.
        conditional: True descends the joint energy E(x, y), unless the model's own sampler knows no classes; False the
            marginal energy E(x).
        generator: on any device; the same seed gives the same samples, on GPUs up to rounding.
        callback: called as callback(t, x_t, -E) at every step, start included, for each batch of up to 500 images.

    Returns:
        Images (N, C, H, W) in [0, 1].

    Raises:
        ValueError: a label that the model lacks, or an initial distribution that cannot be had here.
    """
    if isinstance(labels, int):
        if conditional:
            raise ValueError("labels must name a class per image; a bare number needs conditional=False.")
        if labels < 0:
            raise ValueError(f"the number of samples is {labels}, but must be 0 or more.")
        count, wanted = labels, None
    else:
        wanted = torch.as_tensor(labels, dtype=torch.long if len(labels) == 0 else None)
        if conditional:
            check_labels(wanted, len(model.class_names))
        count = len(wanted)
    start = resolve_initial(model, initial)
    given = {"steps": steps, "step_size": step_size, "schedule": schedule, "momentum": momentum}
    sampling = replace(model.sampling, **{k: v for k, v in given.items() if v is not None})
    return draw(
        model, start, count, wanted if conditional else None, sampling, generator=generator, callback=callback
    )


def resolve_initial(
    model: "LoadedModel", initial: str | InitialSettings | InitialDistribution | None
) -> InitialDistribution:
    """The initial distribution meant: the model's own, a named kind of noise, given settings, or as it is."""
    if initial is None:
        if model.initial is None:
            raise ValueError("this model carries no initial distribution: name one, as in initial='uniform'.")
        return model.initial
    if isinstance(initial, str):
        kind = "uniform" if initial == "noise" else initial
        if model.initial is not None and kind == model.initial_settings.kind:
            return model.initial
        if kind == "images":
            raise ValueError(
                "initial distribution 'images' needs a source: pass InitialSettings(kind='images', "
                "source=FOLDER) (on the command line: --initial-images FOLDER)."
            )
        if kind not in KINDS:
            raise ValueError(f"initial distribution {kind!r} is unknown: give {', '.join(KINDS)}.")
        initial = InitialSettings(kind=kind)  # pyright: ignore[reportArgumentType]
    if isinstance(initial, InitialSettings):
        if initial.kind in ("gaussian", "class-gaussian"):
            raise ValueError(
                f"initial distribution {initial.kind!r} is fitted to training images, which this model "
                "does not carry: build it with dualat.data.initial.build_initial and pass that."
            )
        return build_initial(initial, model.shape, None)
    return initial
