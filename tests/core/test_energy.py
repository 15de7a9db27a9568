"""Energies: values by hand, the sign rule, and the model's methods."""

import math

import pytest
import torch
from torch import nn

from dualat.core.energy import JointEnergyModel, check_labels, joint_energy, marginal_energy

LOGITS = torch.tensor([[math.log(1.0), math.log(2.0), math.log(5.0)], [0.0, 0.0, 0.0]])


class Table(nn.Module):
    """Ignores the picture's content but for its first pixel, which picks a row of LOGITS."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return LOGITS[x.flatten(1)[:, 0].long()]


def test_joint_energy_is_minus_the_labels_logit():
    energy = joint_energy(LOGITS, torch.tensor([2, 0]))
    assert energy.tolist() == pytest.approx([-math.log(5), 0.0])


def test_marginal_energy_is_minus_logsumexp():
    assert marginal_energy(LOGITS).tolist() == pytest.approx([-math.log(8), -math.log(3)])


def test_posterior_is_the_ratio_of_the_two_energies():
    model, x = JointEnergyModel(Table()), torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    for y in range(3):
        ratio = torch.exp(model.energy(x) - model.energy(x, torch.full((2,), y)))
        torch.testing.assert_close(ratio, model.predict_proba(x)[:, y])
    torch.testing.assert_close(model.predict_proba(x)[0], torch.tensor([1.0, 2.0, 5.0]) / 8)
    assert torch.equal(model.logits(x), LOGITS) and torch.equal(model(x), LOGITS)


def test_energies_are_float32_and_do_not_overflow():
    logits = torch.tensor([[3e4, -3e4]], dtype=torch.float16)
    assert marginal_energy(logits).dtype == joint_energy(logits, torch.tensor([0])).dtype == torch.float32
    assert marginal_energy(logits).item() == pytest.approx(-3e4, rel=1e-3)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_labels_that_do_not_exist_are_named(wrong: int):
    with pytest.raises(ValueError, match=f"label {wrong} does not exist.*0 to 2"):
        JointEnergyModel(Table()).energy(torch.zeros(2, 1, 1, 1), torch.tensor([0, wrong]))
    assert torch.equal(check_labels(torch.tensor([0, 2]), 3), torch.tensor([0, 2]))


@pytest.mark.parametrize("count", [1, 3])
def test_labels_that_are_not_one_per_image_are_refused(count: int):
    with pytest.raises(ValueError, match="label"):
        JointEnergyModel(Table()).energy(torch.zeros(2, 1, 1, 1), torch.zeros(count, dtype=torch.long))
