"""A low-rank Gaussian fitted to images by principal component analysis."""

import math

import torch
from torch import Tensor

from dualat.data.images import evenly

_MOST_FITTED = 10_000  # images per Gaussian
_FIT_ELEMENTS = 2**28  # numbers in memory while fitting, 2 GiB in double precision


def fit_gaussian(images: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Mean (D,) and factor (D, rank) of images, with factor factor^T the best approximation of their covariance.

    Principal components scaled by their standard deviations; columns beyond what the images allow (one less than
    their number, D at most) are zero. Deterministic: images are picked evenly where there are many, and the largest
    entry of each component is positive.

    Args:
        images: (N, ...), uint8, N >= 1.
    """
    size = images[0].numel()
    picked = images[evenly(len(images), min(_MOST_FITTED, max(2 * rank, _FIT_ELEMENTS // size)))]
    x = picked.flatten(1).to(torch.float64) / 255
    mean = x.mean(0)
    x = (x - mean) / math.sqrt(max(len(x) - 1, 1))
    possible = min(rank, len(x) - 1, size)
    factor = torch.zeros(size, rank, dtype=torch.float64)
    if possible > 0:
        if len(x) < size:  # the small Gram matrix has the same spectrum: x^T u = sqrt(lambda) v
            _, vectors = torch.linalg.eigh(x @ x.T)
            found = x.T @ vectors[:, -possible:].flip(1)
        else:
            values, vectors = torch.linalg.eigh(x.T @ x)
            found = vectors[:, -possible:].flip(1) * values[-possible:].flip(0).clamp_min(0).sqrt()
        largest = found.gather(0, found.abs().argmax(0, keepdim=True))
        factor[:, :possible] = found * torch.where(largest < 0, -1.0, 1.0)
    return mean.float(), factor.float()
