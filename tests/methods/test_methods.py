"""One contract for all methods, and DAT's and adversarial training's losses against their equations."""

import copy
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dualat.core.energy import JointEnergyModel
from dualat.core.geometry import ThreatModel
from dualat.core.loop import pgd
from dualat.core.losses import energy_bce, gradient_penalty
from dualat.core.objectives import lower_energy, raise_cross_entropy
from dualat.methods.at_ebm import ATEBM
from dualat.methods.base import Batch, Method, forward
from dualat.methods.curriculum import auroc
from dualat.methods.dat import DAT
from dualat.methods.registry import METHODS as ROWS
from dualat.methods.registry import (
    ATEBMSettings,
    DATSettings,
    StandardATSettings,
    build_method,
    method_settings,
)
from dualat.methods.settings import (
    AttackSettings,
    ContrastiveSettings,
    CurriculumSettings,
    DualLossSettings,
    EnergyLossSettings,
    PositiveSettings,
)
from dualat.methods.standard_at import StandardAT
from dualat.models.batchnorm import batchnorm_modules, set_train_mode
from dualat.models.wide_resnet import WideResNet
from dualat.training.optimizer import build_optimizer
from dualat.training.settings import OptimizerSettings, StageSettings
from dualat.training.step import train_step

ATTACK = AttackSettings(eps=0.2, steps=2, step_size=0.1)
CONTRASTIVE = ContrastiveSettings(t_max=2, auc_threshold=0.6, window=32, step_size=0.2)
COUNT = 16

CHAIN = {"steps": 2, "buffer": 2 * COUNT}
UNBOUNDED = {"energy": 0.01}
"""At weight 1 the loss of JEM and its kin diverges on the toy, as it does elsewhere."""
AT = {"eps": 0.2, "steps": 2, "step_size": 0.1}
CURRICULUM = {"t_max": 2, "auc_threshold": 0.6, "window": 32, "step_size": 0.2}
SETTINGS: dict[str, dict[str, Any]] = {
    "dat": {"attack": AT, "contrastive": CURRICULUM},
    "standard-at": {"attack": AT},
    "jem": {"chain": CHAIN, "loss": UNBOUNDED},
    "jempp": {"chain": {**CHAIN, "inner_steps": 2}, "loss": UNBOUNDED},
    "sada-jem": {"chain": CHAIN, "loss": UNBOUNDED, "sharpness": {"rho": 0.2}},
    "robust-jem": {"attack": AT, "chain": CHAIN, "loss": UNBOUNDED},
    "at-ebm": {"contrastive": CURRICULUM, "positive": {"steps": 2}},
    "ratio": {"attack": AT, "out": {"steps": 2}},
    "eb-jdat": {"attack": AT, "chain": CHAIN, "loss": {**UNBOUNDED, "adversarial_energy": 0.001}},
    "egc": {"diffusion": {"label_smoothing": 0.05}},
}
"""Small ones of each method."""


def made(name: str) -> Method:
    """The method of this name, with small settings."""
    return build_method(method_settings({"name": name, **SETTINGS[name]}), COUNT)


def dat(**loss: float) -> DAT:
    """DAT with small settings and these weights of its loss."""
    groups = {"attack": ATTACK, "contrastive": CONTRASTIVE, "loss": DualLossSettings(**loss)}  # pyright: ignore[reportArgumentType]
    return DAT(DATSettings(**groups), COUNT)


@pytest.fixture(autouse=True)
def own_random_numbers():
    """Chains add noise: without this a test's numbers would depend on the tests before it. (And unbounded losses do diverge:
    EB-JDAT did on the toy with frozen BatchNorm for 1 of 90 seeds.)"""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(params=ROWS)
def method(request: pytest.FixtureRequest) -> Method:
    return made(request.param)


def network() -> JointEnergyModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return JointEnergyModel(WideResNet(10, 1, 2, 1, "silu"))


def toy(seed: int = 0) -> Batch:
    """Class 0 is bright on the left, class 1 on the right; contrastive samples start from noise."""
    generator = torch.Generator().manual_seed(seed)

    def images() -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(COUNT) % 2
        x = 0.2 * torch.rand(COUNT, 1, 8, 8, generator=generator)
        for i, label in enumerate(labels.tolist()):
            x[i, :, :, 4 * label : 4 * label + 4] += 0.7
        return x, labels

    starts = torch.rand(COUNT, 1, 8, 8, generator=generator)
    return Batch(*images(), *images(), starts)


def settings(method: Method, freeze: bool = False) -> StageSettings:
    optimizer = OptimizerSettings(lr=0.02, weight_decay=0.0)
    return StageSettings(method=method.settings, steps=1, freeze_batchnorm=freeze, optimizer=optimizer)


