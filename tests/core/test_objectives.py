"""Objectives: values by hand, and that each is raised, not lowered, by what its name says."""

import math

import pytest
import torch

from dualat.core.objectives import (
    lower_energy,
    raise_cross_entropy,
    raise_energy,
    raise_uniform_kl,
    target_class,
)

LOGITS = torch.tensor([[math.log(1.0), math.log(2.0), math.log(5.0)], [0.0, 0.0, 0.0]])
LABELS = torch.tensor([1, 2])


def test_lower_energy_is_the_logit_or_logsumexp():
    assert lower_energy(LABELS)(LOGITS).tolist() == pytest.approx([math.log(2), 0.0])
    assert lower_energy()(LOGITS).tolist() == pytest.approx([math.log(8), math.log(3)])


def test_cross_entropy_and_target_class_are_opposites():
    expected = [-math.log(2 / 8), -math.log(1 / 3)]
    assert raise_cross_entropy(LABELS)(LOGITS).tolist() == pytest.approx(expected)
    assert target_class(LABELS)(LOGITS).tolist() == pytest.approx([-v for v in expected])


@pytest.mark.parametrize(
    ("objective", "sign"), [(lower_energy, 1), (raise_cross_entropy, -1), (target_class, 1)]
)
def test_direction_of_the_labels_logit(objective, sign):
    logits = LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(LABELS)(logits).sum(), logits)
    assert (gradient.gather(1, LABELS[:, None]) * sign > 0).all()


def test_raise_energy_is_the_opposite_of_lower_energy():
    assert torch.equal(raise_energy()(LOGITS), -lower_energy()(LOGITS))


def test_uniform_kl_is_0_where_the_posterior_is_uniform():
    first = sum(math.log((1 / 3) / p) for p in (1 / 8, 2 / 8, 5 / 8)) / 3
    assert raise_uniform_kl()(LOGITS).tolist() == pytest.approx([first, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lower_energy,
        raise_cross_entropy,
        target_class,
        lambda _: lower_energy(),
        lambda _: raise_energy(),
        lambda _: raise_uniform_kl(),
    ],
)
def test_one_value_per_image_that_no_other_image_changes(make):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.arange(6) % 3
    values = make(labels)(logits)
    assert values.shape == (6,)
    for i in range(6):
        (gradient,) = torch.autograd.grad(values[i], logits, retain_graph=True)
        assert gradient[i].abs().sum() > 0
        assert gradient[[j for j in range(6) if j != i]].abs().sum() == 0
        torch.testing.assert_close(make(labels[i : i + 1])(logits[i : i + 1])[0], values[i])
