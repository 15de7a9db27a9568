"""Losses: values and gradients by their formulas, and no image that changes another's gradient."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualat.core.losses import denoising, ebm_difference, energy_bce, gradient_penalty, robust_cross_entropy

B, K = 4, 3


def logits(seed: int, count: int = B) -> Tensor:
    return 3 * torch.randn(count, K, generator=torch.Generator().manual_seed(seed)).double()


def gradients(real: Tensor, contrastive: Tensor) -> tuple[Tensor, Tensor]:
    real, contrastive = real.clone().requires_grad_(), contrastive.clone().requires_grad_()
    first, second = torch.autograd.grad(energy_bce(real, contrastive), (real, contrastive))
    return first, second


def test_energy_bce_by_hand():
    # One logit per image: s is that logit. -log sigma(s) on real, -log(1 - sigma(s)) on contrastive images.
    real, contrastive = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.0], [3.0]])
    terms = [math.log1p(math.exp(v)) for v in (-2.0, 1.0, 0.0, 3.0)]
    assert energy_bce(real, contrastive).item() == pytest.approx(sum(terms) / 4)


def test_energy_bce_of_fewer_contrastive_images_is_half_of_each_mean():
    real, contrastive = torch.tensor([[2.0], [-1.0], [0.5], [4.0]]), torch.tensor([[3.0], [-2.0]])
    terms = [math.log1p(math.exp(v)) for v in (-2.0, 1.0, -0.5, -4.0, 3.0, -2.0)]
    expected = sum(terms[:4]) / 8 + sum(terms[4:]) / 4
    assert energy_bce(real, contrastive).item() == pytest.approx(expected)
    on_real, on_contrastive = gradients(real, contrastive)
    torch.testing.assert_close(on_real, -(1 - torch.sigmoid(real)) / 8)
    torch.testing.assert_close(on_contrastive, torch.sigmoid(contrastive) / 4)


def test_energy_bce_of_as_many_is_bit_for_bit_the_mean_over_all():
    for count in (3, 7, 64):
        real, contrastive = logits(0, count).float(), logits(1, count).float()
        s = torch.cat([real.logsumexp(1), contrastive.logsumexp(1)])
        mean = F.binary_cross_entropy_with_logits(s, (torch.arange(2 * count) < count).float())
        assert torch.equal(energy_bce(real, contrastive), mean)


def test_ebm_difference_by_hand_and_its_direction():
    real, sample = torch.tensor([[2.0], [4.0]]), torch.tensor([[1.0], [-2.0]])
    assert ebm_difference(real, sample).item() == pytest.approx(-(3.0 - (-0.5)))
    real.requires_grad_(), sample.requires_grad_()
    on_real, on_sample = torch.autograd.grad(ebm_difference(real, sample), (real, sample))
    assert (on_real == -0.5).all() and (on_sample == 0.5).all()  # unscaled, where L_BCE's fades


def test_gradient_in_s_is_the_energy_based_models():
    # With one logit per image, the gradient in the logit is the gradient in s.
    real, contrastive = logits(0)[:, :1], logits(1)[:, :1]
    on_real, on_contrastive = gradients(real, contrastive)
    torch.testing.assert_close(on_real, -(1 - torch.sigmoid(real)) / (2 * B), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(on_contrastive, torch.sigmoid(contrastive) / (2 * B), rtol=1e-5, atol=1e-8)


def test_gradient_in_the_logits_is_that_times_the_posterior():
    real, contrastive = logits(0), logits(1)
    on_real, on_contrastive = gradients(real, contrastive)
    for found, values, sign in ((on_real, real, -1), (on_contrastive, contrastive, 1)):
        s = values.logsumexp(1, keepdim=True)
        expected = sign * torch.sigmoid(sign * s) / (2 * B) * values.softmax(1)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_energy_bce_is_finite_where_energies_are_extreme():
    far = torch.tensor([[1e4, 0.0]])
    assert energy_bce(-far.abs() - 1e4, far).isfinite()
    assert energy_bce(far, -far.abs() - 1e4).item() == 0


def test_descending_the_energy_loss_raises_real_scores_and_lowers_contrastive_ones():
    on_real, on_contrastive = gradients(logits(0), logits(1))
    assert (on_real < 0).all() and (on_contrastive > 0).all()


@pytest.mark.parametrize("i", range(B))
def test_no_image_changes_anothers_gradient(i):
    """Replace all other logits: image i's gradient stays. In a batch of one it differs by the factor B alone."""
    one = slice(i, i + 1)
    real, contrastive = gradients(logits(0), logits(1))
    for part in (real, contrastive):
        assert part[one].abs().sum() > 0
    others = logits(2), logits(3)
    others[0][i], others[1][i] = logits(0)[i], logits(1)[i]
    changed = gradients(*others)
    alone = gradients(logits(0)[one], logits(1)[one])
    for found, replaced, single in zip((real, contrastive), changed, alone, strict=True):
        torch.testing.assert_close(found[one], replaced[one])
        torch.testing.assert_close(found[one] * B, single)


