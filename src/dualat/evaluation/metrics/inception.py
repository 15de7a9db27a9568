"""FID, KID, Inception Score, precision and recall: fidelity.py in the features of torch-fidelity's Inception network.

    IS = mean over 10 splits of exp( 1/n sum_i KL( p(y|x_i) || p(y) ) ),   p(y) = 1/n sum_i p(y|x_i)

with p the softmax of the network's outputs without bias; higher is better. The values are those of torch-fidelity's command
line (for precision and recall with --feature-extractor inception-v3-compat: its default there is another network), and all
but these two are computed by its functions.

Source: Heusel et al., 2017; Salimans et al., 2016 (arXiv 1606.03498); Obukhov et al., torch-fidelity.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.features import InceptionFeatures, cached_features
from dualat.evaluation.fidelity import fidelity_records, interval_method, settings_of
from dualat.evaluation.inception_weights import find_inception_weights
from dualat.evaluation.intervals import RESAMPLES, normal_interval, resampled_counts
from dualat.evaluation.kernel import SUBSETS, subset_size
from dualat.evaluation.reference import Reference, Statistics
from dualat.evaluation.samples import ImageSet
from dualat.results.record import Record, timed, versions

SPLITS = 10
SHUFFLE_SEED = 2020  # torch-fidelity's default: the same splits and subsets as its command line makes


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
            record says "custom" and their SHA-256: such values compare with nothing else.
        seed: of the intervals.
        cache_folder: where features are kept; None: the cache folder of judges.
        resamples: of each interval; 0: none.

    Raises:
        FileNotFoundError, ValueError: no weights, other weights under the official name, or too few images.
    """
    extractor = InceptionFeatures(weights, device)
    records = fidelity_records(
        samples,
        reference,
        extractor,
        seed,
        cache_folder=cache_folder,
        resamples=resamples,
        frechet=("fid", frechet_inception_distance),
        kernel=("kid", kernel_inception_distance),
        published=True,
    )

    def score() -> Record:
        logits = extractor.logits(cached_features(extractor, samples, cache_folder))
        value = inception_score(logits)
        interval = score_interval(value, logits, seed, resamples)
        told = {"splits": splits(len(logits)), "interval": interval_method(interval, resamples)}
        settings = settings_of(samples, extractor) | told
        return Record("inception_score", value, len(logits), interval, settings, seed, split=reference.split)

    records.insert(1 if reference.images is None else 2, timed(score))
    from torch_fidelity import __version__ as torch_fidelity

    for record in records:
        record.versions = {**versions(), "torch-fidelity": torch_fidelity, "numpy": np.__version__}
    return records


def frechet_inception_distance(features: Tensor, against: Tensor | Statistics) -> float:
    """FID by torch-fidelity."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    own = fid_features_to_statistics(features)
    if isinstance(against, Tensor):
        other = fid_features_to_statistics(against)
    else:
        other = {"mu": against.mean.numpy(), "sigma": against.covariance.numpy()}
        own = {key: value.astype(np.float64) for key, value in own.items()}
    return fid_statistics_to_metric(own, other, False)[KEY_METRIC_FID]


def kernel_inception_distance(features: Tensor, real: Tensor, _: int) -> float:
    """KID by torch-fidelity, whose subsets have a seed of their own."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    sizes = {"kid_subsets": SUBSETS, "kid_subset_size": subset_size(len(features), len(real))}
    found = kid_features_to_metric(features, real, **sizes, rng_seed=SHUFFLE_SEED, verbose=False)
    return found[KEY_METRIC_KID_MEAN]


def splits(count: int) -> int:
    """10, or fewer where a split would have fewer than 2 samples."""
    return max(1, min(SPLITS, count // 2))


def inception_score(logits: Tensor) -> float:
    """Of outputs (N, 1008), by torch-fidelity."""
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    return isc_features_to_metric(logits, splits(len(logits)), True, SHUFFLE_SEED)[KEY_METRIC_ISC_MEAN]


def score_interval(
    value: float, logits: Tensor, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """95 % interval of the score `value`: within each split, its samples are resampled.

    1/n sum_i KL(p_i || q) = 1/n sum_i sum_y p_i log p_i + H(q) is linear in the samples but for the entropy H of q.
    """
    order = torch.from_numpy(np.random.RandomState(SHUFFLE_SEED).permutation(len(logits)))
    log_p = logits[order].double().log_softmax(1)
    p = log_p.exp()
    negative_entropy = (p * log_p).sum(1)
    parts, n = splits(len(logits)), len(logits)
    draws = torch.zeros(resamples, dtype=torch.float64)
    for i in range(parts):
        part = slice(i * n // parts, (i + 1) * n // parts)
        size = len(p[part])
        for j, counts in enumerate(resampled_counts(size, resamples, seed + i)):
            q = counts @ p[part] / size
            entropy = -torch.special.xlogy(q, q).sum()
            draws[j] += (counts @ negative_entropy[part] / size + entropy).exp() / parts
    return normal_interval(value, draws.tolist(), lowest=1.0)
