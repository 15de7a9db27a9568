"""Robust accuracy: the share of images for which no iterate of an attack in the ball fools the model.

    acc_eps = 1/N sum_i [ argmax f(x_t,i) = y_i for all t ],   x_t = iterates of PGD maximising the cross-entropy

Source: Madry et al., 2018. PGD alone is an upper bound of the true robust accuracy.
"""

import torch
from torch import Tensor, nn

from dualat.core.classifier import device_of, precision_of
from dualat.core.geometry import ThreatModel
from dualat.core.loop import pgd
from dualat.core.objectives import Objective, raise_cross_entropy
from dualat.data.in_distribution import ImageData
from dualat.results.record import Record, share_correct
from dualat.system.distributed import mine, summed


def robust_accuracy(
    model: nn.Module, data: ImageData, threat: ThreatModel, steps: int, batch_size: int = 500
) -> Record:
    """Record `robust_accuracy` over all images of `data`, under PGD with steps of 2.5 * eps / steps.

    The image itself is the first iterate, so that robust accuracy never exceeds clean accuracy.
    """
    device = device_of(model)
    size = 2.5 * threat.eps / steps if threat.eps else 1.0
    correct = torch.zeros(len(data), dtype=torch.int64)
    for first in mine(range(0, len(data), batch_size)):
        part = slice(first, first + batch_size)
        x, labels = data.float(part).to(device), data.labels[part].to(device)
        fooled = torch.zeros(len(labels), dtype=torch.bool, device=device)
        objective = watch(raise_cross_entropy(labels), labels, fooled)
        # keep="best" makes the loop judge its last iterate too
        pgd(model, x, objective, threat, steps=steps, step_size=size, keep="best")
        correct[part] = (~fooled).long().cpu()
    settings = {
        "attack": "pgd",
        "norm": threat.norm,
        "eps": threat.eps,
        "steps": steps,
        "step_size": size,
        "fooled_by": "any iterate",
        "random_start": False,
        "precision": precision_of(model),
    }
    return share_correct("robust_accuracy", summed(correct).numpy(), settings=settings)


def watch(objective: Objective, labels: Tensor, fooled: Tensor) -> Objective:
    """The objective, which also marks in `fooled` (N,) the images whose logits no longer favour their labels."""

    def watching(logits: Tensor) -> Tensor:
        fooled.logical_or_(logits.argmax(dim=1) != labels)
        return objective(logits)

    return watching
