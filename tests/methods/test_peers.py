"""The peers' losses against their equations, with the images that they make held fixed, and their samplers."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualat.core.energy import marginal_energy
from dualat.core.losses import denoising, energy_bce, gradient_penalty
from dualat.core.objectives import uniform_kl
from dualat.methods.at_ebm import ATEBM
from dualat.methods.base import Batch, Method
from dualat.methods.jem import JEM
from dualat.methods.jempp import adjoint, first_layer
from dualat.methods.registry import build_method, method_settings
from dualat.methods.settings import DiffusionSettings
from dualat.models.batchnorm import batchnorm_modules
from dualat.models.normalize import Normalized
from dualat.models.wide_resnet import WideResNet

ATTACK = {"eps": 0.3, "steps": 3, "step_size": 0.2}
WEIGHTS = {"cross_entropy": 0.7, "energy": 1.3}
CHAIN = {"steps": 3, "buffer": 50}
INNER = {"jempp": {"inner_steps": 2}}


def made(name: str, **groups: dict[str, Any]) -> Method:
    """A method of the comparison with these settings, for batches of 6."""
    return build_method(method_settings({"name": name, **groups}), 6)


def of_family(name: str, **chain: Any) -> JEM:
    """One of JEM and its kin with a short chain."""
    attack = {"attack": ATTACK} if name in ("robust-jem", "eb-jdat") else {}
    method = made(name, chain={**CHAIN, **INNER.get(name, {}), **chain}, loss=WEIGHTS, **attack)
    assert isinstance(method, JEM)
    return method


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


@pytest.mark.parametrize("name", ["jem", "jempp", "sada-jem", "robust-jem"])
def test_the_jem_familys_loss(name):
    model, b, method = network(), batch(), of_family(name)
    images = method.generate(model, b)
    loss, figures = method.loss_on(model, b, images)
    gap = -(s(model, images["real"]).mean() - s(model, images["samples"]).mean())
    torch.testing.assert_close(loss, 1.3 * gap + 0.7 * ce(model, images["classified"]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(figures["loss_energy"], gap.detach(), rtol=1e-4, atol=1e-5)


def test_which_images_each_of_the_family_classifies():
    model, b = network(), batch()
    assert b.energy_images is not None
    for name in ("jem", "jempp"):
        images = of_family(name, steps=1, input_noise=0.0).generate(model, b)
        assert torch.equal(images["classified"], b.robust_images)
        assert torch.equal(images["real"], b.energy_images)
    noisy = of_family("jem").generate(model, b)
    assert (noisy["real"] - b.energy_images).std().item() == pytest.approx(0.015, rel=0.2)
    assert torch.equal(of_family("sada-jem").generate(model, b)["real"], b.energy_images)
    attacked = of_family("robust-jem").generate(model, b)["classified"]
    assert ce(model, attacked) > ce(model, b.robust_images)


@pytest.mark.parametrize("name", ["jem", "jempp"])
def test_samples_have_lower_energy_than_their_starts_and_chains_go_on(name):
    model, b = network(), batch()
    method = of_family(name, steps=5, step_size=20.0, noise=0.0, buffer=6, restart=0.0)
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
    moved = of_family("jempp", steps=1, inner_steps=1, step_size=0.01, noise=0.0).walk(model, x)
    torch.testing.assert_close(moved, (x + 0.01 * whole.clamp(-2, 2)).clamp(0, 1), rtol=1e-4, atol=1e-6)


def test_the_proximal_sampler_needs_a_convolution():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ValueError, match="convolution"):
        of_family("jempp").generate(model, batch())


def test_eb_jdat_is_its_equation():
    model, b = network(), batch()
    loss_of = {**WEIGHTS, "adversarial_energy": 0.4}
    method = made("eb-jdat", attack=ATTACK, chain=CHAIN, loss=loss_of)
    images = method.generate(model, b)
    loss, _ = method.loss_on(model, b, images)
    real, clean = s(model, images["real"]).mean(), s(model, images["classified"]).mean()
    expected = 0.7 * (ce(model, images["classified"]) + ce(model, images["raised"]))
    expected = expected - 1.3 * (real - s(model, images["samples"]).mean())
    expected = expected - 0.4 * (clean - s(model, images["raised"]).mean())
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    offset = (images["raised"] - b.robust_images).flatten(1).norm(dim=1)
    assert (offset <= 0.3 + 1e-5).all()
    assert s(model, images["raised"]).mean() < s(model, b.robust_images).mean()  # towards higher energy


def test_ratio_is_its_equation():
    model, b = network(), batch()
    method = made("ratio", attack=ATTACK, out={"eps": 0.5, "steps": 4, "step_size": 0.2}, loss=WEIGHTS)
    images = method.generate(model, b)
    loss, _ = method.loss_on(model, b, images)
    outside = model(images["out"])
    kl = F.kl_div(F.log_softmax(outside, 1), torch.full_like(outside, 1 / 3), reduction="batchmean")
    expected = 0.5 * (0.7 * ce(model, images["adversarial"]) + 1.3 * kl)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert b.starts is not None
    assert (uniform_kl(outside) >= uniform_kl(model(b.starts)) - 1e-6).all()  # the best iterate is kept
    assert ((images["out"] - b.starts).flatten(1).norm(dim=1) <= 0.5 + 1e-5).all()
    assert ce(model, images["adversarial"]) > ce(model, b.robust_images)


def test_ratio_normalises_both_its_batches_together():
    """Otherwise running statistics are those of a mixture that neither loss has seen, and clean images look unsure."""
    model, b = network(), batch()
    method = made("ratio", attack=ATTACK, out={"steps": 1}, loss=WEIGHTS)
    images = {"adversarial": b.robust_images, "out": 0.2 * b.robust_images}  # far apart in mean and variance
    together = torch.cat(list(images.values()))
    logits = copy.deepcopy(model).train()(together)
    ce_of, out = F.cross_entropy(logits[:6], b.robust_labels), uniform_kl(logits[6:]).mean()
    loss, _ = method.loss_on(model.train(), b, images)
    torch.testing.assert_close(loss, 0.5 * (0.7 * ce_of + 1.3 * out))
    layer = batchnorm_modules(model)[0]
    assert layer.num_batches_tracked == 1


@pytest.mark.parametrize(("loss_of", "gamma"), [({"r1": 0.2}, 0.2), ({}, 0.01), ({"r1": 0.0}, 0.0)])
def test_at_ebm_is_its_equation(loss_of, gamma):
    model, b = network(), batch()
    method = made("at-ebm", contrastive={"t_max": 4, "step_size": 0.2}, loss=loss_of)
    assert isinstance(method, ATEBM)
    method.curriculum.steps = 2
    images = method.generate(model, b)
    loss, figures = method.loss_on(model, b, images)
    bce = energy_bce(model(images["positive"]), model(images["contrastive"]))
    assert b.energy_images is not None and b.starts is not None
    penalty = gradient_penalty(model, images["positive"])
    torch.testing.assert_close(loss, bce + gamma * penalty, rtol=1e-4, atol=1e-5)
    assert s(model, images["contrastive"]).mean() > s(model, b.starts).mean()
    assert s(model, images["positive"]).mean() < s(model, b.energy_images).mean()
    torch.testing.assert_close(figures["loss_energy"], bce.detach(), rtol=1e-4, atol=1e-5)
    assert method.after_step()["T"] == 2


def test_egc_is_its_equation():
    model, b = network(), batch()
    levels = {"sigma_min": 0.1, "sigma_max": 0.4, "label_smoothing": 0.3}
    method = made("egc", diffusion=levels, loss=WEIGHTS)
    images = method.generate(model, b)
    torch.testing.assert_close(images["noisy"], b.robust_images + images["sigma"] * images["noise"])
    assert images["sigma"].shape == (6, 1, 1, 1)
    loss, figures = method.loss_on(model, b, images)
    energy, logits = denoising(model, images["noisy"], images["noise"], images["sigma"])
    smooth = 0.7 * F.one_hot(b.robust_labels, 3) + 0.3 / 3
    classified = -(smooth * F.log_softmax(logits, 1)).sum(1).mean()
    torch.testing.assert_close(loss, 0.7 * classified + 1.3 * energy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(figures["loss_energy"], energy.detach(), rtol=1e-4, atol=1e-5)


def test_egc_sees_all_levels_of_noise_alike():
    images = torch.zeros(2000, 1, 1, 1)
    method = made("egc", diffusion={"sigma_min": 0.01, "sigma_max": 1.0})
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
