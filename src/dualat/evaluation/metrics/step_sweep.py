"""How many sampling steps? A sweep on validation images and on samples that no reported value uses.

    T* = argmin_T d^2( features of x_T, features of validation images ),   x_T after T steps of one trajectory

Source: DAT (arXiv 2510.13872) sweeps a few steps around the training's T on 2,560 samples. The distance is Frechet's, in
a judge's features (frechet.py).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dualat.data.images import ImageData
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.frechet import Gaussian, gaussian_distance
from dualat.evaluation.judge import Judge
from dualat.models.model import LoadedModel
from dualat.results.record import Record
from dualat.sampling import draw
from dualat.system.seeds import mix_seed


def measure(context: EvaluationContext) -> list[Record]:
    model, settings = context.required_model, context.settings
    own = max(1, model.sampling.steps)
    tried = settings.sweep_steps or sorted({max(1, round(own * part / 4)) for part in range(1, 9)})
    validation, count = context.data.validation, settings.sweep_samples
    return [step_sweep(model, validation, context.judge, tried, count, context.seed)]


def step_sweep(
    model: LoadedModel,
    reference_images: ImageData,
    judge: Judge,
    steps: Sequence[int],
    count: int,
    seed: int,
) -> Record:
    """Record `step_sweep`: the number of steps with the smallest Frechet distance (of equal ones the smaller number).

    Args:
        reference_images: the validation split, never what reported values are measured against.
        judge: gives the features, and says which class a sample shows.
        steps: numbers to try, 0 or more.
        count: samples, class-balanced; their seed is of a stream of its own.

    Returns:
        A record whose details hold steps, frechet_distance and sample_class_accuracy, one value per number of steps.

    Raises:
        ValueError: no steps, negative ones, fewer than 2 samples, test images, or a model that cannot be sampled.
    """
    wanted = sorted(set(steps))
    if not wanted or wanted[0] < 0:
        raise ValueError(
            f"the steps to try are {list(steps)}, but must be one or more numbers, each 0 or more."
        )
    if count < 2:
        raise ValueError(f"the sweep has {count} samples, but a distance needs at least 2: give more.")
    if reference_images.name.endswith(" test"):
        raise ValueError(
            f"the sweep is given {reference_images.name}, which reported values use: give the validation split."
        )
    labels = torch.arange(count) % len(model.class_names)
    target = Gaussian.of_features(judge.features_of(reference_images))
    distances, accuracies = [], []
    for images in _trajectory(model, labels, wanted, mix_seed("step-sweep", seed)):
        features = Gaussian.of_features(judge.features(images))
        distances.append(gaussian_distance(features, target))
        accuracies.append(float((judge.predict(images) == labels).float().mean()))
    best = min(range(len(wanted)), key=lambda i: distances[i])
    record = Record("step_sweep", float(wanted[best]), count, seed=seed, split="validation")
    record.settings = {
        "features": judge.features_name,
        "judge": judge.name,
        "reference": reference_images.name,
        "reference_images": len(reference_images),
        "sampling": {k: v for k, v in model.sampling.recorded().items() if k != "steps"},
        "initial": model.initial_kind,
    }
    record.details = {"steps": wanted, "frechet_distance": distances, "sample_class_accuracy": accuracies}
    return record


def _trajectory(model: LoadedModel, labels: Tensor, wanted: list[int], seed: int) -> list[Tensor]:
    """Images of 8 bits after each wanted number of steps: one descent, looked at on its way, where all steps are alike;
    otherwise a descent for each, from the same starts."""
    initial = model.required_initial
    seen: dict[int, list[Tensor]] = {t: [] for t in wanted}

    def descend(steps: int, looks: set[int]) -> None:
        def look(t: int, x: Tensor, _: Tensor) -> None:
            if t in looks:
                seen[t].append((x.cpu() * 255).round() / 255)

        sampler, generator = replace(model.sampling, steps=steps), torch.Generator().manual_seed(seed)
        draw(model, initial, len(labels), labels, sampler, generator=generator, callback=look)

    if model.sampling.schedule == "constant":
        descend(wanted[-1], set(wanted))
    else:
        for steps in wanted:
            descend(steps, {steps})
    return [torch.cat(seen[t]) for t in wanted]
