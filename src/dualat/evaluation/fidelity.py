"""How near samples are to real images in the features of a network, and how much of their variety they have.

Frechet distance (frechet.py), kernel distance (kernel.py), precision and recall (precision_recall.py), in the features of any
network (features.py). In Inception features the distances are FID and KID (metrics/inception.py); in others, never.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from dualat.evaluation.features import FeatureExtractor, cached_features
from dualat.evaluation.frechet import Gaussian, frechet_interval, gaussian_distance
from dualat.evaluation.intervals import METHOD, RESAMPLES
from dualat.evaluation.kernel import SUBSETS, kernel_distance, kernel_interval, subset_size
from dualat.evaluation.precision_recall import NEIGHBOURS, precision_recall, require_neighbours
from dualat.evaluation.reference import Reference, Statistics
from dualat.evaluation.samples import ImageSet
from dualat.results.record import Record, proportion, timed

Frechet = Callable[[Tensor, Tensor | Statistics], float]
"""From features (N, D) of samples, and those (M, D) of real images or their statistics."""
Kernel = Callable[[Tensor, Tensor, int], float]
"""From features (N, D) of samples and (M, D) of real images, and a seed."""


def gaussian_of(found: Tensor | Statistics) -> Gaussian:
    if isinstance(found, Tensor):
        return Gaussian.of_features(found)
    return Gaussian.of_statistics(found.mean, found.covariance)


def frechet_to(features: Tensor, against: Tensor | Statistics) -> float:
    return gaussian_distance(Gaussian.of_features(features), gaussian_of(against))


def fidelity_records(
    samples: ImageSet,
    reference: Reference,
    extractor: FeatureExtractor,
    seed: int = 0,
    *,
    cache_folder: Path | None = None,
    resamples: int = RESAMPLES,
    frechet: tuple[str, Frechet] = ("frechet_distance", frechet_to),
    kernel: tuple[str, Kernel] = ("kernel_distance", kernel_distance),
    published: bool = False,
) -> list[Record]:
    """Records of the Frechet distance, kernel distance, precision and recall of the samples in the extractor's features.

    A reference without images gives the Frechet distance alone.

    Args:
        seed: of subsets and intervals.
        cache_folder: where features are kept; None: the cache folder of judges.
        resamples: of each interval; 0: none.
        frechet, kernel: names of the two distances in these features, and what computes them.
        published: the statistics of a reference that has images too give the Frechet distance.

    Raises:
        ValueError: statistics of another dimension, images of different sizes, or too few.
    """
    check_comparable(samples, reference)
    real, statistics = None, None
    if reference.images is None or (published and reference.statistics):
        statistics = reference.require_statistics(extractor.dimension, extractor.name)
    if reference.images is not None:
        require_neighbours(len(samples), len(reference.images))
        real = cached_features(extractor, reference.images, cache_folder)
    features = cached_features(extractor, samples, cache_folder)

    def told(statistics: bool = False) -> dict[str, Any]:
        return settings_of(samples, extractor, reference.settings(statistics))

    def frechet_record() -> Record:
        against = real if statistics is None else statistics
        assert against is not None
        value = frechet[1](features, against)
        interval = frechet_interval(value, features, gaussian_of(against), seed, resamples)
        settings = told(statistics is not None) | {"interval": interval_method(interval, resamples)}
        return Record(frechet[0], value, len(features), interval, settings)

    def kernel_record(real: Tensor) -> Record:
        value = kernel[1](features, real, seed)
        interval = kernel_interval(value, features, real, seed, resamples)
        subsets = {"subsets": SUBSETS, "subset_size": subset_size(len(features), len(real))}
        settings = told() | subsets | {"interval": interval_method(interval, resamples)}
        return Record(kernel[0], value, len(features), interval, settings)

    records = [timed(frechet_record)]
    if real is not None:
        records.append(timed(lambda: kernel_record(real)))
        records += _precision_recall(features, real, told())
    for record in records:
        record.seed, record.split = seed, reference.split
    return records


def check_comparable(samples: ImageSet, reference: Reference) -> None:
    """ValueError for fewer than 2 samples or references, or images of different sizes."""
    real = reference.images
    for name, count in ((samples.name, len(samples)), (reference.name, 2 if real is None else len(real))):
        if count < 2:
            raise ValueError(f"{name} has {count} images, but a distance needs at least 2: give more.")
    if real is not None and real.shape[1:] != samples.shape[1:]:
        one, other = (f"{shape[1]}x{shape[2]}" for shape in (samples.shape, real.shape))
        raise ValueError(
            f"{samples.name} have {one} pixels, but those of {reference.name} have {other}: bring the reference to the "
            "samples' shape."
        )


def settings_of(
    samples: ImageSet, extractor: FeatureExtractor, reference: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What a record tells of the features, of what samples are compared with, and of the samples."""
    known = {"features": extractor.name, **extractor.settings, **(reference or {}), **samples.settings}
    return known | {"samples_sha256": samples.content[:16]}


def interval_method(interval: tuple[float, float] | None, resamples: int) -> str:
    """How a record tells its interval."""
    if interval is not None:
        return f"{METHOD}, {resamples} resamples"
    return "none: it would take minutes" if resamples else "none asked for"


def _precision_recall(features: Tensor, real: Tensor, settings: dict[str, Any]) -> list[Record]:
    """Recall has no interval: what it varies by are the balls, which are the samples', and not the images tried on them."""
    began = time.perf_counter()
    precise, recalled = precision_recall(features, real)
    seconds = round(time.perf_counter() - began, 3)
    settings = settings | {"neighbours": NEIGHBOURS, "interval": "Wilson, the balls held fixed"}
    precision = proportion("precision", int(precise.sum()), len(precise), settings=settings, seconds=seconds)
    settings = settings | {"interval": "none: the samples' balls vary"}
    recall = float(recalled.double().mean())
    return [precision, Record("recall", recall, len(recalled), settings=settings, seconds=seconds)]
