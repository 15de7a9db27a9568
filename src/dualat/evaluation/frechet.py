"""Frechet distance between two sets of features, as if both were Gaussian.

    d^2 = ||m_1 - m_2||^2 + tr( C_1 + C_2 - 2 (C_1 C_2)^(1/2) )

and with C_i = F_i F_i^T:   tr (C_1 C_2)^(1/2) = sum of the singular values of F_1^T F_2.

Source: Dowson and Landau, 1982; Heusel et al., 2017 (FID is this distance in Inception features; ours, in the features
of other networks, is never called FID).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dualat.evaluation.intervals import RESAMPLES, normal_interval, resampled_counts

_TOO_DEAR = 2e12  # floating-point operations of all resamples: about two minutes on one core


@dataclass(eq=False)
class Gaussian:
    """Mean (D,) and a factor F (D, r) of the covariance F F^T, float64."""

    mean: Tensor
    factor: Tensor

    @classmethod
    def of_features(cls, features: Tensor) -> "Gaussian":
        """Of features (N, D), N of 2 or more."""
        features = features.double()
        mean = features.mean(0)
        scaled = (features - mean) / (len(features) - 1) ** 0.5
        if len(features) <= features.shape[1]:
            return cls(mean, scaled.T)  # fewer images than features: no D x D matrix is needed
        return cls.of_statistics(mean, scaled.T @ scaled)

    @classmethod
    def of_statistics(cls, mean: Tensor, covariance: Tensor) -> "Gaussian":
        """Of mean (D,) and covariance (D, D), which rounding may have made slightly indefinite."""
        covariance = covariance.double()
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if failed:
            values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
            factor = vectors * values.clamp_min(0).sqrt()
        return cls(mean.double(), factor)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """d^2 between features a: (N, D) and b: (M, D), in float64."""
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"a Frechet distance needs two sets of at least 2 features of the same length, "
            f"not {tuple(a.shape)} and {tuple(b.shape)}."
        )
    return gaussian_distance(Gaussian.of_features(a), Gaussian.of_features(b))


def gaussian_distance(p: Gaussian, q: Gaussian) -> float:
    """d^2 between two Gaussians of the same dimension."""
    cross = torch.linalg.svdvals(p.factor.T @ q.factor).sum()
    traces = p.factor.square().sum() + q.factor.square().sum()
    return float((p.mean - q.mean).square().sum() + traces - 2 * cross)


def frechet_interval(
    value: float, features: Tensor, reference: Gaussian, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """95 % interval of the distance `value` of features (N, D) to the reference; None where it would take minutes."""
    n, smaller = len(features), min(features.shape[0], reference.factor.shape[1])
    if resamples * (n * reference.factor.shape[1] * smaller * 2 + 4 * smaller**3) > _TOO_DEAR:
        return None
    x = features.double()
    mean = x.mean(0)
    x = x - mean
    squares, rotated = x.square().sum(1), x @ reference.factor
    fixed = reference.factor.square().sum()
    draws = []
    for counts in resampled_counts(n, resamples, seed):
        shift = counts @ x / n
        trace = (counts @ squares - n * shift.square().sum()) / (n - 1)
        rows = counts > 0
        centred = rotated[rows] - shift @ reference.factor
        centred = centred * (counts[rows] / (n - 1)).sqrt()[:, None]
        wide = centred.shape[0] < centred.shape[1]
        gram = centred @ centred.T if wide else centred.T @ centred
        cross = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().sum()
        draws.append(float((mean + shift - reference.mean).square().sum() + trace + fixed - 2 * cross))
    return normal_interval(value, draws, lowest=0.0)
