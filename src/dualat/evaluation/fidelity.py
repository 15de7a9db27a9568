"""How near samples are to real images in the features of a network, and how much of their variety they have.

frechet_distance (frechet.py), kernel_distance (kernel.py), precision and recall (precision_recall.py), in ImageNet or
judge features (features.py): named for what they are. Only Inception features give FID and KID (metrics/inception.py).
"""

import time
from pathlib import Path
from typing import Any

from torch import Tensor

from dualat.evaluation.features import FeatureExtractor, cached_features
from dualat.evaluation.frechet import Gaussian, frechet_interval, gaussian_distance
from dualat.evaluation.intervals import METHOD, RESAMPLES
from dualat.evaluation.kernel import SUBSETS, kernel_distance, kernel_interval, subset_size
from dualat.evaluation.precision_recall import as_records, precision_recall, require_neighbours
from dualat.evaluation.reference import Reference
from dualat.evaluation.samples import ImageSet
from dualat.results.record import Record


def fidelity_records(
    samples: ImageSet,
    reference: Reference,
    extractor: FeatureExtractor,
    seed: int = 0,
    *,
    cache_folder: Path | None = None,
    resamples: int = RESAMPLES,
) -> list[Record]:
    """Records frechet_distance, kernel_distance, precision and recall of the samples in the extractor's features.

    A reference without images gives frechet_distance alone; one that has both is taken by its images, as published
    statistics are of Inception features.

    Args:
        seed: of subsets and intervals.
        cache_folder: where features are kept; None: the cache folder of judges.
        resamples: of each interval; 0: none.

    Raises:
        ValueError: statistics of another dimension, images of different sizes, or too few.
    """
    require_samples(samples, reference)
    real = None
    if reference.images is None:
        statistics = reference.require_statistics(extractor.dimension, extractor.name)
        target = Gaussian.of_statistics(statistics.mean, statistics.covariance)
    else:
        require_neighbours(len(samples), len(reference.images))
        real = cached_features(extractor, reference.images, cache_folder)
        target = Gaussian.of_features(real)
    features = cached_features(extractor, samples, cache_folder)
    settings = {
        "features": extractor.name,
        **extractor.settings,
        **reference.settings(statistics=real is None),
        **samples.settings,
        "samples_sha256": samples.content[:16],
    }
    records = [_frechet(features, target, settings, seed, resamples)]
    if real is not None:
        records.append(_kernel(features, real, settings, seed, resamples))
        records += _precision_recall(features, real, settings)
    for record in records:
        record.seed, record.split = seed, reference.split
    return records


def require_samples(samples: ImageSet, reference: Reference) -> None:
    """Refuse what cannot be compared.

    Raises:
        ValueError: fewer than 2 samples or references, or images of different sizes.
    """
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


def told(interval: tuple[float, float] | None, resamples: int) -> str:
    """How a record tells its interval."""
    if interval is not None:
        return f"{METHOD}, {resamples} resamples"
    return "none: it would take minutes" if resamples else "none asked for"


def _frechet(
    features: Tensor, target: Gaussian, settings: dict[str, Any], seed: int, resamples: int
) -> Record:
    began = time.perf_counter()
    value = gaussian_distance(Gaussian.of_features(features), target)
    interval = frechet_interval(value, features, target, seed, resamples)
    settings = {**settings, "interval": told(interval, resamples)}
    return Record("frechet_distance", value, len(features), interval, settings, seconds=_since(began))


def _kernel(features: Tensor, real: Tensor, settings: dict[str, Any], seed: int, resamples: int) -> Record:
    began = time.perf_counter()
    value = kernel_distance(features, real, seed)
    interval = kernel_interval(value, features, real, seed, resamples)
    size = subset_size(len(features), len(real))
    settings = {**settings, "subsets": SUBSETS, "subset_size": size, "interval": told(interval, resamples)}
    return Record("kernel_distance", value, len(features), interval, settings, seconds=_since(began))


def _precision_recall(features: Tensor, real: Tensor, settings: dict[str, Any]) -> list[Record]:
    began = time.perf_counter()
    precision, recall = (float(hits.double().mean()) for hits in precision_recall(features, real))
    return as_records(precision, recall, len(features), len(real), settings, _since(began))


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)
