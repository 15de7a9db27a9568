"""Measuring one metric: whether it can be, and its records with all that does not depend on the metric."""

import difflib
import time
from collections.abc import Iterable

from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.registry import METRICS
from dualat.results.record import Record
from dualat.system.precision import float32_by_default, strict_fp32


def check_metrics(names: Iterable[str]) -> None:
    """ValueError that names the first metric that does not exist, and the nearest that does."""
    if unknown := [m for m in names if m not in METRICS]:
        near = difflib.get_close_matches(unknown[0], METRICS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"metric {unknown[0]!r} is unknown.{hint} There are {', '.join(METRICS)}.")


def lacks_initial(context: EvaluationContext, name: str) -> bool:
    """Whether the metric draws samples, and the model has nothing that they start from."""
    metric = METRICS[name]
    draws = metric.draws or (metric.of_samples and context.given is None)
    return draws and context.model is not None and context.model.initial is None


def check_needs(context: EvaluationContext, name: str) -> None:
    """MissingWeights where the metric needs weights that are not there; ValueError or FileNotFoundError where they, or the
    images that it compares with, are not as it needs them."""
    if lacks_initial(context, name):
        _ = context.required_model.required_initial
    METRICS[name].check(context)


def measure(context: EvaluationContext, name: str) -> list[Record]:
    """The records of one metric, with all that does not depend on the metric: fingerprint, data, seed, seconds."""
    metric = METRICS[name]
    key = context.key(name, metric.uses)
    test = context.data.test
    began = time.perf_counter()
    with strict_fp32(), float32_by_default():
        records = metric.measure(context)
    seconds = round(time.perf_counter() - began, 3)
    for record in records:
        record.key, record.data = key, f"{test.name}, sha256 {test.content[:12]}"
        record.seconds = record.seconds or seconds  # the metric's, where its values are measured together
        record.seed = context.seed if record.seed is None else record.seed
    return records
