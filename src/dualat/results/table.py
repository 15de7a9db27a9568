"""Records as a table for a terminal: one row per figure, one column per model."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from dualat.results.intervals import lopsided
from dualat.results.record import Record


def table(records: Sequence[Record], title: str) -> Table:
    """One row per figure with the settings that tell it from its neighbours, one column per model."""
    models = list(dict.fromkeys(r.model for r in records))
    view = Table(title=title, title_justify="left")
    view.add_column("figure")
    for name in models:
        view.add_column(name, justify="right")
    view.add_column("n", justify="right")
    rows: dict[str, dict[str, Record]] = {}
    for record in records:
        rows.setdefault(row_name(record), {})[record.model] = record
    for name, cells in rows.items():
        view.add_row(
            name, *(cell(cells[m]) if m in cells else "" for m in models), str(next(iter(cells.values())).n)
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


def row_name(record: Record) -> str:
    """A figure with the settings that tell it from its neighbours."""
    s, metric = record.settings, record.metric
    if metric == "robust_accuracy":
        attack = (
            f"PGD-{s['steps']}" if s.get("attack", "pgd") == "pgd" else ATTACKS.get(s["attack"], s["attack"])
        )
        return f"robust accuracy, {s['norm']} {s['eps']:g}, {attack}"
    if metric in OF_SAMPLES:
        features = str(s.get("features", ""))
        where = "" if not features or features.startswith("inception") else f", {features.split(',')[0]}"
        return f"samples: {OF_SAMPLES[metric]}{where}"
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
    """Value, and half the width of its 95 % interval."""
    small = abs(record.value) < 10
    value = (
        f"{record.value:.3f}"
        if small
        else f"{record.value:.2f}"
        if abs(record.value) < 1000
        else f"{record.value:.0f}"
    )
    if record.ci95 is None:
        return value
    low, high = record.ci95
    half = (high - low) / 2
    if lopsided(record.value, record.ci95):
        return f"{value} [{low:.3f}, {high:.3f}]"
    return f"{value} ±{half:.3f}" if small else f"{value} ±{half:.2f}"
