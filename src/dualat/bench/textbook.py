"""The loops as a textbook writes them: float32, eager, default memory layout, one pass after the other.

Nothing here is slow on purpose: gradients are asked of the input alone inside the loops, no pass is made twice, and
BatchNorm is in eval mode. It is what one writes first, and what public code for this method does.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sample(model: nn.Module, x: Tensor, labels: Tensor, steps: int, step_size: float) -> Tensor:
    """x <- clip_[0,1]( x + eta * g / ||g||_2 ),   g = grad_x f(x)[y]"""
    model.eval()
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        logits = model(x)
        (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), x)
        norm = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        x = (x + step_size * gradient / (norm + 1e-10)).clamp(0, 1)
    return x.detach()


def attack(
    model: nn.Module, clean: Tensor, labels: Tensor, eps: float, steps: int, step_size: float
) -> Tensor:
    """L2 PGD that maximises the cross-entropy in the ball of radius eps."""
    model.eval()
    x = clean
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels, reduction="sum"), x)
        norm = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        offset = x + step_size * gradient / (norm + 1e-10) - clean
        length = offset.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        x = (clean + offset * (eps / (length + 1e-10)).clamp(max=1)).clamp(0, 1)
    return x.detach()


class Trainer:
    """Stage 2: contrastive samples, adversarial images, both losses, SGD, average of the weights."""

    def __init__(self, model: nn.Module, steps: int, step_size: float, eps: float, attack_steps: int):
        self.model, self.average = model, copy.deepcopy(model)
        self.steps, self.step_size, self.eps, self.attack_steps = steps, step_size, eps, attack_steps
        self.optimizer = torch.optim.SGD(
            model.parameters(), 1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4
        )

    def step(
        self, images: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor, starts: Tensor
    ) -> float:
        """One step on a batch for each loss; returns the loss."""
        model = self.model
        contrastive = sample(model, starts, real_labels, self.steps, self.step_size)
        adversarial = attack(
            model, images, labels, self.eps, self.attack_steps, 2.5 * self.eps / self.attack_steps
        )
        ones, zeros = torch.ones(len(real), device=real.device), torch.zeros(len(real), device=real.device)
        loss_real = F.binary_cross_entropy_with_logits(model(real).logsumexp(1), ones)
        loss_contrastive = F.binary_cross_entropy_with_logits(model(contrastive).logsumexp(1), zeros)
        loss = F.cross_entropy(model(adversarial), labels) + (loss_real + loss_contrastive) / 2
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for averaged, own in zip(self.average.parameters(), self.model.parameters(), strict=True):
                averaged.mul_(0.999).add_(own, alpha=0.001)
        return loss.item()
