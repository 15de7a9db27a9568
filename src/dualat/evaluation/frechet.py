"""Frechet distance between two sets of features, as if both were Gaussian.

    d^2 = ||m_1 - m_2||^2 + tr( C_1 + C_2 - 2 (C_1 C_2)^(1/2) )

Source: Dowson and Landau, 1982; Heusel et al., 2017 (FID is this distance in Inception features; ours, in a judge's
features, is never called FID).
"""

import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """d^2 between features a: (N, D) and b: (M, D), in float64. tr((C1 C2)^(1/2)) = tr((C1^1/2 C2 C1^1/2)^(1/2))."""
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"a Frechet distance needs two sets of at least 2 features of the same length, "
            f"not {tuple(a.shape)} and {tuple(b.shape)}."
        )
    a, b = a.double(), b.double()
    difference = a.mean(0) - b.mean(0)
    first, second = torch.atleast_2d(torch.cov(a.T)), torch.atleast_2d(torch.cov(b.T))
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    return float(difference.square().sum() + first.trace() + second.trace() - 2 * cross)
