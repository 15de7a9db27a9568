"""Counterfactuals: from a real image towards another class inside a ball, how far does the model's mind change?

    x' = argmax over ||x' - x|| <= eps of f(x')[c], or of log p(c | x')   (dualat.counterfactual)
    c  = (y + 1 + (i + seed) mod (K-1)) mod K
    validity   = 1/N sum [ argmax f(x') = c ]          confidence = 1/N sum p(c | x')
    distance   = 1/N sum || x' - x ||_2
    frechet    = mean over classes c of d^2( judge features of x' with target c, of real images of class c )

Source: DAT (arXiv 2510.13872), counterfactual protocol: L2 ball, eps 4 on CIFAR-10, per-class FID. Ours is a Frechet
distance in a judge's features, of images rounded to 8 bits, and never called FID.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dualat.core.geometry import ThreatModel, image_norm
from dualat.counterfactuals import counterfactual
from dualat.data.images import ImageData
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.frechet import frechet_distance
from dualat.evaluation.intervals import mean_interval
from dualat.evaluation.judge import Judge
from dualat.evaluation.logits import attack_step_size, batches, predict_logits
from dualat.results.record import Record, proportion
from dualat.types import Climb, Norm

LEAST = 20  # images of a class, counterfactual and real, for a Frechet distance of it


def measure(context: EvaluationContext) -> list[Record]:
    settings = context.settings
    return counterfactual_records(
        context.required_model,
        context.held_out(settings.counterfactual_images),
        context.judge,
        settings.counterfactual_eps,
        real=context.data.train,
        steps=settings.counterfactual_steps,
        climb=settings.counterfactual_climb,
        seed=context.seed,
    )


def counterfactual_targets(labels: Tensor, classes: int, seed: int = 0) -> Tensor:
    """A class other than its own for each of labels (N,), spread evenly; the seed turns the order."""
    if classes < 2:
        raise ValueError("counterfactuals need at least two classes: there is no other class to go to.")
    turn = (torch.arange(len(labels)) + seed) % (classes - 1)
    return (labels + 1 + turn) % classes


def counterfactual_records(
    model: nn.Module,
    data: ImageData,
    judge: Judge | None,
    eps_list: Sequence[float],
    *,
    real: ImageData | None = None,
    norm: Norm = "L2",
    steps: int = 50,
    step_size: float | None = None,
    climb: Climb = "energy",
    seed: int = 0,
    least: int = LEAST,
    batch_size: int = 500,
) -> list[Record]:
    """For each eps, `counterfactual_validity`, `_confidence` and `_distance`, and with a judge `_frechet`.

    Args:
        data: real held-out images to start from.
        judge: gives the features of the Frechet distance; None: that record is left out.
        eps_list: radii of the ball in `norm`, above 0.
        real: real images to compare with, class by class; needed with a judge.
        steps, step_size: of the gradient loop; default of the size: 2.5 * eps / steps.
        climb: what rises, f(x)[c] ("energy") or log p(c | x) ("probability").
        seed: turns the order of the targets.
        least: classes with fewer counterfactuals or real images are named in the settings (left_out) and not
            averaged. Where no class has enough, there is no Frechet record.

    Details hold one value per target class.
    """
    _check(data, judge, eps_list, real, least)
    targets = counterfactual_targets(data.labels, len(data.class_names), seed)
    known = judge.features_of(real).cpu() if judge is not None and real is not None else None
    records = []
    for eps in eps_list:
        threat = ThreatModel(norm, eps)
        default = attack_step_size(threat, steps)
        size = default if step_size is None else step_size
        found, distances = [], []
        for x, wanted in zip(batches(model, data, batch_size), targets.split(batch_size), strict=True):
            wanted = wanted.to(x.device)
            changed = counterfactual(model, x, wanted, threat, steps=steps, step_size=size, climb=climb)
            found.append(changed.cpu())
            distances.append(image_norm(changed - x, "L2").cpu())
        images, distance = torch.cat(found), torch.cat(distances)
        settings = {
            "eps": eps,
            "norm": norm,
            "steps": steps,
            "step_size": size,
            "objective": {"energy": "target logit", "probability": "target probability"}[climb],
            "images": data.name,
        }
        chances = predict_logits(model, images, batch_size).double().softmax(dim=1)
        records += _reached(data.class_names, targets, chances, distance, settings)
        if judge is not None and real is not None and known is not None:
            features = judge.features((images * 255).round() / 255).cpu()
            settings |= {"features": judge.features_name, "real": real.name}
            records += _frechet(features, targets, known, real, settings | {"least": least})
    for record in records:
        record.seed = seed
    return records


def _reached(
    names: Sequence[str], targets: Tensor, chances: Tensor, distance: Tensor, settings: dict[str, Any]
) -> list[Record]:
    """Validity, confidence and distance from the probabilities (N, K) of the counterfactuals."""
    valid = (chances.argmax(dim=1) == targets).double()
    confidence = chances.gather(1, targets[:, None]).squeeze(1)

    def fields(values: Tensor) -> dict[str, Any]:
        rows = {name: values[targets == c] for c, name in enumerate(names)}
        per_class = {name: round(float(own.mean()), 5) for name, own in rows.items() if len(own)}
        return {"settings": dict(settings), "details": {"per_class": per_class}}

    records = [proportion("counterfactual_validity", int(valid.sum()), len(valid), **fields(valid))]
    for metric, values in (("confidence", confidence), ("distance", distance)):
        mean, interval = float(values.double().mean()), mean_interval(values)
        records.append(Record(f"counterfactual_{metric}", mean, len(values), interval, **fields(values)))
    return records


def _frechet(
    features: Tensor, targets: Tensor, known: Tensor, real: ImageData, settings: dict[str, Any]
) -> list[Record]:
    """The class-wise Frechet distance, averaged over classes with enough images; no record where there is none.

    features, known: of counterfactuals and of real images.
    """
    per_class, left_out, used = {}, [], 0
    for c, name in enumerate(real.class_names):
        ours, theirs = features[targets == c], known[real.labels == c]
        if min(len(ours), len(theirs)) < settings["least"]:
            left_out.append(name)
            continue
        per_class[name] = frechet_distance(ours, theirs)
        used += len(ours)
    if not per_class:
        return []
    value = sum(per_class.values()) / len(per_class)
    details = {"per_class": {name: round(value, 5) for name, value in per_class.items()}}
    told = settings | {"left_out": left_out}
    return [Record("counterfactual_frechet", value, used, settings=told, details=details)]


def _check(
    data: ImageData, judge: Judge | None, eps_list: Sequence[float], real: ImageData | None, least: int
) -> None:
    if judge is not None and real is None:
        raise ValueError(
            "a judge compares counterfactuals with real images: pass real, or None for the judge."
        )
    if real is not None and (real.shape, real.class_names) != (data.shape, data.class_names):
        raise ValueError(f"{real.name} and {data.name} must have the same image shape and classes.")
    if not eps_list:
        raise ValueError("counterfactuals need at least one eps.")
    if least < 2:
        raise ValueError(f"least is {least}, but a Frechet distance needs 2 images or more.")
