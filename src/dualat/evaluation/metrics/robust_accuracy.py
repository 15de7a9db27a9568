"""Robust accuracy: the share of images for which no iterate of an attack in the ball fools the model.

    acc_eps = 1/N sum_i [ argmax f(x_t,i) = y_i for all t ],   x_t = iterates of PGD maximising the cross-entropy

The image itself is the first iterate, so that robust accuracy never exceeds clean accuracy.
Source: Madry et al., 2018. PGD alone is an upper bound of the true robust accuracy.
"""

from torch import nn

from dualat.core.classifier import precision_of
from dualat.core.geometry import ThreatModel
from dualat.data.images import ImageData
from dualat.evaluation.attack import Attacked, under_attack
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.logits import attack_step_size
from dualat.evaluation.masking import grey_radius
from dualat.results.record import Record, share_correct, timed


def measure(context: EvaluationContext) -> list[Record]:
    settings, model = context.settings, context.required_model
    largest = settings.large_eps or grey_radius(settings.norm, context.data.test.shape)
    radii = (*settings.eps, largest) if largest > max(settings.eps) else settings.eps
    records = []
    for i, eps in enumerate(radii):
        context.progress("PGD", i, len(radii))
        threat = ThreatModel(settings.norm, eps)

        def attack(threat: ThreatModel = threat) -> Record:
            return _record(context.attacked(threat, settings.robust_images), model, threat, settings.steps)

        records.append(timed(attack))
    return records


def robust_accuracy(
    model: nn.Module, data: ImageData, threat: ThreatModel, steps: int, batch_size: int = 500
) -> Record:
    """Record `robust_accuracy` over all images of `data`, under PGD with steps of 2.5 * eps / steps."""
    return _record(under_attack(model, data, threat, steps, batch_size), model, threat, steps)


def _record(attacked: Attacked, model: nn.Module, threat: ThreatModel, steps: int) -> Record:
    settings = {
        "attack": "pgd",
        "norm": threat.norm,
        "eps": threat.eps,
        "steps": steps,
        "step_size": attack_step_size(threat, steps),
        "fooled_by": "any iterate",
        "random_start": False,
        "precision": precision_of(model),
    }
    return share_correct("robust_accuracy", attacked.kept.numpy(), settings=settings)