def train(
    model: JointEnergyModel, method: Method, steps: int, freeze: bool = False
) -> list[dict[str, float]]:
    stage = settings(method, freeze)
    optimizer = build_optimizer(model, stage.optimizer)
    batch = toy()
    return [
        train_step(model, method, batch, optimizer, stage.optimizer.lr, stage, torch.float32)
        for _ in range(steps)
    ]


def test_every_method_of_the_configuration_is_under_contract():
    assert set(SETTINGS) == set(ROWS)
    assert all(made(name).name == name for name in ROWS)


@pytest.mark.parametrize("freeze", [False, True])
def test_a_step_changes_every_weight_and_statistics_unless_frozen(method, freeze):
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train(model, method, 1, freeze)
    weights = {k for k, _ in model.named_parameters()}
    for key, value in model.state_dict().items():
        changed = not torch.equal(value, before[key])
        assert changed == (key in weights or not freeze), key
    assert not any(m.training for m in batchnorm_modules(model)) if freeze else model.training


def test_frozen_batchnorm_still_learns_scale_and_shift(method):
    model = network()
    before = {k: v.clone() for k, v in model.named_parameters()}
    train(model, method, 1, freeze=True)
    assert all(p.requires_grad for p in model.parameters())
    assert not torch.equal(model.network.bn1.weight, before["network.bn1.weight"])


@pytest.mark.parametrize("freeze", [False, True])
def test_the_loss_falls_on_a_toy(method, freeze):
    model = network()
    with torch.no_grad():  # statistics of real images, as after a first stage
        for _ in range(30):
            model(toy(1).robust_images)
    figures = train(model, method, 30, freeze)
    if "loss_ce" in figures[0]:
        losses = [f["loss_ce"] for f in figures]
        assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    if "auroc" in figures[0]:  # a bounded energy loss
        energies = [f["loss_energy"] for f in figures]
        assert sum(energies[-5:]) < sum(energies[:5])


def test_the_figures_are_plain_and_the_loss_reaches_all_weights(method):
    model = network()
    set_train_mode(model, False)
    loss, figures = method.loss(model, toy())
    assert loss.shape == () and loss.isfinite()
    assert {"loss_ce", "loss_energy"} & set(figures)
    assert all(isinstance(v, (int, float)) or not v.requires_grad for v in figures.values())
    loss.backward()
    missing = [k for k, p in model.named_parameters() if p.grad is None]
    assert not missing


def test_the_batch_is_left_as_it_was(method):
    model, batch = network(), toy()
    kept = copy.deepcopy(batch)
    method.loss(model, batch)
    for name in ("robust_images", "robust_labels", "energy_images", "energy_labels", "starts"):
        assert torch.equal(getattr(batch, name), getattr(kept, name))
        assert not getattr(batch, name).requires_grad


def test_a_restored_method_goes_on_alike(method):
    model = network()
    train(model, method, 7)  # somewhere inside a window of the curriculum
    state = json.loads(json.dumps(method.state()))
    other = made(method.name)
    other.restore(state, {k: v.clone() for k, v in method.tensors().items()})
    assert other.state() == method.state()
    twin = copy.deepcopy(model)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        gone_on = train(model, method, 6)
        torch.manual_seed(1)
        assert train(twin, other, 6) == gone_on
    assert other.state() == method.state()
    assert all(torch.equal(v, twin.state_dict()[k]) for k, v in model.state_dict().items())


def test_methods_without_an_energy_loss_need_no_energy_batch(method):
    batch = toy()
    bare = Batch(batch.robust_images, batch.robust_labels)
    if method.needs_energy_batch:
        with pytest.raises(AssertionError):
            method.loss(network(), bare)
    else:
        losses = []
        for given in (bare, batch):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                losses.append(method.loss(network().eval(), given)[0])
        assert losses[0] == losses[1]


def test_a_batch_in_parts_gives_the_gradient_of_the_whole():
    """Frozen BatchNorm: images do not influence each other, and the mean of the parts' gradients is the whole's."""
    gradients = []
    for parts in (1, 4):
        model, method = network(), made("dat")
        stage = StageSettings(method=method.settings, steps=1, freeze_batchnorm=True, accumulate=parts)
        optimizer = build_optimizer(model, OptimizerSettings(lr=1e-9, weight_decay=0.0))
        figures = train_step(model, method, toy(), optimizer, 1e-9, stage, torch.float32)
        gradients.append([p.grad.clone() for p in model.parameters()])
        assert figures["T"] == 0 and 0 <= figures["auroc"] <= 1
    for whole, pieces in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, pieces, rtol=1e-3, atol=1e-6)


