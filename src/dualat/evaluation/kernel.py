"""Kernel distance: squared maximum mean discrepancy of two sets of features under a cubic kernel.

    k(x, y) = ( x.y / D + 1 )^3
    MMD^2 = 1/(n(n-1)) sum_{i != j} k(x_i, x_j) + 1/(n(n-1)) sum_{i != j} k(y_i, y_j) - 2/n^2 sum_{i, j} k(x_i, y_j)

averaged over random subsets of n images of each set. Unbiased: it may fall slightly below 0 for equal distributions.

Source: Binkowski et al., 2018 (arXiv 1801.01401), where it is KID in Inception features; in others it is never called so.
"""

import numpy as np
import torch
from torch import Tensor

from dualat.evaluation.intervals import RESAMPLES, normal_interval, resampled_counts

SUBSETS = 100
SUBSET_SIZE = 1000


def subset_size(*counts: int) -> int:
    """Images in one subset: 1000, or the smallest of the counts."""
    return min(SUBSET_SIZE, *counts)


def kernel_distance(a: Tensor, b: Tensor, seed: int = 0) -> float:
    """Mean MMD^2 over 100 subsets of features a: (N, D) and b: (M, D), in float64."""
    size = subset_size(len(a), len(b))
    if size < 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"a kernel distance needs two sets of at least 2 features of the same length, "
            f"not {tuple(a.shape)} and {tuple(b.shape)}."
        )
    a, b = a.double(), b.double()
    random = np.random.RandomState(seed % 2**32)
    total = 0.0
    for _ in range(SUBSETS):
        x = a[torch.from_numpy(random.choice(len(a), size, replace=False))]
        y = b[torch.from_numpy(random.choice(len(b), size, replace=False))]
        total += _mmd2(x, y)
        if size == len(a) == len(b):
            return total  # every subset would be all images
    return total / SUBSETS


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mmd2(x: Tensor, y: Tensor) -> float:
    n = len(x)
    among = [(k.sum() - k.diagonal().sum()) / (n * (n - 1)) for k in (_kernel(x, x), _kernel(y, y))]
    return float(among[0] + among[1] - 2 * _kernel(x, y).mean())


def kernel_interval(
    value: float, a: Tensor, b: Tensor, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """95 % interval of the distance `value` of features a to b.

    The samples of one subset are resampled, pairs of a sample with itself left out, and the standard error, which falls
    as 1/sqrt(n), is scaled to all N.
    """
    n = subset_size(len(a))
    generator = torch.Generator().manual_seed(seed)
    x = a[torch.randperm(len(a), generator=generator)[:n]].double()
    y = b[torch.randperm(len(b), generator=generator)[: subset_size(len(b))]].double()
    among, across = _kernel(x, x), _kernel(x, y).mean(1)
    itself = among.diagonal()
    draws = []
    for counts in resampled_counts(n, resamples, seed):
        squares = counts.square()
        if squares.sum() == n * n:
            continue  # one image alone: there are no pairs
        pairs = (counts @ among @ counts - squares @ itself) / (n * n - squares.sum())
        draws.append(float(pairs - 2 * (counts @ across) / n))
    return normal_interval(value, draws, scale=(n / len(a)) ** 0.5)
