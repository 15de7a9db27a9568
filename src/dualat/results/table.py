"""Records as a table for a terminal: one row per figure, one column per model."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from dualat.results.intervals import lopsided
from dualat.results.record import Record


def table(records: Sequence[Record], title: str) -> Table:
    """One row per figure with the settings that tell it from its neighbours, one column per model. What a training run
    ends with fits into 80 columns."""
    models = list(dict.fromkeys(r.model for r in records))
    judges = dict.fromkeys(where for r in records if (where := features_of(r)))
    caption = "± or a range: 95 % interval." + (
        f" Samples are judged in the features of {next(iter(judges))}." if len(judges) == 1 else ""
    )
    view = Table(
        title=Text(title),  # as it is: [x] in a name is no markup
        title_justify="left",
        caption=Text(caption),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    view.add_column("figure")
    for name in models:
        view.add_column(Text(name), justify="right")
    view.add_column("n", justify="right")
    rows: dict[str, dict[str, Record]] = {}
    for record in records:
        rows.setdefault(row_name(record, len(judges) > 1), {})[record.model] = record
    for name, cells in rows.items():
        view.add_row(
            Text(name),
            *(cell(cells[m]) if m in cells else "" for m in models),
            str(next(iter(cells.values())).n),
        )
    return view


OF_SAMPLES = {
    "sample_class_accuracy": "class accuracy",
    "frechet_distance": "Frechet distance",
    "kernel_distance": "kernel distance",
    "precision": "precision",
    "recall": "recall",
    "fid": "FID",
    "kid": "KID",
    "inception_score": "Inception Score",
}


def features_of(record: Record) -> str:
    """Whose features a figure of samples is taken in, shortly; nothing where that is in the figure's own name (FID)."""
    features = str(record.settings.get("features", "")) if record.metric in OF_SAMPLES else ""
    return "" if features.startswith("inception") else features.split(",")[0]


def row_name(record: Record, with_features: bool = True) -> str:
    """A figure with the settings that tell it from its neighbours. with_features: whose features its samples are judged in
    is one of these."""
    try:
        return _told_apart(record, with_features)
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ):  # a file of records that another hand has changed
        return record.metric.replace("_", " ")


def _told_apart(record: Record, with_features: bool) -> str:
    s, metric = record.settings, record.metric
    if metric == "robust_accuracy":
        attack = (
            f"PGD-{s['steps']}" if s.get("attack", "pgd") == "pgd" else ATTACKS.get(s["attack"], s["attack"])
        )
        return f"robust, {s['norm']} {s['eps']:g}, {attack}"
    if metric in OF_SAMPLES:
        where = features_of(record) if with_features else ""
        return f"samples: {OF_SAMPLES[metric]}" + (f", {where}" if where else "")
    if metric == "ece":
        return f"calibration error (ECE){under(s.get('attack'))}"
    if metric.startswith("ood_"):
        name = {"ood_auroc": "AUROC", "ood_aupr": "AUPR", "ood_fpr95": "FPR at 95 % TPR"}[metric]
        return f"OOD {s['source']}, {s['score']}: {name}{under(s.get('attack'), s['score'])}"
    if metric.startswith("counterfactual_"):
        climb = ", by p(target)" if s.get("objective") == "target probability" else ""
        return f"counterfactuals, {s['norm']} {s['eps']:g}{climb}: {metric.partition('_')[2]}"
    if metric == "energy":
        return f"mean energy, {s['images']}"
    if metric == "r1":
        return "gradient norm R1"
    if metric == "throughput":
        return f"images/s, {s['task']}" + (f", {s['steps']} steps" if s["steps"] else "")
    if metric == "step_sweep":
        return "sampling steps by the sweep"
    return metric.replace("_", " ")


ATTACKS = {"autoattack": "AutoAttack", "apgd": "APGD"}


def under(attack: dict[str, Any] | None, score: str | None = None) -> str:
    """How an attack is named in a row; by the score that it climbs, where that is another than the row's."""
    if attack is None:
        return ""
    through = (
        f" through {attack['objective']}"
        if score is not None and attack.get("objective", score) != score
        else ""
    )
    return f", attacked{through} {attack['norm']} {attack['eps']:g}"


def cell(record: Record) -> str:
    """Value to three digits at least, and half the width of its 95 % interval, or its ends where it is lopsided."""
    value, digits = record.value, digits_after_point(record.value)
    text = f"{value:.{digits}f}"
    if record.ci95 is None:
        return text
    low, high = record.ci95
    if lopsided(value, record.ci95):
        return f"{text} " + "-".join(f"{end:.{digits}f}".replace("0.", ".", 1) for end in (low, high))
    return f"{text} ±{(high - low) / 2:.{digits}f}"


def digits_after_point(value: float) -> int:
    """Three below 10, then fewer: 0.123, 12.34, 123.4, 1234."""
    return 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
