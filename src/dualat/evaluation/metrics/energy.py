"""Energies of sets of images, and how steep the energy is around real ones.

    energy = 1/N sum_i E(x_i),   E(x) = -logsumexp_y f(x)[y]
    r1     = 1/N sum_i 1/2 || grad_x s(x_i) ||^2,   s = -E

Source: DAT (arXiv 2510.13872), sec. 3 and 4; R1: Mescheder et al., 2018 (`losses.gradient_penalty` is the same value
of one batch, differentiable).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dualat.core.energy import marginal_energy
from dualat.core.geometry import ThreatModel
from dualat.data.images import ImageData, evenly
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.intervals import mean_interval
from dualat.evaluation.logits import gradient_norms, predict_logits
from dualat.evaluation.metrics.ood import needs as needs
from dualat.results.record import Record


def measure(context: EvaluationContext) -> list[Record]:
    settings, model = context.settings, context.required_model
    wanted = settings.energy_images
    train = context.data.train
    threat = ThreatModel(settings.norm, settings.validation_eps)
    logits = {
        "train": predict_logits(model, train.take(evenly(len(train), wanted)).float()),
        "test": context.logits(wanted),
    }
    if model.initial is not None:
        logits["contrastive"] = predict_logits(model, context.drawn(wanted).images.float() / 255)
    logits["adversarial"] = context.attacked(threat, wanted).logits
    splits = {"train": "train", "contrastive": ""}
    for source in settings.ood_sources:
        name = f"ood: {source}"
        logits[name], splits[name] = predict_logits(model, context.outside(source, wanted).float()), ""
    records = histograms({name: marginal_energy(found) for name, found in logits.items()})
    records.append(r1_of(context.gradient_norms(wanted), context.held_out(wanted).name))
    for record in records:
        record.split = splits.get(record.settings["images"], "test")
    return records


def histograms(energies: Mapping[str, Tensor], bins: int = 40) -> list[Record]:
    """One record `energy` for each named set of energies (N,): their mean, with its 95 % interval.

    Details hold a histogram: edges (the same for all sets, from the lowest to the highest energy among them) and the
    share of the set's images in each of the `bins`.
    """
    if not energies or bins < 1:
        raise ValueError(
            f"energies need at least one set of images and one bin, not {len(energies)} and {bins}."
        )
    for name, values in energies.items():
        if not len(values):
            raise ValueError(f"the set {name!r} holds no images: give at least one.")
    energies = {name: values.double() for name, values in energies.items()}
    low = min(float(e.min()) for e in energies.values())
    high = max(float(e.max()) for e in energies.values())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64)
    records = []
    for name, values in energies.items():
        count = torch.bincount(torch.bucketize(values, edges[1:-1], right=True), minlength=bins)
        details = {
            "edges": [float(f"{edge:.6g}") for edge in edges.tolist()],
            "share": [round(share, 5) for share in (count / len(values)).tolist()],
        }
        mean, told = float(values.mean()), {"images": name}
        records.append(Record("energy", mean, len(values), mean_interval(values), told, details=details))
    return records


def r1_record(model: nn.Module, images: Tensor | ImageData, batch_size: int = 500) -> Record:
    """Record `r1` of real images, with its 95 % interval."""
    name = images.name if isinstance(images, ImageData) else "images"
    return r1_of(gradient_norms(model, images, batch_size), name)


def r1_of(norms: Tensor, name: str) -> Record:
    """Record `r1` of the lengths (N,) of the energy's gradients at images of this name."""
    values = 0.5 * norms.double().square()
    return Record("r1", float(values.mean()), len(values), mean_interval(values), settings={"images": name})
