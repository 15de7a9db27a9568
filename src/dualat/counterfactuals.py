"""Counterfactual images: the change within a ball that raises another class the most.

    x_cf = argmax over ||x' - x||_p <= eps of f(x')[target],   by the gradient loop from x itself.

Source: DAT (arXiv 2510.13872), counterfactual protocol: L2 ball, eps 4 on CIFAR-10. f(x)[target] rises where an image becomes
more real as well, and the logit of its own class may rise with it: of DAT's classifiers few then change their mind in a small
ball. log p(target | x) (`climb="probability"`) asks for the change alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor, nn

from dualat.core.classifier import check_images, check_logits, logits_of
from dualat.core.energy import check_labels
from dualat.core.geometry import ThreatModel, image_norm
from dualat.core.loop import frozen, pgd
from dualat.core.objectives import lower_energy, target_class
from dualat.data.grids import signed_difference, strip
from dualat.types import Climb

if TYPE_CHECKING:
    from dualat.models.model import LoadedModel

OBJECTIVES = {"energy": lower_energy, "probability": target_class}


def counterfactual(
    model: nn.Module,
    x: Tensor,
    target: Tensor | int,
    threat: ThreatModel,
    *,
    steps: int = 50,
    step_size: float | None = None,
    climb: Climb = "energy",
) -> Tensor:
    """Images as near to x as the threat model says, that the model takes for `target`.

    Args:
        model: module from images to logits.
        x: images (N, C, H, W) in [0, 1].
        target: class wanted, one for all or (N,).
        threat: ball around x, with a finite eps; the larger, the more may change.
        steps: gradient steps.
        step_size: length of one in the threat model's norm; default: 2.5 * eps / steps, so that the path can
            cross the ball.
        climb: "energy": f(x)[target], minus the joint energy, as published; "probability": log p(target | x).

    Returns:
        Images (N, C, H, W) in [0, 1]. Raises ValueError for images outside [0, 1], a target that the model lacks, an
        infinite eps, or logits that are not finite.
    """
    if climb not in OBJECTIVES:
        raise ValueError(f"climb is {climb!r}, but must be 'energy' or 'probability'.")
    if not 0 < threat.eps < float("inf"):
        raise ValueError(
            f"a counterfactual stays near its image: eps must be above 0 and finite, not {threat.eps}."
        )
    check_images(x)
    labels = torch.as_tensor(target, device=x.device)
    if labels.dim() and labels.shape != (len(x),):
        raise ValueError(
            f"target must be one class, or one for each of the {len(x)} images, not {tuple(labels.shape)}."
        )
    labels = labels.expand(len(x))
    with frozen(model), torch.no_grad():
        classes = check_logits(logits_of(model, x[:1])).shape[1]
    check_labels(labels, classes)
    size = 2.5 * threat.eps / max(steps, 1) if step_size is None else step_size
    return pgd(model, x, OBJECTIVES[climb](labels), threat, steps=steps, step_size=size)


@dataclass
class Change:
    """What one counterfactual did to one image."""

    target: int
    name: str
    """Name of the target class."""
    image: Tensor
    """(C, H, W) in [0, 1]."""
    confidence_before: float
    confidence: float
    """p(target | x) before and after."""
    reached: bool
    """Whether the model now takes the image for the target class."""
    distance: float
    """From the original, in the threat model's norm."""


def explain(
    model: "LoadedModel",
    x: Tensor,
    targets: Sequence[int],
    threat: ThreatModel,
    steps: int = 50,
    climb: Climb = "energy",
) -> list[Change]:
    """One counterfactual of one image x: (C, H, W) for each target class."""
    images = x.expand(len(targets), *x.shape)
    results = counterfactual(model, images, torch.tensor(targets), threat, steps=steps, climb=climb)
    with frozen(model), torch.no_grad():
        before, after = model.predict_proba(x[None])[0], model.predict_proba(results)
    distances = image_norm(results - images, threat.norm)
    return [
        Change(
            target=target,
            name=model.class_names[target],
            image=results[i],
            confidence_before=float(before[target]),
            confidence=float(after[i, target]),
            reached=int(after[i].argmax()) == target,
            distance=float(distances[i]),
        )
        for i, target in enumerate(targets)
    ]


def change_strip(x: Tensor, caption: str, changes: Sequence[Change], norm: str) -> Image.Image:
    """The original x: (C, H, W), then a column per target: the result (missed: the model does not see the target class in
    it) above the signed difference."""
    columns = [[(x.cpu(), ["original", caption])]]
    for change in changes:
        result = change.image.cpu()
        confidence = f"p = {change.confidence:.2f}{'' if change.reached else ', missed'}"
        difference = signed_difference(x.cpu(), result)
        columns.append(
            [
                (result, [f"-> {change.name}", confidence]),
                (difference, ["difference", f"{norm} {change.distance:.2f}"]),
            ]
        )
    return strip(columns, side=max(96, x.shape[1]))
