"""Chains of the JEM family run compiled, and go where eager ones go."""

import copy
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from test_methods import made, toy
from torch import nn

from dualat.core.loop import GradientLoop
from dualat.core.objectives import lower_energy
from dualat.methods.jem import JEM
from dualat.methods.jempp import first_layer
from dualat.methods.registry import METHODS
from dualat.models.batchnorm import BatchStatistics, as_the_loss_sees_it, set_train_mode

FAMILY = [name for name in METHODS if isinstance(made(name), JEM)]


@pytest.fixture
def quick(monkeypatch):
    """Traced and run as a graph, without the minutes of a C++ compiler."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()


def network() -> nn.Module:
    """A layer of each kind, once: tracing more takes seconds."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = (nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.AdaptiveAvgPool2d(1))
        return nn.Sequential(*features, nn.Flatten(), nn.Linear(8, 2))


def of_twenty_steps(name: str) -> JEM:
    method = made(name)
    assert isinstance(method, JEM)
    method.chain = replace(method.chain, steps=20, noise=0.01)
    return method


def graphs(loop: GradientLoop) -> int:
    """Compiled steps of a loop and of its parts."""
    assert loop.compiled and loop.steps is not None
    return len(loop.steps.graphs) + sum(map(graphs, loop._parts.values()))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "batch-statistics"])
@pytest.mark.parametrize("name", FAMILY)
def test_twenty_steps_are_the_eager_ones(name, frozen):
    model, batch = network(), toy()
    set_train_mode(model, frozen)
    before, found = copy.deepcopy(model.state_dict()), []
    compiling = GradientLoop(model, compile=True, batch_size=len(batch.robust_images))
    for loop in (GradientLoop(model), compiling):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            found.append(of_twenty_steps(name).generate(loop, batch))
    for image, eager in found[0].items():
        torch.testing.assert_close(found[1][image], eager, rtol=0, atol=1e-4)
    assert (found[0]["samples"] - batch.starts).abs().max() > 1e-2
    assert graphs(compiling) == {"robust-jem": 2, "eb-jdat": 2}.get(name, 1)  # with an attack's
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.usefixtures("quick")
def test_batch_statistics_are_those_of_the_whole_batch_or_steps_are_eager():
    """A batch that is cut into parts, or filled up, would have others."""
    model, batch = network(), toy()
    set_train_mode(model, freeze_batchnorm=False)
    loop = as_the_loss_sees_it(GradientLoop(model, compile=True, batch_size=len(batch.robust_images)))
    for count in (10, 16):
        settings = {"steps": 3, "step_size": 0.1, "rule": "clipped"}
        x = batch.robust_images[:count]
        found = loop.climb(x, lower_energy(), **settings)
        eager = GradientLoop(BatchStatistics(model)).climb(x, lower_energy(), **settings)
        torch.testing.assert_close(found, eager, rtol=0, atol=1e-5)
        assert len(loop.steps.graphs) == (count == 16)


@pytest.mark.usefixtures("quick")
def test_compiled_chains_follow_the_weights():
    model, batch, method = network(), toy(), of_twenty_steps("sada-jem")
    set_train_mode(model, freeze_batchnorm=False)
    loop = as_the_loss_sees_it(GradientLoop(model, compile=True, batch_size=len(batch.robust_images)))
    torch.manual_seed(0)
    first = method.walk(loop, batch.starts)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3)
    torch.manual_seed(0)
    second = method.walk(loop, batch.starts)
    torch.manual_seed(0)
    eager = method.walk(as_the_loss_sees_it(model), batch.starts)
    torch.testing.assert_close(second, eager, rtol=0, atol=1e-4)
    assert (first - second).abs().max() > 1e-2


def test_the_real_compiler_gives_the_eager_chain_too():
    """Langevin's step without clipping, with noise and batch statistics."""
    model, batch, found, method = network().train(), toy(), [], of_twenty_steps("jem")
    compiling = GradientLoop(model, compile=True)
    for loop in (GradientLoop(model), compiling):
        torch.manual_seed(0)
        found.append(method.walk(as_the_loss_sees_it(loop), batch.starts))
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)
    assert graphs(compiling) == 1


def test_the_first_layer_is_a_part_made_once():
    loop = GradientLoop(network())
    assert loop.part("first layer", first_layer) is loop.part("first layer", first_layer)