def test_the_curriculum_sees_all_parts_of_a_batch_as_one():
    found = []
    for parts in (1, 4):
        method = made("dat")
        stage = StageSettings(method=method.settings, steps=1, freeze_batchnorm=True, accumulate=parts)
        model = network()
        optimizer = build_optimizer(model, OptimizerSettings(lr=1e-9))
        for _ in range(3):
            figures = train_step(model, method, toy(), optimizer, 1e-9, stage, torch.float32)
        found.append((figures["auroc"], method.state()))
    assert found[0] == found[1]


def adversarial(model: nn.Module, batch: Batch) -> torch.Tensor:
    return pgd(
        model,
        batch.robust_images,
        raise_cross_entropy(batch.robust_labels),
        ThreatModel(ATTACK.norm, ATTACK.eps),
        steps=ATTACK.steps,
        step_size=ATTACK.step_size,
    )


def test_adversarial_training_is_the_cross_entropy_of_attacked_images():
    model, batch = network().eval(), toy()
    loss, _ = StandardAT(StandardATSettings(attack=ATTACK), COUNT).loss(model, batch)
    expected = F.cross_entropy(model(adversarial(model, batch)), batch.robust_labels)
    torch.testing.assert_close(loss, expected)
    assert loss > F.cross_entropy(model(batch.robust_images), batch.robust_labels)  # the attack attacks


