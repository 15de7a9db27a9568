"""Energies of sets of images, and how steep the energy is around real ones.

    energy = 1/N sum_i E(x_i),   E(x) = -logsumexp_y f(x)[y]
    r1     = 1/N sum_i 1/2 || grad_x s(x_i) ||^2,   s = -E

Source: DAT (arXiv 2510.13872), sec. 3 and 4; R1: Mescheder et al., 2018 (`losses.gradient_penalty` is the same figure
of one batch, differentiable).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dualat.core.classifier import check_logits, logits_of
from dualat.core.energy import marginal_energy
from dualat.core.loop import frozen
from dualat.data.images import ImageData
from dualat.evaluation.logits import batches, predict_logits
from dualat.results.record import Record


def mean_interval(values: Tensor) -> tuple[float, float] | None:
    """95 % normal interval of the mean of values (N,): mean +- 1.96 std / sqrt(N). None for a single value."""
    if len(values) < 2:
        return None
    mean, spread = float(values.double().mean()), float(values.double().std()) / len(values) ** 0.5
    return mean - 1.959963984540054 * spread, mean + 1.959963984540054 * spread


def gradient_norms(model: nn.Module, images: Tensor | ImageData, batch_size: int = 500) -> Tensor:
    """|| grad_x E(x) || of each image: (N,) float32 on the CPU. Weights keep no gradients."""
    norms = []
    with frozen(model), torch.enable_grad():
        for x in batches(model, images, batch_size):
            x = x.detach().requires_grad_(True)
            logits = check_logits(logits_of(model, x))
            (gradient,) = torch.autograd.grad(marginal_energy(logits).sum(), x)
            norms.append(torch.linalg.vector_norm(gradient.flatten(1), dim=1).cpu())
    return torch.cat(norms)


def energy_records(
    model: nn.Module, sets: Mapping[str, Tensor], bins: int = 40, batch_size: int = 500
) -> list[Record]:
    """One record `energy` for each named set of images (N, C, H, W) in [0, 1]: its mean, with its 95 % interval.

    Details hold a histogram: edges (the same for all sets, from the lowest to the highest energy among them) and the
    share of the set's images in each of the `bins`.
    """
    if not sets or bins < 1:
        raise ValueError(f"energies need at least one set of images and one bin, not {len(sets)} and {bins}.")
    energies = {}
    for name, images in sets.items():
        if not len(images):
            raise ValueError(f"the set {name!r} holds no images: give at least one.")
        energies[name] = marginal_energy(predict_logits(model, images, batch_size)).double()
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
        records.append(
            Record(
                "energy",
                float(values.mean()),
                len(values),
                mean_interval(values),
                settings={"images": name},
                details=details,
            )
        )
    return records


def r1_record(model: nn.Module, images: Tensor | ImageData, batch_size: int = 500) -> Record:
    """Record `r1` of real images, with its 95 % interval."""
    values = 0.5 * gradient_norms(model, images, batch_size).double().square()
    name = images.name if isinstance(images, ImageData) else "images"
    return Record("r1", float(values.mean()), len(values), mean_interval(values), settings={"images": name})
