"""Counterfactuals: the closed form on a linear model, and a model and images left as they were found."""

import math

import pytest
import torch
from torch import Tensor, nn

import dualat
from dualat.core.geometry import ThreatModel, image_norm

SHAPE = (2, 3, 4)


def linear() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(24, 3))


def images(count: int = 4) -> Tensor:
    return 0.4 + 0.2 * torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("steps", [1, 10])
def test_on_a_linear_model_it_is_eps_along_the_targets_weights(steps):
    model, x, target = linear(), images(), torch.tensor([0, 1, 2, 1])
    weight = model[1].weight.detach()[target].view(x.shape)
    changed = dualat.counterfactual(model, x, target, ThreatModel("L2", 0.3), steps=steps)
    torch.testing.assert_close(changed, x + 0.3 * weight / image_norm(weight, "L2").view(-1, 1, 1, 1))
    changed = dualat.counterfactual(model, x, target, ThreatModel("Linf", 0.1), steps=steps)
    torch.testing.assert_close(changed, x + 0.1 * weight.sign())


def test_by_probability_it_is_eps_along_the_difference_of_two_classes_weights():
    """d log p(t) = p(o) (w_t - w_o), where f(x)[t] would climb along w_t."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(24, 2))
    x, target = images(), torch.tensor([0, 1, 1, 0])
    difference = (model[1].weight[target] - model[1].weight[1 - target]).detach().view(x.shape)
    changed = dualat.counterfactual(model, x, target, ThreatModel("L2", 0.3), steps=5, climb="probability")
    expected = x + 0.3 * difference / image_norm(difference, "L2").view(-1, 1, 1, 1)
    torch.testing.assert_close(changed, expected)
    with pytest.raises(ValueError, match="climb is 'odds', but must be 'energy' or 'probability'"):
        dualat.counterfactual(model, x, target, ThreatModel("L2", 0.3), climb="odds")  # type: ignore[arg-type]


def test_a_large_enough_ball_reaches_the_target():
    model, x = linear(), images()
    for target in range(3):
        changed = dualat.counterfactual(model, x, target, ThreatModel("L2", 3.0))
        assert (model(changed).argmax(1) == target).all()
        assert (image_norm(changed - x, "L2") <= 3.0 + 1e-5).all()


def test_one_target_means_all_images():
    model, x, threat = linear(), images(), ThreatModel("L2", 0.5)
    each = dualat.counterfactual(model, x, torch.tensor([1, 1, 1, 1]), threat)
    assert torch.equal(dualat.counterfactual(model, x, 1, threat), each)
    alone = dualat.counterfactual(model, x[2:3], 1, threat)
    torch.testing.assert_close(alone, each[2:3])


def test_step_size_is_taken():
    model, x = linear(), images()
    changed = dualat.counterfactual(model, x, 0, ThreatModel("L2", 1.0), steps=3, step_size=0.05)
    torch.testing.assert_close(image_norm(changed - x, "L2"), torch.full((4,), 0.15))


def test_a_model_in_train_mode_is_left_as_it_was_found():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(24), nn.Linear(24, 3)).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    changed = dualat.counterfactual(network, images(1), 2, ThreatModel("L2", 0.5), steps=2)
    assert network.training and network[1].training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    again = dualat.counterfactual(network.eval(), images(1), 2, ThreatModel("L2", 0.5), steps=2)
    assert torch.equal(changed, again)


@pytest.mark.parametrize("eps", [0.0, math.inf])
def test_a_ball_is_needed(eps):
    with pytest.raises(ValueError, match="eps"):
        dualat.counterfactual(linear(), images(), 0, ThreatModel("L2", eps))


@pytest.mark.parametrize("target", [3, -1])
def test_targets_that_do_not_exist_are_named(target):
    with pytest.raises(ValueError, match=f"label {target} does not exist"):
        dualat.counterfactual(linear(), images(), target, ThreatModel("L2", 1.0))


def test_targets_are_one_per_image():
    with pytest.raises(ValueError, match=r"target|label"):
        dualat.counterfactual(linear(), images(4), torch.tensor([0, 1]), ThreatModel("L2", 1.0))


def test_images_outside_0_1_and_models_that_are_not_finite_are_refused():
    """At eps 0.5 the result lay 1,132 from an image of 0 to 255: its start was clipped."""
    for x in (255 * images(), 2 * images() - 1, images() * math.nan, (255 * images()).to(torch.uint8)):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            dualat.counterfactual(linear(), x, 1, ThreatModel("L2", 0.5))
    model = linear()
    model[1].bias.data[2] = math.nan
    with pytest.raises(ValueError, match="logits of 1 of 1 images are not finite"):
        dualat.counterfactual(model, images(), 1, ThreatModel("L2", 0.5))
    assert len(dualat.counterfactual(linear(), images(0), 1, ThreatModel("L2", 0.5))) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_every_precision_and_with_more_outputs(dtype):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = linear().to(dtype)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.network(x)}

    x, target = images(), torch.tensor([0, 1, 2, 1])
    expected = dualat.counterfactual(linear(), x, target, ThreatModel("L2", 0.3), steps=5)
    found = dualat.counterfactual(Named(), x, target, ThreatModel("L2", 0.3), steps=5)
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=5e-3)
