"""The theorem on a toy: at DAT's optimum, on the support of the data, softmax f(x) = p(y|x) and E(x) = 0."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import rings
import two_rings


@pytest.mark.slow
def test_softmax_is_the_posterior_and_energy_is_nearer_zero_on_the_support():
    _, figures = two_rings.train(seed=0, steps=600)
    assert figures["posterior MAE"] <= 0.05
    assert figures["|E| on"] < 0.5 and figures["|E| off"] > 4 * figures["|E| on"]
    assert figures["right"] > 0.95


def cells(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres of a grid over the unit square, and the grid's index of a point."""
    line = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    return torch.cartesian_prod(line, line), torch.tensor(1 / side**2)


def test_density_integrates_to_one():
    x, area = cells(400)
    assert (rings.density(x).sum(dim=0) * area).tolist() == pytest.approx([1, 1], abs=1e-3)


def test_density_is_the_integral_over_the_ring():
    x, _ = cells(15)
    angle = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000 * 2 * torch.pi
    direction = torch.stack([angle.cos(), angle.sin()], dim=1)
    for label in range(2):
        places = rings.CENTRES[label] + rings.RADIUS * direction
        squared = torch.cdist(x, places).square()
        kernel = torch.exp(-squared / (2 * rings.NOISE**2)) / (2 * torch.pi * rings.NOISE**2)
        assert torch.allclose(rings.density(x)[:, label], kernel.mean(dim=1), rtol=1e-3, atol=1e-6)


def test_posterior_sums_to_one_and_matches_counts():
    points, labels = rings.draw(1_000_000, torch.Generator().manual_seed(0))
    p = rings.posterior(points)
    assert torch.allclose(p.sum(dim=1), torch.ones(len(p)))
    cell = (points.flatten(1) * 40).long().clamp(max=39) @ torch.tensor([40, 1])
    count = torch.bincount(cell, minlength=1600)
    share = torch.bincount(cell, weights=labels.double(), minlength=1600) / count
    expected = torch.bincount(cell, weights=p[:, 1].double(), minlength=1600) / count
    full = count > 1000
    spread = (expected * (1 - expected) / count).sqrt()
    assert full.sum() > 100
    assert ((share - expected).abs() < 5 * spread + 0.002)[full].all()  # 0.002: where both are next to 0 or 1
