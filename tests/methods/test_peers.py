"""The peers' losses against their equations, with the images that they make held fixed, and their samplers."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualat.core.energy import marginal_energy
from dualat.core.losses import denoising, energy_bce, gradient_penalty
from dualat.core.objectives import uniform_kl
from dualat.methods.at_ebm import ATEBM
from dualat.methods.base import Batch, batchnorm_modules
from dualat.methods.eb_jdat import EBJDAT
from dualat.methods.egc import EGC
from dualat.methods.jem import JEM
from dualat.methods.jempp import JEMPP, adjoint, first_layer
from dualat.methods.ratio import RATIO
from dualat.methods.robust_jem import RobustJEM
from dualat.methods.sada_jem import SADAJEM
from dualat.methods.settings import (
    AttackSettings,
    ChainSettings,
    ContrastiveSettings,
    DiffusionSettings,
    LossSettings,
    OutSettings,
    PositiveSettings,
    SharpnessSettings,
)
from dualat.models.normalize import Normalized
from dualat.models.wide_resnet import WideResNet

ATTACK = AttackSettings(eps=0.3, steps=3, step_size=0.2)
WEIGHTS = LossSettings(cross_entropy=0.7, energy=1.3, r1=0.2, adversarial_energy=0.4)
CHAIN = ChainSettings(steps=3, inner_steps=2, buffer=50)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Normalized(WideResNet(10, 1, 3, 1, "silu"), [0.4], [0.3]).eval()


def batch() -> Batch:
    g = torch.Generator().manual_seed(0)
    images = [torch.rand(6, 1, 8, 8, generator=g) for _ in range(3)]
    labels = torch.arange(6) % 3
    return Batch(images[0], labels, images[1], labels.flip(0), images[2])


def s(model: nn.Module, x: Tensor) -> Tensor:
    return -marginal_energy(model(x))


def ce(model: nn.Module, x: Tensor) -> Tensor:
    return F.cross_entropy(model(x), batch().robust_labels)


@pytest.mark.parametrize(
    "method",
    [
        JEM(CHAIN, WEIGHTS),
        JEMPP(CHAIN, WEIGHTS),
        SADAJEM(CHAIN, WEIGHTS, SharpnessSettings()),
        RobustJEM(ATTACK, CHAIN, WEIGHTS),
    ],
    ids=lambda m: m.name,
)
def test_the_jem_familys_loss(method):
    model, b = network(), batch()
    made = method.generate(model, b)
    loss, figures = method.loss_on(model, b, made)
    gap = -(s(model, made["real"]).mean() - s(model, made["samples"]).mean())
    torch.testing.assert_close(loss, 1.3 * gap + 0.7 * ce(model, made["classified"]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(figures["loss_energy"], gap.detach(), rtol=1e-4, atol=1e-5)


def test_which_images_each_of_the_family_classifies():
    model, b = network(), batch()
    assert b.energy_images is not None
    quiet = ChainSettings(steps=1, inner_steps=1, buffer=50, input_noise=0.0)
    for method in (JEM(quiet, WEIGHTS), JEMPP(quiet, WEIGHTS)):
        made = method.generate(model, b)
        assert torch.equal(made["classified"], b.robust_images) and torch.equal(made["real"], b.energy_images)
    noisy = JEM(CHAIN, WEIGHTS).generate(model, b)
    assert (noisy["real"] - b.energy_images).std().item() == pytest.approx(0.015, rel=0.2)
    assert torch.equal(
        SADAJEM(CHAIN, WEIGHTS, SharpnessSettings()).generate(model, b)["real"], b.energy_images
    )
    attacked = RobustJEM(ATTACK, CHAIN, WEIGHTS).generate(model, b)["classified"]
    assert ce(model, attacked) > ce(model, b.robust_images)


@pytest.mark.parametrize("make", [JEM, JEMPP])
def test_samples_have_lower_energy_than_their_starts_and_chains_go_on(make):
    model, b = network(), batch()
    chain = ChainSettings(steps=5, inner_steps=2, step_size=20.0, noise=0.0, buffer=6, restart=0.0)
    method = make(chain, WEIGHTS)
    first = method.generate(model, b)["samples"]
    assert b.starts is not None
    assert s(model, first).mean() > s(model, b.starts).mean()
    second = method.generate(model, b)["samples"]
    assert s(model, second).mean() > s(model, first).mean()  # goes on from the first, not from the starts


def test_the_proximal_sampler_moves_along_the_frozen_adjoint():
    model, x = network(), batch().robust_images
    first = first_layer(model)
    p = adjoint(model, first, x)
    assert p.shape == first(x).shape
    tracked = x.clone().requires_grad_()
    (through_first,) = torch.autograd.grad((first(tracked) * p).sum(), tracked)
    (whole,) = torch.autograd.grad(s(model, tracked).sum(), tracked)
    torch.testing.assert_close(through_first, whole, rtol=1e-4, atol=1e-6)  # the chain rule
    chain = ChainSettings(steps=1, inner_steps=1, step_size=0.01, noise=0.0)
    moved = JEMPP(chain, WEIGHTS).walk(model, x)
    torch.testing.assert_close(moved, (x + 0.01 * whole.clamp(-2, 2)).clamp(0, 1), rtol=1e-4, atol=1e-6)


def test_the_proximal_sampler_needs_a_convolution():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ValueError, match="convolution"):
        JEMPP(CHAIN, WEIGHTS).generate(model, batch())


def test_eb_jdat_is_its_equation():
    model, b = network(), batch()
    method = EBJDAT(ATTACK, CHAIN, WEIGHTS)
    made = method.generate(model, b)
    loss, _ = method.loss_on(model, b, made)
    real, clean = s(model, made["real"]).mean(), s(model, made["classified"]).mean()
    expected = 0.7 * (ce(model, made["classified"]) + ce(model, made["raised"]))
    expected = expected - 1.3 * (real - s(model, made["samples"]).mean())
    expected = expected - 0.4 * (clean - s(model, made["raised"]).mean())
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    offset = (made["raised"] - b.robust_images).flatten(1).norm(dim=1)
    assert (offset <= 0.3 + 1e-5).all()
    assert s(model, made["raised"]).mean() < s(model, b.robust_images).mean()  # towards higher energy


def test_ratio_is_its_equation():
    model, b = network(), batch()
    method = RATIO(ATTACK, OutSettings(eps=0.5, steps=4, step_size=0.2), WEIGHTS)
    made = method.generate(model, b)
    loss, _ = method.loss_on(model, b, made)
    outside = model(made["out"])
    kl = F.kl_div(F.log_softmax(outside, 1), torch.full_like(outside, 1 / 3), reduction="batchmean")
    expected = 0.5 * (0.7 * ce(model, made["adversarial"]) + 1.3 * kl)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert b.starts is not None
    assert (uniform_kl(outside) >= uniform_kl(model(b.starts)) - 1e-6).all()  # the best iterate is kept
    assert ((made["out"] - b.starts).flatten(1).norm(dim=1) <= 0.5 + 1e-5).all()
    assert ce(model, made["adversarial"]) > ce(model, b.robust_images)


def test_ratio_normalises_both_its_batches_together():
    """Otherwise running statistics are those of a mixture that neither loss has seen, and clean images look unsure."""
    model, b = network(), batch()
    method = RATIO(ATTACK, OutSettings(steps=1), WEIGHTS)
    made = {"adversarial": b.robust_images, "out": 0.2 * b.robust_images}  # far apart in mean and variance
    together = torch.cat(list(made.values()))
    logits = copy.deepcopy(model).train()(together)
    ce_of, out = F.cross_entropy(logits[:6], b.robust_labels), uniform_kl(logits[6:]).mean()
    loss, _ = method.loss_on(model.train(), b, made)
    torch.testing.assert_close(loss, 0.5 * (0.7 * ce_of + 1.3 * out))
    layer = batchnorm_modules(model)[0]
    assert layer.num_batches_tracked == 1


@pytest.mark.parametrize(("r1", "gamma"), [(0.2, 0.2), (None, 0.01), (0.0, 0.0)])
def test_at_ebm_is_its_equation(r1, gamma):
    model, b = network(), batch()
    contrastive = ContrastiveSettings(t_max=4, step_size=0.2)
    method = ATEBM(contrastive, PositiveSettings(), LossSettings(r1=r1), 6)
    method.curriculum.steps = 2
    made = method.generate(model, b)
    loss, figures = method.loss_on(model, b, made)
    bce = 2 * energy_bce(model(made["positive"]), model(made["contrastive"]))
    assert b.energy_images is not None and b.starts is not None
    penalty = gradient_penalty(model, b.energy_images)
    torch.testing.assert_close(loss, bce + gamma * penalty, rtol=1e-4, atol=1e-5)
    assert s(model, made["contrastive"]).mean() > s(model, b.starts).mean()
    assert s(model, made["positive"]).mean() < s(model, b.energy_images).mean()
    torch.testing.assert_close(figures["loss_energy"], bce.detach(), rtol=1e-4, atol=1e-5)
    assert method.after_step()["T"] == 2


def test_egc_is_its_equation():
    model, b = network(), batch()
    method = EGC(DiffusionSettings(sigma_min=0.1, sigma_max=0.4, label_smoothing=0.3), WEIGHTS)
    made = method.generate(model, b)
    torch.testing.assert_close(made["noisy"], b.robust_images + made["sigma"] * made["noise"])
    assert made["sigma"].shape == (6, 1, 1, 1)
    loss, figures = method.loss_on(model, b, made)
    energy, logits = denoising(model, made["noisy"], made["noise"], made["sigma"])
    smooth = 0.7 * F.one_hot(b.robust_labels, 3) + 0.3 / 3
    classified = -(smooth * F.log_softmax(logits, 1)).sum(1).mean()
    torch.testing.assert_close(loss, 0.7 * classified + 1.3 * energy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(figures["loss_energy"], energy.detach(), rtol=1e-4, atol=1e-5)


def test_egc_sees_all_levels_of_noise_alike():
    levels = DiffusionSettings(sigma_min=0.01, sigma_max=1.0)
    images = torch.zeros(2000, 1, 1, 1)
    method = EGC(levels, WEIGHTS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sigma = method.generate(network(), Batch(images, torch.zeros(2000, dtype=torch.long)))["sigma"]
    assert sigma.min() >= 0.01 and sigma.max() <= 1.0
    assert (sigma < 0.1).float().mean().item() == pytest.approx(0.5, abs=0.04)  # uniform in the logarithm


@pytest.mark.parametrize(
    "wrong", [{"sigma_min": 0.0}, {"sigma_min": 0.5}, {"sigma_max": float("inf")}, {"label_smoothing": 1.0}]
)
def test_levels_of_noise_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="diffusion"):
        DiffusionSettings(**wrong)
