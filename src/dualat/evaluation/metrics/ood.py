"""Out-of-distribution detection: does a score tell images of the learned distribution from others, attacked or not?

A higher score means more in-distribution:
    s = -E(x) = logsumexp_y f(x)[y],   max_softmax = max_y p(y|x),   gradient_norm = -|| grad_x E(x) ||
With inside images positive and TPR, FPR taken at every threshold:
    AUROC = P( score(inside) > score(outside) ) + 1/2 P( equal ),   AUPR = sum_k (R_k - R_{k-1}) P_k (average precision),
    FPR95 = FPR at the first threshold whose TPR is 95 % or more
Adaptive attack: each outside image climbs the score inside a ball, to look in-distribution.

Source: DAT (arXiv 2510.13872), OOD protocol; Grathwohl et al., JEM (2020), for the scores; Augustin et al., RATIO
(2020), for the attack; DeLong et al., 1988, for the interval of the AUROC.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from dualat.core.energy import marginal_energy
from dualat.core.geometry import ThreatModel
from dualat.core.objectives import lower_energy, raise_confidence
from dualat.data.images import ImageData
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.logits import attack_step_size, climb, gradient_norms, predict_logits
from dualat.evaluation.outside import check_outside
from dualat.results.intervals import wilson_interval
from dualat.results.record import Record

SCORES = ("s", "max_softmax", "gradient_norm")
CURVE = 101  # points of a stored curve


def measure(context: EvaluationContext) -> list[Record]:
    settings, names, wanted = context.settings, context.settings.ood_scores, context.settings.ood_images
    for name in names:
        _check_score(name)
    known = {
        name: -context.gradient_norms(wanted).double()
        if name == "gradient_norm"
        else score_of(context.logits(wanted), name)
        for name in names
    }
    threat = ThreatModel("L2", settings.ood_eps)
    attacked = {"attack": threat, "steps": settings.ood_steps, "step_size": settings.ood_step_size}
    records = []
    for i, source in enumerate(settings.ood_sources):
        context.progress(f"OOD {source}", i, len(settings.ood_sources))
        sets = context.held_out(wanted), context.outside(source, wanted)
        for attack in ({}, attacked):
            records += ood_records(
                context.required_model, *sets, score_names=names, inside_scores=known, **attack
            )
    return records


def needs(context: EvaluationContext) -> None:
    check_outside(context.settings.ood_sources, context.data.test.shape)


def scores(model: nn.Module, images: Tensor | ImageData, score: str, batch_size: int = 500) -> Tensor:
    """The score of each image, higher where more in-distribution: (N,) float64 on the CPU."""
    _check_score(score)
    if score == "gradient_norm":
        return -gradient_norms(model, images, batch_size).double()
    return score_of(predict_logits(model, images, batch_size), score)


def score_of(logits: Tensor, score: str) -> Tensor:
    """s or max_softmax of logits (N, K): (N,) float64."""
    if score == "s":
        return -marginal_energy(logits).double()
    return torch.softmax(logits.double(), dim=1).amax(dim=1)


def ood_records(
    model: nn.Module,
    inside: ImageData,
    outside: ImageData,
    *,
    score_names: Sequence[str] = ("s", "max_softmax"),
    attack: ThreatModel | None = None,
    steps: int = 20,
    step_size: float | None = None,
    inside_scores: Mapping[str, Tensor] | None = None,
    batch_size: int = 500,
) -> list[Record]:
    """Records `ood_auroc`, `ood_aupr` and `ood_fpr95` for each score.

    Args:
        inside, outside: held-out images of the learned distribution, and images of another one.
        score_names: any of s, max_softmax, gradient_norm.
        attack: ball in which outside images are perturbed to look in-distribution; None: no attack. max_softmax is
            attacked by its log odds, s and gradient_norm by s. The iterate with the best objective is kept.
        steps, step_size: of the attack; default of the size: 2 * eps / steps (the published 20 steps of 0.1 at eps 1).
        inside_scores: scores(model, inside, name) by name, where they are known already.
    """
    _check_sets(inside, outside, score_names)
    if attack is None and step_size is not None:
        raise ValueError(
            "step_size belongs to the attack: name its ball with attack, or leave step_size out."
        )
    default = 0.0 if attack is None else attack_step_size(attack, steps, factor=2.0)
    size = default if step_size is None else step_size
    attacked: dict[str, Tensor] = {}
    records = []
    for name in score_names:
        images, told = outside, None
        if attack is not None:
            climbed = "max_softmax" if name == "max_softmax" else "s"
            if climbed not in attacked:
                objective = raise_confidence() if climbed == "max_softmax" else lower_energy()
                attacked[climbed] = climb(model, outside, objective, attack, steps, size, batch_size)
            images = attacked[climbed]
            told = {
                "norm": attack.norm,
                "eps": attack.eps,
                "steps": steps,
                "step_size": size,
                "objective": climbed,
            }
        ins = (inside_scores or {}).get(name)
        if ins is None:
            ins = scores(model, inside, name, batch_size)
        elif ins.shape != (len(inside),):
            raise ValueError(
                f"inside_scores[{name!r}] must be one per image of {inside.name}, not {tuple(ins.shape)}."
            )
        settings = {
            "score": name,
            "source": outside.name,
            "attack": told,
            "inside": inside.name,
            "inside_images": len(inside),
            "outside_images": len(outside),
        }
        records += detection_records(ins, scores(model, images, name, batch_size), settings)
    return records


def detection_records(inside: Tensor, outside: Tensor, settings: dict) -> list[Record]:
    """The three records from the scores of inside (M,) and outside (N,) images."""
    if not len(inside) or not len(outside):
        raise ValueError("detection needs at least one image inside and one outside.")
    inside, outside = inside.double(), outside.double()
    if not (inside.isfinite().all() and outside.isfinite().all()):
        raise ValueError("the scores are not all finite: this model has diverged.")
    values = torch.cat([inside, outside])
    order = values.argsort(descending=True)
    hits = (order < len(inside)).double().cumsum(0)
    ends = torch.cat([values[order].diff() != 0, torch.ones(1, dtype=torch.bool)])  # last of each equal run
    hits, taken = hits[ends], ends.nonzero().flatten().double() + 1
    tpr, fpr = hits / len(inside), (taken - hits) / len(outside)
    first = int((hits * 100 >= 95 * len(inside)).nonzero()[0])
    passed = round(float(fpr[first]) * len(outside))
    precision = hits / taken
    aupr = float((torch.diff(tpr, prepend=tpr.new_zeros(1)) * precision).sum())
    auroc, interval = _auroc(inside, outside)
    n, share = len(outside), wilson_interval(passed, len(outside))
    records = [
        Record("ood_auroc", auroc, len(values), interval, details=_curve(fpr, tpr)),
        Record("ood_aupr", aupr, len(values)),
        Record("ood_fpr95", passed / n, n, share),
    ]
    return [replace(record, settings=dict(settings)) for record in records]


def _auroc(inside: Tensor, outside: Tensor) -> tuple[float, tuple[float, float] | None]:
    """AUROC with DeLong's interval; without one where its variance is 0, as in perfect separation.

    V_i = share of outside scores below inside score i (equal ones count half), W_j likewise for outside scores;
    AUROC = mean V, variance = var(V) / M + var(W) / N.
    """

    def below(mine: Tensor, others: Tensor) -> Tensor:
        ordered = others.sort().values
        left, right = (torch.searchsorted(ordered, mine, right=side) for side in (False, True))
        return (left + right).double() / (2 * len(others))

    v, w = below(inside, outside), 1 - below(outside, inside)
    auroc = float(v.mean())
    if min(len(v), len(w)) < 2:
        return auroc, None
    spread = 1.959963984540054 * math.sqrt(float(v.var()) / len(v) + float(w.var()) / len(w))
    return auroc, (max(0.0, auroc - spread), min(1.0, auroc + spread)) if spread else None


def _curve(fpr: Tensor, tpr: Tensor) -> dict[str, list[float]]:
    """The ROC polyline from (0, 0), at up to 101 points evenly spaced along FPR + TPR."""
    x, y = (torch.cat([t.new_zeros(1), t]) for t in (fpr, tpr))
    along = x + y
    wanted = along if len(along) <= CURVE else torch.linspace(0, 2, CURVE, dtype=torch.float64)
    right = torch.searchsorted(along, wanted).clamp(1, len(along) - 1)
    part = (wanted - along[right - 1]) / (along[right] - along[right - 1])
    curve = {name: t[right - 1] + part * (t[right] - t[right - 1]) for name, t in (("fpr", x), ("tpr", y))}
    return {name: [round(value, 5) for value in points.tolist()] for name, points in curve.items()}


def _check_score(score: str) -> None:
    if score not in SCORES:
        near = difflib.get_close_matches(score, SCORES, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"score is {score!r}, but must be one of {', '.join(SCORES)}.{hint}")


def _check_sets(inside: ImageData, outside: ImageData, score_names: Sequence[str]) -> None:
    if not score_names:
        raise ValueError(f"detection needs a score: name at least one of {', '.join(SCORES)}.")
    for name in score_names:
        _check_score(name)
    if outside.shape != inside.shape:
        raise ValueError(
            f"{outside.name} has images of shape {outside.shape}, but {inside.name} of {inside.shape}: fit them "
            "to it by their `fitted`."
        )
