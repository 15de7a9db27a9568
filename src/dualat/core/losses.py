"""The losses of the method, one short function each, its equation on top.

L = w_ce * L_AT-CE + w_energy * L_BCE          (DAT, arXiv 2510.13872, eq. 9; both weights 1 by default)
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dualat.core.energy import marginal_energy


def energy_bce(real_logits: Tensor, contrastive_logits: Tensor) -> Tensor:
    """L_BCE = 1/2 mean BCEWithLogits(s(x_real), 1) + 1/2 mean BCEWithLogits(s(x_contrastive), 0).

    With B real and M contrastive images, dL/ds = -(1 - sigma(s)) / 2B on real and sigma(s) / 2M on contrastive
    ones: the gradient of an energy-based model, each term scaled by a factor that vanishes at extreme energies.
    For M = B this is the mean over all 2B values (DAT). logits: (B, K) and (M, K). Returns a scalar.
    """
    real, contrastive = -marginal_energy(real_logits), -marginal_energy(contrastive_logits)
    scores = torch.cat([real, contrastive])
    targets = torch.cat([torch.ones_like(real), torch.zeros_like(contrastive)])
    half = len(scores) / 2
    weights = torch.cat(
        [torch.full_like(real, half / len(real)), torch.full_like(contrastive, half / len(contrastive))]
    )
    return F.binary_cross_entropy_with_logits(scores, targets, weights)


def ebm_difference(real_logits: Tensor, sample_logits: Tensor) -> Tensor:
    """L_EBM = -( mean s(x_real) - mean s(x_sample) ): its gradient is that of -log p(x), estimated with samples of the
    model. (JEM, Grathwohl et al., 2020, eq. 5.) Unbounded below: what makes it diverge. logits: (B, K). A scalar.
    """
    return marginal_energy(real_logits).mean() - marginal_energy(sample_logits).mean()


def robust_cross_entropy(adversarial_logits: Tensor, labels: Tensor) -> Tensor:
    """L_AT-CE = CE( f(x_adv), y ) with x_adv found by PGD in the ball. logits: (B, K), labels: (B,). A scalar."""
    return F.cross_entropy(adversarial_logits.float(), labels)


def denoising(model: nn.Module, noisy: Tensor, noise: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """L_DSM = mean over pixels ( z + sigma grad_x s(x_sigma) )^2: 1 where s is flat, 0 where its gradient is the score.
    (Denoising score matching, Vincent 2011.) Returns the scalar, differentiable in the weights, and logits (N, K).

    noisy: x_sigma = x + sigma z, noise: z, both (N, C, H, W); sigma: (N, 1, 1, 1).
    """
    x = noisy.detach().requires_grad_(True)
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        logits = model(x)
        (score,) = torch.autograd.grad(-marginal_energy(logits).sum(), x, create_graph=True)
    return (noise + sigma * score.float()).square().mean(), logits


def gradient_penalty(model: nn.Module, real: Tensor) -> Tensor:
    """R1 = E[ 1/2 ||grad_x s(x)||^2 ] on real images (N, C, H, W): logged, not penalised, by default. A scalar.

    Differentiable in the weights where gradients are enabled (Mescheder et al., 2018).
    """
    differentiable = torch.is_grad_enabled()
    attention = (
        sdpa_kernel(SDPBackend.MATH) if differentiable else nullcontext()
    )  # fused, it has no second derivative
    with torch.enable_grad(), attention:
        x = real.detach().requires_grad_(True)
        score = -marginal_energy(model(x)).sum()
        (gradient,) = torch.autograd.grad(score, x, create_graph=differentiable)
    return 0.5 * gradient.flatten(1).square().sum(dim=1).mean()
