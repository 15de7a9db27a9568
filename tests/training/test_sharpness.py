"""SAM: where the climb leads, that the step starts from the old weights, and that it lowers a sharp loss."""

import pytest
import torch
from torch import nn

from dualat.training.sharpness import climbed


def model(weights: list[float]) -> nn.Linear:
    linear = nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([weights]))
    return linear


def test_the_climb_is_its_equation_and_is_taken_back():
    linear = model([1.0, -2.0])
    w, g = linear.weight.detach().clone(), torch.tensor([[3.0, 0.5]])
    linear.weight.grad = g.clone()
    with climbed(linear, 0.5):
        expected = w + 0.5 * w.square() * g / (w.abs() * g).norm()
        torch.testing.assert_close(linear.weight.detach(), expected)
        assert linear.weight.grad is None
    assert torch.equal(linear.weight.detach(), w)


def test_the_weights_come_back_after_an_error_too():
    linear = model([1.0, -2.0])
    linear.weight.grad = torch.ones(1, 2)
    with pytest.raises(RuntimeError), climbed(linear, 0.5):
        raise RuntimeError
    assert torch.equal(linear.weight.detach(), torch.tensor([[1.0, -2.0]]))


def test_weights_without_gradient_stay():
    linear = nn.Linear(2, 1)
    linear.weight.grad = torch.ones(1, 2)
    bias = linear.bias.detach().clone()
    with climbed(linear, 1.0):
        assert torch.equal(linear.bias.detach(), bias)


def test_the_gradient_taken_at_the_top_is_the_steps():
    """f(w) = w^4 at w = 1, rho = 0.1: the climb goes to 1.1, where the gradient is 4 * 1.1^3."""
    linear = model([1.0])
    linear.weight.pow(4).sum().backward()
    with climbed(linear, 0.1):
        linear.weight.pow(4).sum().backward()
    assert linear.weight.grad is not None
    assert linear.weight.grad.item() == pytest.approx(4 * 1.1**3)


def test_running_statistics_stay_at_the_top():
    layers = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    x = torch.randn(8, 2)
    layers(x).square().sum().backward()
    before = {k: v.clone() for k, v in layers[1].state_dict().items() if k.startswith("running")}
    with climbed(layers, 1.0):
        layers(x)
    assert all(torch.equal(layers[1].state_dict()[k], v) for k, v in before.items())
    layers(x)
    assert not torch.equal(layers[1].state_dict()["running_mean"], before["running_mean"])
