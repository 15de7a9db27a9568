"""Inception Score: are samples each of a clear class, and all classes among them?

    IS = mean over 10 splits of exp( 1/n sum_i KL( p(y|x_i) || p(y) ) ),   p(y) = 1/n sum_i p(y|x_i)

Source: Salimans et al., 2016 (arXiv 1606.03498). p is the softmax of Inception's outputs without bias. Higher is better.
"""

import numpy as np
import torch
from torch import Tensor

from dualat.evaluation.intervals import RESAMPLES, normal_interval, resampled_counts

SPLITS = 10
SHUFFLE_SEED = 2020  # torch-fidelity's default: the same splits as its command line makes


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
