"""The optimiser takes the fastest kernels that its weights allow, and its state goes from one kind to the other."""

import pytest
import torch
from torch import nn

from dualat.training import optimizer as module
from dualat.training.checkpoint import TrainingState, load_state, restore_optimizer, save_state
from dualat.training.ema import EMA
from dualat.training.optimizer import build_optimizer, kernels
from dualat.training.settings import OptimizerSettings

FUSED, FOREACH = {"fused": True}, {"foreach": True}
SETTINGS = {
    "sgd": OptimizerSettings(name="sgd", lr=0.1, weight_decay=0.01),
    "adamw": OptimizerSettings(name="adamw", lr=0.01, weight_decay=0.1),
}


class Weight:
    """What `kernels` asks of a weight."""

    def __init__(self, is_cuda: bool, floating: bool = True):
        self.is_cuda, self.floating = is_cuda, floating

    def is_floating_point(self) -> bool:
        return self.floating


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()


def test_fused_where_all_weights_are_floats_on_cuda():
    assert kernels([Weight(True), Weight(True)]) == FUSED  # type: ignore[list-item]
    assert kernels([Weight(True), Weight(False)]) == FOREACH  # type: ignore[list-item]
    assert kernels([Weight(True), Weight(True, floating=False)]) == FOREACH  # type: ignore[list-item]
    assert kernels(network().parameters()) == FOREACH


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("way", [FUSED, FOREACH])
def test_a_step_is_the_plain_one(name, way, monkeypatch):
    monkeypatch.setattr(module, "kernels", lambda weights: way)
    settings, ours, plain = SETTINGS[name], network(), network()
    mine = build_optimizer(ours, settings)
    if name == "sgd":
        other: torch.optim.Optimizer = torch.optim.SGD(
            plain.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=0.01, foreach=False
        )
    else:
        other = torch.optim.AdamW(
            plain.parameters(), 0.01, betas=(0.9, 0.95), weight_decay=0.1, foreach=False
        )
    for seed in range(5):
        step(ours, mine, seed)
        step(plain, other, seed)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("nesterov", "first"), [(True, 1.9), (False, 1.0)])
def test_momentum_with_and_without_nesterov(nesterov, first):
    """The first update is lr * g * (1 + momentum) with Nesterov, lr * g without; the second by hand."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    optimizer = build_optimizer(layer, OptimizerSettings(lr=0.1, weight_decay=0.0, nesterov=nesterov))
    places = []
    for _ in range(2):
        layer.weight.grad = torch.ones(1, 1)
        optimizer.step()
        places.append(layer.weight.item())
    second = 1 + 0.9 * 1.9 if nesterov else 1.9  # velocity after two equal gradients is 1.9
    assert places == pytest.approx([-0.1 * first, -0.1 * (first + second)])


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(("before", "after"), [(FUSED, FOREACH), (FOREACH, FUSED)])
def test_a_checkpoint_of_one_kind_goes_on_as_the_other(name, before, after, tmp_path, monkeypatch):
    """Fused runs on CPUs too, so that the way from a GPU's checkpoint to a CPU and back is a real one here."""
    ours, unbroken = network(), network()
    monkeypatch.setattr(module, "kernels", lambda weights: before)
    first, other = build_optimizer(ours, SETTINGS[name]), build_optimizer(unbroken, SETTINGS[name])
    for seed in range(3):
        step(ours, first, seed)
        step(unbroken, other, seed)
    save_state(tmp_path, TrainingState(1, 3, ours.state_dict(), {}, 0, first.state_dict(), {}))
    state = load_state(tmp_path)
    assert state is not None

    monkeypatch.setattr(module, "kernels", lambda weights: after)
    resumed = network()
    resumed.load_state_dict(state.model)
    second = build_optimizer(resumed, SETTINGS[name])
    restore_optimizer(second, state.optimizer)
    assert {k: bool(second.param_groups[0][k]) for k in ("fused", "foreach")} == {
        "fused": after is FUSED,
        "foreach": after is FOREACH,
    }
    for seed in range(3, 6):
        step(resumed, second, seed)
        step(unbroken, other, seed)
    for a, b in zip(resumed.parameters(), unbroken.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert resumed[0].weight.sub(network()[0].weight).abs().max() > 1e-3  # type: ignore[operator]


def channels_last_network() -> nn.Module:
    """Convolutions of several channels, whose weights lie in memory channels last, as run.model.new_model makes them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def image_step(model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA, seed: int) -> None:
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(x.contiguous(memory_format=torch.channels_last)).square().mean().backward()
    optimizer.step()
    ema.update(model)


@pytest.mark.parametrize("name", SETTINGS)
def test_fused_steps_of_channels_last_weights_go_on_bit_for_bit(name, tmp_path, monkeypatch):
    """Fused kernels walk through memory, so that state must lie as its weight does; the file holds it contiguous."""
    monkeypatch.setattr(module, "kernels", lambda weights: FUSED)
    whole, broken = channels_last_network(), channels_last_network()
    ways = {m: (build_optimizer(m, SETTINGS[name]), EMA(m, 0.9)) for m in (whole, broken)}
    for seed in range(3):
        for model, (optimizer, ema) in ways.items():
            image_step(model, optimizer, ema, seed)
    optimizer, ema = ways[broken]
    state = TrainingState(1, 3, broken.state_dict(), ema.average, ema.updates, optimizer.state_dict(), {})
    save_state(tmp_path, state)
    found = load_state(tmp_path)
    assert found is not None

    resumed = channels_last_network()
    resumed.load_state_dict(found.model)
    again, average = build_optimizer(resumed, SETTINGS[name]), EMA(resumed, 0.9)
    restore_optimizer(again, found.optimizer)
    average.restore(found.ema, found.ema_updates)
    for weight, slots in again.state.items():
        for slot in slots.values():
            assert slot.dim() == 0 or slot.stride() == weight.stride()
    strides = {key: value.stride() for key, value in resumed.state_dict().items()}
    assert {key: value.stride() for key, value in average.average.items()} == strides
    for seed in range(3, 6):
        image_step(whole, *ways[whole], seed)
        image_step(resumed, again, average, seed)
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    for key, value in ways[whole][1].average.items():
        assert torch.equal(value, average.average[key])
