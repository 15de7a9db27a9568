"""Robust accuracy: the share of images still classified right after an attack in the ball.

    acc_eps = 1/N sum_i [ argmax f(x_adv,i) = y_i ],   x_adv = PGD maximising the cross-entropy, best iterate

Source: Madry et al., 2018. PGD alone is an upper bound of the true robust accuracy.
"""

from torch import nn

from dualat.data.in_distribution import ImageData
from dualat.evaluation.accuracy import correct
from dualat.evaluation.record import Record, proportion
from dualat.geometry import ThreatModel
from dualat.objectives import raise_cross_entropy
from dualat.pgd import pgd


def robust_accuracy(
    model: nn.Module, data: ImageData, threat: ThreatModel, steps: int, batch_size: int = 500
) -> Record:
    """Record `robust_accuracy` over all images of `data`, under PGD with steps of 2.5 * eps / steps."""
    device = next(model.parameters()).device
    hits = 0
    size = 2.5 * threat.eps / steps
    for first in range(0, len(data), batch_size):
        part = slice(first, first + batch_size)
        x, labels = data.float(part).to(device), data.labels[part]
        if threat.eps > 0:
            objective = raise_cross_entropy(labels.to(device))
            x = pgd(model, x, objective, threat, steps=steps, step_size=size, keep="best")
        hits += correct(model, x, labels)
    settings = {
        "attack": "pgd",
        "norm": threat.norm,
        "eps": threat.eps,
        "steps": steps,
        "step_size": size,
        "keep": "best",
        "random_start": False,
        "precision": "fp32",
    }
    return proportion("robust_accuracy", hits, len(data), settings=settings)