def test_robust_cross_entropy_by_hand_and_its_gradient():
    values, labels = logits(0).requires_grad_(), torch.tensor([0, 1, 2, 0])
    loss = robust_cross_entropy(values, labels)
    posterior = values.detach().softmax(1)
    expected = -posterior.gather(1, labels[:, None]).log().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, values)
    onehot = nn.functional.one_hot(labels, K)
    # (p - onehot) / B row by row: no row depends on another.
    torch.testing.assert_close(gradient, (posterior - onehot) / B, rtol=1e-5, atol=1e-8)


class Linear(nn.Module):
    """s(x) = w.x, by one logit."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, 4.0]))

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) * self.weight).sum(1, keepdim=True)


class Quadratic(nn.Module):
    """s(x) = a |x|^2 / 2, so grad s = a x."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x.flatten(1).square().sum(1, keepdim=True) / 2


def test_gradient_penalty_of_a_linear_score_is_half_its_squared_norm():
    model, x = Linear(), torch.rand(5, 1, 1, 2)
    penalty = gradient_penalty(model, x)
    assert penalty.item() == pytest.approx(12.5)
    penalty.backward()
    torch.testing.assert_close(model.weight.grad, model.weight.detach())  # d/dw |w|^2 / 2 = w


def test_gradient_penalty_is_a_mean_over_images_and_differentiable():
    model = Quadratic()
    x = torch.tensor([[1.0, 0.0], [1.0, 2.0]]).view(2, 1, 1, 2)
    penalty = gradient_penalty(model, x)
    assert penalty.item() == pytest.approx(0.5 * 4 * (1 + 5) / 2)
    (gradient,) = torch.autograd.grad(penalty, model.a)
    assert gradient.item() == pytest.approx(2.0 * (1 + 5) / 2)
    each = [gradient_penalty(model, x[i : i + 1]).item() for i in range(2)]
    assert penalty.item() == pytest.approx(sum(each) / 2)


def test_gradient_penalty_as_a_figure_leaves_no_trace():
    model, x = Linear(), torch.rand(2, 1, 1, 2)
    with torch.no_grad():
        penalty = gradient_penalty(model, x)
        assert not torch.is_grad_enabled()
    assert penalty.item() == pytest.approx(12.5) and not penalty.requires_grad
    assert model.weight.grad is None and not x.requires_grad and x.grad is None


class PointMass(nn.Module):
    """One logit, log p_sigma(x) of data that is one image: scale * -||x - image||^2 / 2 sigma^2."""

    def __init__(self, image: Tensor, sigma: float, scale: float):
        super().__init__()
        self.image, self.sigma = image, sigma
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        distance = (x - self.image).flatten(1).square().sum(1, keepdim=True)
        return -self.scale * distance / (2 * self.sigma**2)


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.25)])
def test_denoising_is_zero_at_the_score_and_one_without(scale, expected):
    generator = torch.Generator().manual_seed(0)
    image, noise = (torch.randn(n, 2, 3, 3, generator=generator) for n in (1, 200))
    sigma = torch.full((200, 1, 1, 1), 0.3)
    model = PointMass(image, 0.3, scale)
    loss, found = denoising(model, image + sigma * noise, noise, sigma)
    unit = noise.square().mean().item()
    assert loss.item() == pytest.approx(expected * unit, abs=1e-5) and found.shape == (200, 1)
    (gradient,) = torch.autograd.grad(loss, model.scale)
    assert gradient.item() == pytest.approx(2 * (scale - 1) * unit, abs=1e-4)
