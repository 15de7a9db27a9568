"""The Frechet distance against SciPy's matrix square root, and against closed forms."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from dualat.evaluation.frechet import frechet_distance


def features(seed: int, count: int = 200, size: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, size, generator=generator, dtype=torch.float64)
    return noise @ mixing + torch.randn(size, generator=generator, dtype=torch.float64)


def reference(a: np.ndarray, b: np.ndarray) -> float:
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(sqrtm(first @ second))
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_scipy(seed):
    a, b = features(seed), features(seed + 10, count=150)
    assert frechet_distance(a, b) == pytest.approx(reference(a.numpy(), b.numpy()), rel=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_a_shift_costs_its_squared_length_and_nothing_costs_nothing():
    a = features(0)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 3) == pytest.approx(9 * 6, abs=1e-6)


def test_scaling_costs_the_difference_of_deviations():
    # C2 = 4 C1: tr(C1 + 4 C1 - 2 * 2 C1) = tr(C1).
    a = features(0)
    a = a - a.mean(0)
    assert frechet_distance(a, 2 * a) == pytest.approx(float(torch.cov(a.T).trace()), rel=1e-9)


def test_more_features_than_images():
    """Singular covariances: C of rank n - 1. Commuting ones have a closed form."""
    a = features(1, count=5, size=20)
    a = a - a.mean(0)
    assert frechet_distance(a, 3 * a) == pytest.approx(4 * float(torch.cov(a.T).trace()), rel=1e-6)


def test_one_feature():
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [5.0], [5.0]])  # deviations sqrt(2) and 0
    assert frechet_distance(a, b) == pytest.approx(16 + 2)


def test_float32_features_far_from_the_origin_lose_nothing():
    a, b = (features(seed).float() + 1e3 for seed in (0, 10))
    assert frechet_distance(a, b) == pytest.approx(
        reference(a.double().numpy(), b.double().numpy()), rel=1e-6
    )


@pytest.mark.parametrize(("a", "b"), [((1, 3), (5, 3)), ((5, 3), (5, 4))], ids=str)
def test_what_has_no_distance_is_refused(a, b):
    with pytest.raises(ValueError, match="Frechet"):
        frechet_distance(torch.rand(a), torch.rand(b))
