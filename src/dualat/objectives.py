"""What a gradient loop climbs: functions of the logits (N, K) that give one value per image (N,).

Attacks, contrastive samples, sampling, counterfactuals and OOD attacks differ in these lines only.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from dualat.energy import joint_energy, marginal_energy

Objective = Callable[[Tensor], Tensor]
"""Maps logits (N, K) to the value (N,) that the loop raises."""


def lower_energy(labels: Tensor | None = None) -> Objective:
    """Climb -E(x, y) = f(x)[y] for given labels (N,), or -E(x) = s(x) without. (DAT, sec. 3; contrastive samples.)"""
    if labels is None:
        return lambda logits: -marginal_energy(logits)
    return lambda logits: -joint_energy(logits, labels)


def raise_cross_entropy(labels: Tensor) -> Objective:
    """Climb CE(f(x), y): the untargeted attack of adversarial training (Madry et al., 2018). labels: (N,)."""
    return lambda logits: F.cross_entropy(logits.float(), labels, reduction="none")


def target_class(labels: Tensor) -> Objective:
    """Climb log p(y|x) of a target class: a targeted attack. labels: (N,)."""
    return lambda logits: -F.cross_entropy(logits.float(), labels, reduction="none")


def raise_confidence() -> Objective:
    """Climb max_y log( p(y|x) / (1 - p(y|x)) ) = max_y f_y - logsumexp of the other logits. Needs two classes or more.

    The attack that makes an image look in-distribution to the maximum softmax score: it rises with that score, but
    unlike the score and its logarithm it does not saturate in float32, where confident images would have no gradient.
    """

    def log_odds(logits: Tensor) -> Tensor:
        top, index = logits.float().max(dim=1, keepdim=True)
        others = logits.float().scatter(1, index, float("-inf"))
        return top.squeeze(1) - others.logsumexp(dim=1)

    return log_odds
