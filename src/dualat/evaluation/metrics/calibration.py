"""Calibration: how far the confidence of a classifier is from its accuracy.

    ECE = sum_b |B_b| / N * | acc(B_b) - conf(B_b) |,     conf_i = max_y softmax( f(x_i) / T )[y]

with equal-width bins [b/B, (b+1)/B) of the confidence, the last one closed.
Temperature:  T* = argmin_T  -1/N sum_i log softmax( f(x_i) / T )[y_i],  on validation images, never on test images.

Source: Guo et al., "On calibration of modern neural networks" (ICML 2017). torchmetrics' MulticlassCalibrationError
(norm l1) gives the same value, but puts a confidence of exactly 1 in a bin of its own.
"""

import math
from typing import Any

import torch
from torch import Tensor

from dualat.core.energy import check_labels
from dualat.core.geometry import ThreatModel
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.logits import attack_step_size, predict_logits
from dualat.results.record import Record

DRAWS = 500  # resamples behind the interval
LIMITS = (1e-3, 1e3)  # temperatures searched: without a mistake, the likelihood rises as T falls to 0


def measure(context: EvaluationContext) -> list[Record]:
    settings, temperature = context.settings, 1.0
    if settings.temperature_scaling:
        validation = context.data.validation
        temperature = fit_temperature(predict_logits(context.required_model, validation), validation.labels)
    clean = calibration(context.logits(), context.held_out().labels, settings.bins, temperature)
    threat = ThreatModel(settings.norm, settings.validation_eps)
    size = attack_step_size(threat, settings.steps)
    attack = {"norm": threat.norm, "eps": threat.eps, "steps": settings.steps, "step_size": size}
    logits = context.attacked(threat, settings.robust_images).logits
    labels = context.held_out(settings.robust_images).labels
    return [clean, calibration(logits, labels, settings.bins, temperature, attack)]


def calibration(
    logits: Tensor,
    labels: Tensor,
    bins: int = 20,
    temperature: float = 1.0,
    attack: dict[str, Any] | None = None,
) -> Record:
    """Record `ece` of logits (N, K) with labels (N,).

    Args:
        bins: equal-width bins of the confidence.
        temperature: divides the logits (see fit_temperature).
        attack: what was done to the images, for the record.

    Its details hold confidence, accuracy and share of the images for every bin; None in empty bins. Its interval is
    the basic bootstrap's, which takes off the bias of a resample's ECE, widened where need be to hold the value.
    """
    _check(logits, labels)
    if bins < 1 or not 0 < temperature < math.inf:
        raise ValueError(
            f"bins must be 1 or more and temperature above 0, but they are {bins} and {temperature}."
        )
    confidence, predicted = torch.softmax(logits.double() / temperature, dim=1).max(dim=1)
    right = (predicted == labels).double()
    inner = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=logits.device)[1:-1]
    index = torch.bucketize(confidence, inner, right=True)
    count = torch.bincount(index, minlength=bins).double()
    total = torch.zeros(2, bins, dtype=torch.float64, device=logits.device)
    total[0].index_add_(0, index, confidence)
    total[1].index_add_(0, index, right)
    value = float((total[0] - total[1]).abs().sum() / len(logits))
    record = Record(
        "ece", value, len(logits), _interval((confidence - right).cpu(), index.cpu(), bins, value)
    )
    record.settings, record.seed = {"bins": bins, "temperature": temperature, "attack": attack}, 0
    record.details = {
        "confidence": _shares(total[0], count),
        "accuracy": _shares(total[1], count),
        "share": [round(c, 5) for c in (count / len(logits)).tolist()],
    }
    return record


def _shares(total: Tensor, count: Tensor) -> list[float | None]:
    """total / count of each bin; None where it is empty."""
    pairs = zip(total.tolist(), count.tolist(), strict=True)
    return [round(t / c, 5) if c else None for t, c in pairs]


def _interval(gap: Tensor, index: Tensor, bins: int, value: float) -> tuple[float, float]:
    """95 % basic bootstrap interval, 2 ECE - q(ECE of resamples), from each image's gap (N,) and bin (N,)."""
    generator = torch.Generator().manual_seed(0)
    values = torch.empty(DRAWS, dtype=torch.float64)
    for draw in range(DRAWS):
        picked = torch.randint(len(gap), (len(gap),), generator=generator)
        sums = torch.zeros(bins, dtype=torch.float64).index_add_(0, index[picked], gap[picked])
        values[draw] = sums.abs().sum() / len(gap)
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return max(0.0, min(2 * value - high, value)), min(1.0, max(2 * value - low, value))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimises the cross-entropy of logits (N, K), in [0.001, 1000].

    The cross-entropy is convex in b = 1/T, with slope mean_i( E_{y ~ softmax(b f)}[ f_y ] - f_{y_i} ): bisection
    finds where the slope changes sign.
    """
    _check(logits, labels)
    logits = logits.double()
    own = logits.gather(1, labels[:, None]).mean()
    low, high = (math.log(1 / limit) for limit in reversed(LIMITS))
    while high - low > 1e-7:
        middle = (low + high) / 2
        slope = (torch.softmax(math.exp(middle) * logits, dim=1) * logits).sum(dim=1).mean() - own
        low, high = (low, middle) if slope > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.dim() != 2 or not len(logits) or labels.shape != logits.shape[:1]:
        raise ValueError(
            "calibration needs logits (N, K) of at least one image and N labels, not "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}."
        )
    check_labels(labels, logits.shape[1])
    if not logits.isfinite().all():
        raise ValueError("the logits are not all finite: this model has diverged.")
