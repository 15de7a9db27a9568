"""A classifier is an energy-based model. The sign rule of the whole library stands here, once.

A classifier with logits f(x) in R^K defines

    joint energy      E(x, y) = -f(x)[y]
    marginal energy   E(x)    = -logsumexp_y f(x)[y]  =  -s(x)
    posterior         p(y|x)  = exp(-E(x, y)) / exp(-E(x)) = softmax f(x)[y]

Low energy means "looks like data". Source: Grathwohl et al., JEM (ICLR 2020), eq. 4-6; DAT (arXiv 2510.13872), sec. 2.
"""

import torch
from torch import Tensor, nn

from dualat.core.classifier import check_images, check_logits, logits_of, take_logits


def joint_energy(logits: Tensor, labels: Tensor) -> Tensor:
    """E(x, y) = -f(x)[y]. logits: (N, K), labels: (N,) integers in [0, K). Returns (N,), float32."""
    if labels.shape != logits.shape[:1]:
        raise ValueError(
            f"labels must be one per image, {len(logits)} in all, but have shape {tuple(labels.shape)}."
        )
    return -logits.float().gather(1, labels.to(logits.device)[:, None]).squeeze(1)


def marginal_energy(logits: Tensor) -> Tensor:
    """E(x) = -logsumexp_y f(x)[y]. logits: (N, K). Returns (N,), float32."""
    return -logits.float().logsumexp(dim=1)


class JointEnergyModel(nn.Module):
    """Any classifier, read as an energy-based model over images and labels.

    `logits`, `energy` and `predict_proba` take images in the network's own precision or another, and raise ValueError for
    images that are not floating-point (N, C, H, W) in [0, 1] and for logits that are not finite. A call of the model itself
    checks nothing.

    Args:
        network: maps images (N, C, H, W) in [0, 1] to logits (N, K), or to what `take_logits` finds them in;
            normalisation of inputs is part of it.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images x: (N, C, H, W) in [0, 1]; unchecked, as training needs it."""
        return take_logits(self.network(x))

    def logits(self, x: Tensor) -> Tensor:
        """Logits f(x): (N, K) of images x: (N, C, H, W) in [0, 1]."""
        return check_logits(logits_of(self, check_images(x)))

    def energy(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Marginal energy E(x), or joint energy E(x, y) where labels y: (N,) are given. Returns (N,)."""
        logits = self.logits(x)
        return (
            marginal_energy(logits) if y is None else joint_energy(logits, check_labels(y, logits.shape[1]))
        )

    def predict_proba(self, x: Tensor) -> Tensor:
        """p(y|x) = softmax f(x): (N, K), rows sum to one."""
        return torch.softmax(self.logits(x).float(), dim=1)


def check_labels(labels: Tensor, classes: int) -> Tensor:
    """Labels as they came, or a ValueError that names the first label outside [0, classes)."""
    if labels.dim() != 1 or labels.is_floating_point():
        raise ValueError(
            f"labels must be whole numbers, one per image, not {labels.dtype} of shape {tuple(labels.shape)}."
        )
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise ValueError(
            f"label {int(wrong[0])} does not exist: this model has the classes 0 to {classes - 1}."
        )
    return labels
