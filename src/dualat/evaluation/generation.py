"""Quality of samples: does an independent classifier see the class asked for, and are they distributed as real images?

sample_class_accuracy = 1/N sum_i [ judge(x_i) = y_i ],  labels class-balanced: y_i = i mod K
frechet_distance = distance between judge features of samples and of held-out real images (frechet.py)
"""

import time
from dataclasses import asdict

import torch
from torch import Tensor

from dualat.data.in_distribution import ImageData
from dualat.evaluation.frechet import frechet_distance
from dualat.evaluation.judge import Judge
from dualat.evaluation.record import Record, proportion
from dualat.load import LoadedModel
from dualat.sampling import draw


def balanced_samples(
    model: LoadedModel, count: int, seed: int, steps: int | None = None
) -> tuple[Tensor, Tensor]:
    """Class-balanced samples with the model's own sampling settings, rounded to 8 bits.

    steps: gradient steps in place of the model's own number; 0 gives the starting points.
    Returns images (N, C, H, W) in [0, 1] on the CPU, and their labels (N,).
    """
    labels = torch.arange(count) % len(model.class_names)
    if model.initial is None:
        raise ValueError("this model carries no initial distribution to sample from.")
    images = draw(
        model,
        model.initial,
        count,
        labels,
        steps=model.sampling.steps if steps is None else steps,
        step_size=model.sampling.step_size,
        generator=torch.Generator().manual_seed(seed),
    )
    return (images.cpu() * 255).round() / 255, labels


def generation_records(
    model: LoadedModel, real: ImageData, judge: Judge, count: int, seed: int, steps: int | None = None
) -> list[Record]:
    """Records `sample_class_accuracy` and `frechet_distance` of `count` samples against the images `real`.

    With steps=0 they measure the starting points: what the descent of the energy begins with, not its merit.
    """
    began = time.perf_counter()
    images, labels = balanced_samples(model, count, seed, steps)
    sampling = asdict(model.sampling) | ({} if steps is None else {"steps": steps})
    settings = {"sampling": sampling, "initial": model.initial_settings.kind}
    hits = int((judge.predict(images) == labels).sum())
    distance = frechet_distance(judge.features(images), judge.features(real.float()))
    features = f"judge-cnn, {judge.steps} steps on {judge.train.name}"
    accuracy = proportion(
        "sample_class_accuracy", hits, count, seed=seed, settings={**settings, "judge": judge.name}
    )
    frechet = Record(
        "frechet_distance",
        distance,
        count,
        seed=seed,
        settings={**settings, "features": features, "reference_images": len(real)},
    )
    accuracy.seconds = frechet.seconds = round(time.perf_counter() - began, 3)  # sampling included
    return [accuracy, frechet]
