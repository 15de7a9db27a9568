"""A low-rank Gaussian fitted to images by principal component analysis."""

import math

import torch
from torch import Tensor

from dualat.data.pictures import evenly

_MOST_FITTED = 10_000  # images per Gaussian
_FIT_ELEMENTS = 2**28  # numbers in memory while fitting, 2 GiB in double precision
_EXACT_UP_TO = 1024  # images or pixels, whichever is fewer
_OVERSAMPLING, _PASSES = 16, 6


def most_fitted(size: int, rank: int) -> int:
    """Images of `size` pixels that one Gaussian is fitted to, at most."""
    return min(_MOST_FITTED, max(2 * rank, _FIT_ELEMENTS // size))


def fit_gaussian(images: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Mean (D,) and factor (D, rank) of images, with factor factor^T the best approximation of their covariance.

    Principal components scaled by their standard deviations; columns beyond what the images allow (one less than
    their number, D at most) are zero. Deterministic: images are picked evenly where there are many, and the largest
    entry of each component is positive.

    Args:
        images: (N, ...), uint8, N >= 1.
    """
    size = images[0].numel()
    picked = images[evenly(len(images), most_fitted(size, rank))]
    x = picked.flatten(1).to(torch.float64) / 255
    mean = x.mean(0)
    x = (x - mean) / math.sqrt(max(len(x) - 1, 1))
    possible = min(rank, len(x) - 1, size)
    factor = torch.zeros(size, rank, dtype=torch.float64)
    if possible > 0:
        found = scaled_components(x, possible)
        largest = found.gather(0, found.abs().argmax(0, keepdim=True))
        factor[:, :possible] = found * torch.where(largest < 0, -1.0, 1.0)
    return mean.float(), factor.float()


def scaled_components(x: Tensor, rank: int) -> Tensor:
    """The `rank` leading right singular vectors of x (M, D), each times its singular value: (D, rank).

    Exact where M or D is small. Else by subspace iteration from a fixed random start (Halko, Martinsson, Tropp, SIAM
    Review 53, 2011, algorithm 4.4), which takes seconds where the full spectrum of colour images takes minutes.
    """
    fewer, width = min(x.shape), rank + _OVERSAMPLING
    if fewer > _EXACT_UP_TO and width <= fewer // 2:
        basis = torch.randn(x.shape[1], width, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        for _ in range(_PASSES):
            basis = torch.linalg.qr(x.T @ (x @ basis)).Q
        projected = x @ basis
        values, vectors = torch.linalg.eigh(projected.T @ projected)
        vectors = basis @ vectors
    elif len(x) < x.shape[1]:  # the smaller Gram matrix has the same spectrum: x^T u = s v
        _, left = torch.linalg.eigh(x @ x.T)
        return x.T @ left[:, -rank:].flip(1)
    else:
        values, vectors = torch.linalg.eigh(x.T @ x)
    return (vectors[:, -rank:] * values[-rank:].clamp_min(0).sqrt()).flip(1)
