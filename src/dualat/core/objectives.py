"""What a gradient loop climbs: functions of the logits (N, K) that give one value per image (N,).

Attacks, contrastive samples, sampling, counterfactuals and OOD attacks differ in these lines only.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dualat.core.energy import joint_energy, marginal_energy

Objective = Callable[[Tensor], Tensor]
"""Maps logits (N, K) to the value (N,) that the loop raises."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """An objective as a function of logits and of labels (N,), or of logits alone.

    Function and labels are kept apart, so that the compiled loop (compiled.py) is traced once for all labels. In place of
    labels any tensor will do that has one row per image (jempp.py).
    """

    function: Callable[..., Tensor]
    labels: Tensor | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        return self.function(logits) if self.labels is None else self.function(logits, self.labels)


def lower_energy(labels: Tensor | None = None) -> Objective:
    """Climb -E(x, y) = f(x)[y] for given labels (N,), or -E(x) = s(x) without. (DAT, sec. 3; contrastive samples.)"""
    return Labelled(_score) if labels is None else Labelled(_class_score, labels)


def raise_energy() -> Objective:
    """Climb E(x) = -s(x): the images that an energy-based model holds least likely. (EB-JDAT; AT-EBM's positives.)"""
    return Labelled(_energy)


def raise_uniform_kl() -> Objective:
    """Climb KL(uniform, softmax f(x)): the attack that makes an image confidently classified. (RATIO, eq. 5.)"""
    return Labelled(uniform_kl)


def raise_cross_entropy(labels: Tensor) -> Objective:
    """Climb CE(f(x), y): the untargeted attack of adversarial training (Madry et al., 2018). labels: (N,)."""
    return Labelled(_cross_entropy, labels)


def target_class(labels: Tensor) -> Objective:
    """Climb log p(y|x) of a target class: a targeted attack. labels: (N,)."""
    return Labelled(_log_likelihood, labels)


def uniform_kl(logits: Tensor) -> Tensor:
    """KL(uniform, softmax f(x)) = -log K - 1/K sum_k log p(k|x) of each image: (N, K) -> (N,), 0 where p is uniform."""
    return -F.log_softmax(logits.float(), dim=1).mean(dim=1) - math.log(logits.shape[1])


def _energy(logits: Tensor) -> Tensor:
    return marginal_energy(logits)


def _score(logits: Tensor) -> Tensor:
    return -marginal_energy(logits)


def _class_score(logits: Tensor, labels: Tensor) -> Tensor:
    return -joint_energy(logits, labels)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels.to(logits.device), reduction="none")


def _log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    return -_cross_entropy(logits, labels)


def _log_odds(logits: Tensor) -> Tensor:
    top, index = logits.float().max(dim=1, keepdim=True)
    others = logits.float().scatter(1, index, float("-inf"))
    return top.squeeze(1) - others.logsumexp(dim=1)


def raise_confidence() -> Objective:
    """Climb max_y log( p(y|x) / (1 - p(y|x)) ) = max_y f_y - logsumexp of the other logits. Needs two classes or more.

    The attack that makes an image look in-distribution to the maximum softmax score: it rises with that score, but
    unlike the score and its logarithm it does not saturate in float32, where confident images would have no gradient.
    """
    return Labelled(_log_odds)
