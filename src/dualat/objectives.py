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
