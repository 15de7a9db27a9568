"""Chains lower the energy that the loss takes: that of train mode where BatchNorm is not frozen."""

import copy

import pytest
import torch
from test_methods import made, network, toy

from dualat.core.energy import marginal_energy
from dualat.core.loop import frozen
from dualat.methods.jem import JEM
from dualat.methods.registry import METHODS
from dualat.models.batchnorm import BatchStatistics, as_the_loss_sees_it, batchnorm_modules, set_train_mode


def test_logits_are_those_of_train_mode_and_nothing_is_learned():
    model, x = network(), toy().robust_images
    expected = copy.deepcopy(model).train()(x)
    view, before = BatchStatistics(model), copy.deepcopy(model.state_dict())
    with frozen(view):  # as the gradient loop does
        torch.testing.assert_close(view(x), expected)
        assert not any(layer.training for layer in batchnorm_modules(model))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(layer.track_running_stats for layer in batchnorm_modules(model))


def test_a_frozen_network_is_taken_as_it_is():
    model = network()
    set_train_mode(model, freeze_batchnorm=True)
    assert as_the_loss_sees_it(model).model is model
    set_train_mode(model, freeze_batchnorm=False)
    assert isinstance(as_the_loss_sees_it(model).model, BatchStatistics)


@pytest.mark.parametrize("name", [name for name in METHODS if isinstance(made(name), JEM)])
def test_chains_lower_the_energy_of_the_loss(name):
    model, batch, method = network(), toy(), made(name)
    set_train_mode(model, freeze_batchnorm=False)
    assert isinstance(method, JEM) and batch.starts is not None
    method.chain.noise = 0.0
    samples = {"before": batch.starts, "other": method.walk(model, batch.starts)}  # other: of eval mode
    samples["after"] = method.generate(model, batch)["samples"]
    with torch.no_grad():
        energy = {k: float(marginal_energy(copy.deepcopy(model)(x)).mean()) for k, x in samples.items()}
    assert energy["after"] < energy["other"] and energy["after"] < energy["before"]
