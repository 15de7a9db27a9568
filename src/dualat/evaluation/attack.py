"""What an attack makes of a model's answers, image by image.

    x_adv = the iterate of PGD in the ball around x with the largest cross-entropy,   the image itself included
    kept  = 1 where argmax f(x_t) = y for all iterates t

Source: Madry et al., 2018. PGD alone is an upper bound of the true robust accuracy.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualat.core.classifier import check_logits, logits_of
from dualat.core.geometry import ThreatModel
from dualat.core.loop import frozen, pgd
from dualat.core.objectives import raise_cross_entropy
from dualat.data.images import ImageData
from dualat.evaluation.logits import attack_step_size, dealt_batches, empty_logits
from dualat.system.distributed import all_reduced


@dataclass(frozen=True)
class Attacked:
    """What is known of images after an attack, on the CPU. The images are not kept: 50,000 of ImageNet are 30 GB."""

    kept: Tensor
    """(N,), int64: 1 where no iterate fools the model, else 0."""
    logits: Tensor
    """(N, K), float32: of the iterate with the largest cross-entropy."""


def pgd_attack(
    model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, steps: int
) -> tuple[Tensor, Tensor]:
    """PGD on the cross-entropy of one batch, with steps of 2.5 * eps / steps.

    Args:
        x, labels: images (N, C, H, W) in [0, 1] and their classes (N,), on the model's device.

    Returns:
        Of each image the iterate with the largest cross-entropy, itself included (N, C, H, W), and whether any iterate
        fooled the model (N,), bool.
    """
    fooled = torch.zeros(len(labels), dtype=torch.bool, device=x.device)
    climbed, size = raise_cross_entropy(labels), attack_step_size(threat, steps)

    def objective(logits: Tensor) -> Tensor:
        fooled.logical_or_(logits.argmax(dim=1) != labels)
        return climbed(logits)

    # keep="best" makes the loop judge its last iterate too
    return pgd(model, x, objective, threat, steps=steps, step_size=size, keep="best"), fooled


def under_attack(
    model: nn.Module, data: ImageData, threat: ThreatModel, steps: int, batch_size: int = 500
) -> Attacked:
    """`pgd_attack` on all images, each rank attacking its part.

    Raises:
        ValueError: no images or none that the model takes, no finite ball, no steps, or logits that are not finite.
    """
    attack_step_size(threat, steps)
    kept, logits = torch.zeros(len(data), dtype=torch.int64), empty_logits(model, data)
    for part, x, labels in dealt_batches(model, data, batch_size):
        images, fooled = pgd_attack(model, x, labels, threat, steps)
        kept[part] = (~fooled).long().cpu()
        with frozen(model), torch.no_grad():
            logits[part] = check_logits(logits_of(model, images.float())).float().cpu()
    return Attacked(all_reduced(kept), all_reduced(logits))