@pytest.mark.parametrize("energy", ["joint", "marginal"])
@pytest.mark.parametrize("steps", [0, 2])
def test_dat_is_its_equation(energy, steps):
    model, batch = network().eval(), toy()
    weights = DualLossSettings(cross_entropy=0.7, energy=1.3, r1=0.2)
    contrastive = ContrastiveSettings(t_max=4, window=1000, step_size=0.2, energy=energy)  # pyright: ignore[reportArgumentType]
    method = DAT(DATSettings(attack=ATTACK, contrastive=contrastive, loss=weights), COUNT)
    method.curriculum.steps = steps
    loss, figures = method.loss(model, batch)
    objective = lower_energy(batch.energy_labels if energy == "joint" else None)
    samples = pgd(model, batch.starts, objective, steps=steps, step_size=0.2)
    ce = F.cross_entropy(model(adversarial(model, batch)), batch.robust_labels)
    bce = energy_bce(model(batch.energy_images), model(samples))
    expected = 0.7 * ce + 1.3 * bce + 0.2 * gradient_penalty(model, batch.energy_images)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert method.after_step()["T"] == steps
    torch.testing.assert_close(figures["loss_ce"], ce.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(figures["loss_energy"], bce.detach(), rtol=1e-4, atol=1e-5)


def test_dat_with_half_the_samples_and_steps_twice_as_long_is_its_equation():
    model, batch = network().eval(), toy()
    contrastive = ContrastiveSettings(t_max=5, window=1000, step_size=0.2, ratio=0.5, stride=2)
    method = DAT(DATSettings(attack=ATTACK, contrastive=contrastive), COUNT)
    assert method.curriculum.t_max == 3 and method.loop_sizes(COUNT) == (COUNT, COUNT // 2)
    method.curriculum.steps = 2
    loss, figures = method.loss(model, batch)
    half = COUNT // 2
    labels = batch.energy_labels[:half]
    samples = pgd(model, batch.starts[:half], lower_energy(labels), steps=2, step_size=0.4)
    bce = energy_bce(model(batch.energy_images), model(samples))
    torch.testing.assert_close(figures["loss_energy"], bce.detach(), rtol=1e-4, atol=1e-5)
    expected = F.cross_entropy(model(adversarial(model, batch)), batch.robust_labels) + bce
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    real, drawn = model(batch.energy_images), model(samples)
    scores = real[torch.arange(COUNT), batch.energy_labels], drawn[torch.arange(half), labels]
    assert method.after_step() == {"auroc": pytest.approx(auroc(*scores).item()), "T": 2}


@pytest.mark.parametrize(
    ("given", "message"),
    [({"ratio": 0.0}, "contrastive.ratio is 0"), ({"ratio": 1.5}, "ratio is 1.5, but .* at most 1")]
    + [({"stride": 0}, "stride is 0"), ({"stride": 51}, "stride is 51, but must be 1 to .* which is 50")],
)
def test_a_pace_that_cannot_be_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveSettings(**given)


def test_no_gradient_runs_through_the_loops():
    """The loss's gradient is that of fixed adversarial and contrastive images."""
    model, batch = network().eval(), toy()
    method = dat()
    method.curriculum.steps = 2
    weights = list(model.parameters())
    found = torch.autograd.grad(method.loss(model, batch)[0], weights)
    samples = pgd(model, batch.starts, lower_energy(batch.energy_labels), steps=2, step_size=0.2)
    fixed = F.cross_entropy(model(adversarial(model, batch)), batch.robust_labels)
    fixed = fixed + energy_bce(model(batch.energy_images), model(samples))
    for one, other in zip(found, torch.autograd.grad(fixed, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_dats_auroc_is_high_where_real_images_have_the_higher_logit():
    model = network().eval()
    batch = toy()

    class Bright(nn.Module):  # f(x)[y] = brightness for both classes
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            return self.scale * x.flatten(1).mean(1, keepdim=True).expand(-1, 2)

    for real, start, expected in ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.5, 0.5, 0.5)):
        batch.energy_images = torch.full_like(batch.energy_images, real)
        batch.starts = torch.full_like(batch.starts, start)
        method = dat()
        method.loss(Bright(), batch)
        assert method.after_step()["auroc"] == expected
    assert not model.training


def test_dat_warns_when_contrastive_samples_never_come_near():
    method = dat()
    assert method.warning() is None
    method.restore({"curriculum": {"steps": 2, "window": [1.0, 1.0]}}, {})
    assert "T_max = 2" in method.warning()
    method.restore({"curriculum": {"steps": 1, "window": [1.0, 1.0]}}, {})
    assert method.warning() is None
    assert made("standard-at").warning() is None


class FirstPixels(nn.Module):
    """Logits are the first two pixels: which image is more like a class is known."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :2] + 0 * self.unused


@pytest.mark.parametrize("bright", [True, False])
def test_auroc_of_dat_compares_each_image_under_its_own_label(bright):
    """Real images have 0.9 at their own class's pixel and 0 at the other's (or the reverse); contrastive ones 0.5 at both."""
    labels = torch.arange(COUNT) % 3 % 2  # not their own reverse
    real = torch.zeros(COUNT, 1, 2, 2)
    real[torch.arange(COUNT), 0, 0, labels if bright else 1 - labels] = 0.9
    batch = Batch(real, labels, real, labels, torch.full((COUNT, 1, 2, 2), 0.5))
    method = dat(cross_entropy=0.0)
    method.loss(FirstPixels(), batch)
    assert method.after_step() == {"auroc": float(bright), "T": 0}


@pytest.mark.parametrize("bright", [True, False])
def test_auroc_of_at_ebm_compares_images_with_contrastive_ones(bright):
    batch = toy()
    batch.energy_images = torch.full((COUNT, 1, 2, 2), 0.9 if bright else 0.1)
    batch.starts = torch.full((COUNT, 1, 2, 2), 0.5)
    groups = ATEBMSettings(
        contrastive=CurriculumSettings(t_max=2, window=32),
        positive=PositiveSettings(steps=1),
        loss=EnergyLossSettings(r1=0.0),
    )
    at_ebm = ATEBM(groups, COUNT)
    at_ebm.loss(FirstPixels(), batch)
    assert at_ebm.after_step() == {"auroc": float(bright), "T": 0}


def test_at_ebm_without_its_only_loss_is_refused():
    with pytest.raises(ValueError, match=r"loss.energy is 0, but the method has no other loss"):
        method_settings({"name": "at-ebm", "loss": {"energy": 0.0}})


def test_batches_are_normalised_apart_in_train_mode_and_go_together_in_eval_mode():
    model, calls = network(), []
    model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    one, other = toy(1).robust_images, 0.2 * toy(2).robust_images[:5]
    apart = [model.train()(one).detach(), model(other).detach()]
    calls.clear()
    for found, expected in zip(forward(model, [one, other]), apart, strict=True):
        torch.testing.assert_close(found, expected)
    assert calls == [COUNT, 5]
    calls.clear()
    apart = [model.eval()(one).detach(), model(other).detach()]
    calls.clear()
    for found, expected in zip(forward(model, [one, other]), apart, strict=True):
        torch.testing.assert_close(found, expected)
    assert calls == [COUNT + 5]


def test_sam_takes_its_second_gradient_on_the_same_samples(monkeypatch):
    drawn, seen = [], []
    method = made("sada-jem")
    generate, loss_on = method.generate, method.loss_on
    monkeypatch.setattr(method, "generate", lambda *of: drawn.append(generate(*of)) or drawn[-1])
    monkeypatch.setattr(method, "loss_on", lambda m, b, images: seen.append(images) or loss_on(m, b, images))
    train(network(), method, 1)
    assert len(drawn) == 1 and [images is drawn[0] for images in seen] == [True, True]
