"""FID, KID, Inception Score, precision and recall, through torch-fidelity and its Inception network.

The features are torch-fidelity's, and so is each figure made of them: the same numbers as its command line prints for the
same images (for precision and recall with --feature-extractor inception-v3-compat: its default there is another network).
Formulas: frechet.py, kernel.py, inception_score.py, precision_recall.py.

Source: Heusel et al., 2017; Obukhov et al., torch-fidelity.
"""

import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.features import InceptionFeatures, cached_features
from dualat.evaluation.fidelity import require_samples, told
from dualat.evaluation.frechet import Gaussian, frechet_interval
from dualat.evaluation.inception_score import SHUFFLE_SEED, inception_score, score_interval, splits
from dualat.evaluation.inception_weights import find_inception_weights
from dualat.evaluation.intervals import RESAMPLES
from dualat.evaluation.kernel import SUBSETS, kernel_interval, subset_size
from dualat.evaluation.precision_recall import NEIGHBOURS, as_records, require_neighbours
from dualat.evaluation.reference import Reference, Statistics
from dualat.evaluation.samples import ImageSet
from dualat.results.record import Record, versions


def measure(context: EvaluationContext) -> list[Record]:
    weights = context.settings.inception_weights
    return inception_records(context.samples, context.reference, weights, context.seed, device=context.device)


def needs(context: EvaluationContext) -> None:
    find_inception_weights(context.settings.inception_weights)
    context.check_reference(InceptionFeatures.dimension, "Inception features", published=True)


def inception_records(
    samples: ImageSet,
    reference: Reference,
    weights: Path | str | None = None,
    seed: int = 0,
    *,
    cache_folder: Path | None = None,
    resamples: int = RESAMPLES,
    device: torch.device | str = "cpu",
) -> list[Record]:
    """Records fid, kid, inception_score, precision and recall; kid, precision and recall need a reference's images.

    Where a reference has both, its published statistics give fid, as they were taken over more images.

    Args:
        weights: file of the Inception network; None: torch hub's cache. With other than the official weights each
            record says "custom" and their SHA-256: such figures compare with nothing else.
        seed: of the intervals; subsets and splits are torch-fidelity's own.
        cache_folder: where features are kept; None: the cache folder of judges.
        resamples: of each interval; 0: none.

    Raises:
        FileNotFoundError, ValueError: no weights, other weights under the official name, or too few images.
    """
    require_samples(samples, reference)
    extractor = InceptionFeatures(weights, device)
    if reference.statistics is not None:
        reference.require_statistics(extractor.dimension, extractor.name)
    features = cached_features(extractor, samples, cache_folder)
    settings = {"features": extractor.name, **extractor.settings, **samples.settings}
    settings["samples_sha256"] = samples.content[:16]
    if reference.images is None:
        real = None
    else:
        require_neighbours(len(samples), len(reference.images))
        real = cached_features(extractor, reference.images, cache_folder)
    records = [
        _fid(features, real, reference, settings, seed, resamples),
        _score(extractor.logits(features), settings, seed, resamples),
    ]
    if real is not None:
        settings = {**settings, **reference.settings()}
        records[1:1] = [_kid(features, real, settings, seed, resamples)]
        records += _prc(features, real, settings)
    for record in records:
        record.seed, record.split, record.versions = seed, reference.split, fidelity_versions()
    return records


def fidelity_versions() -> dict[str, str]:
    from torch_fidelity import __version__ as torch_fidelity

    return {**versions(), "torch-fidelity": torch_fidelity, "numpy": np.__version__}


def _fid(
    features: Tensor,
    real: Tensor | None,
    reference: Reference,
    settings: dict[str, Any],
    seed: int,
    resamples: int,
) -> Record:
    from torch_fidelity.metric_fid import (
        KEY_METRIC_FID,
        fid_features_to_statistics,
        fid_statistics_to_metric,
    )

    began = time.perf_counter()
    own = fid_features_to_statistics(features)
    statistics: Statistics | None = reference.statistics
    if statistics is not None:
        other = {"mu": statistics.mean.numpy(), "sigma": statistics.covariance.numpy()}
        own = {key: value.astype(np.float64) for key, value in own.items()}
    else:
        assert real is not None
        other = fid_features_to_statistics(real)
    value = fid_statistics_to_metric(own, other, False)[KEY_METRIC_FID]
    interval = None
    if resamples:
        target = (
            Gaussian.of_features(real)
            if statistics is None and real is not None
            else Gaussian.of_statistics(*map(torch.from_numpy, other.values()))
        )
        interval = frechet_interval(value, features, target, seed, resamples)
    settings = {
        **settings,
        **reference.settings(statistics is not None),
        "interval": told(interval, resamples),
    }
    return Record("fid", value, len(features), interval, settings, seconds=_since(began))


def _kid(features: Tensor, real: Tensor, settings: dict[str, Any], seed: int, resamples: int) -> Record:
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    began = time.perf_counter()
    size = subset_size(len(features), len(real))
    value = kid_features_to_metric(
        features, real, kid_subsets=SUBSETS, kid_subset_size=size, rng_seed=SHUFFLE_SEED, verbose=False
    )[KEY_METRIC_KID_MEAN]
    interval = kernel_interval(value, features, real, seed, resamples)
    extra = {"subsets": SUBSETS, "subset_size": size, "interval": told(interval, resamples)}
    return Record("kid", value, len(features), interval, {**settings, **extra}, seconds=_since(began))


def _score(logits: Tensor, settings: dict[str, Any], seed: int, resamples: int) -> Record:
    began = time.perf_counter()
    value = inception_score(logits)
    interval = score_interval(value, logits, seed, resamples)
    extra = {"splits": splits(len(logits)), "interval": told(interval, resamples)}
    return Record(
        "inception_score", value, len(logits), interval, {**settings, **extra}, seconds=_since(began)
    )


def _prc(features: Tensor, real: Tensor, settings: dict[str, Any]) -> list[Record]:
    began = time.perf_counter()
    precision, recall = _precision_recall(features, real)
    return as_records(precision, recall, len(features), len(real), settings, _since(began))


def _precision_recall(features: Tensor, real: Tensor) -> tuple[float, float]:
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    pair = (features, real) if _samples_come_first() else (real, features)
    found = prc_features_to_metric(
        *pair, prc_neighborhood=NEIGHBOURS, prc_batch_size=1000, save_cpu_ram=True, verbose=False
    )
    return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]


@cache
def _samples_come_first() -> bool:
    """Versions of torch-fidelity differ in which of the two sets they take for the real one: ask it.

    Eight points within 0.07 of the first of eight real ones 10 apart: precision is 1, and recall 1/8.
    """
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    line = torch.arange(8, dtype=torch.float32)[:, None]
    found = prc_features_to_metric(
        line / 100,
        line * 10,
        prc_neighborhood=NEIGHBOURS,
        prc_batch_size=10,
        save_cpu_ram=False,
        verbose=False,
    )
    return found[KEY_METRIC_PRECISION] > found[KEY_METRIC_RECALL]


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)
