"""The section on the course of training, from metrics.jsonl."""

import math
from typing import Any

from dualat.results.catalogue import described
from dualat.results.naming import spoken
from dualat.results.report.parts import Group, Plot, Section, plot
from dualat.results.report.plots import Series
from dualat.results.report.reading import methods, number, setting

CHARTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Losses", "loss", ("loss_ce", "loss_energy")),
    ("Steps of the contrastive samples", "T", ("T",)),
    ("Telling real from contrastive images", "AUROC", ("auroc",)),
    ("Validation accuracy", "share of images", ("validation_clean_accuracy", "validation_robust_accuracy")),
    ("Validation: sample class accuracy", "share of samples", ("validation_sample_class_accuracy",)),
    ("Validation: Frechet distance", "distance", ("validation_frechet_distance",)),
    ("Squared gradient norm on real images", "R1", ("r1",)),
    ("Learning rate", "learning rate", ("lr",)),
    ("Speed", "images per second", ("images_per_second",)),
    ("Gradient norm of the weights", "norm", ("gradient_norm",)),
)
NAMES = {
    "loss_ce": "classification",
    "loss_energy": "energy",
    "auroc": "AUROC",
    "r1": "R1",
    "lr": "learning rate",
}
VALIDATION = "validation_"
"""What names of metric values on validation images begin with."""
Curves = dict[str, list[tuple[float, float]]]


def training(stages: dict[int, Curves], config: dict[str, Any], run: str) -> Section:
    """Losses, curriculum and validation values over the steps of each stage."""
    section = Section(
        "training",
        "Training",
        "Values of single batches as logged; long curves are averaged, the band spans the least to the greatest value. "
        "Validation values are of the averaged weights.",
        f"No metrics.jsonl in {run}: `dualat train RECIPE --output {run}` writes it.",
    )
    known = methods(config)
    for stage, curves in stages.items():
        method = known.get(stage) or (known.get(0, {}) if stage == max(stages) else {})
        title = f"Stage {stage}: {method['name']}" if method.get("name") else f"Stage {stage}"
        section.groups.append(Group(title, plots=stage_plots(curves, method)))
    return section


def stage_plots(curves: Curves, method: dict[str, Any]) -> list[Plot]:
    """One chart per kind of value, with the settings of the stage's method; those that this file does not know get one each."""
    known = {name for _, _, names in CHARTS for name in names}
    if any(name in curves for name in ("loss_ce", "loss_energy")):
        known.add("loss")  # the weighted sum of the two
    charts = list(CHARTS)
    if others := [n for n in curves if n.startswith("loss_") and n not in known]:
        charts[0] = (charts[0][0], charts[0][1], (*charts[0][2], *others))
        known.update(others)
    charts += [(spoken(name), spoken(name), (name,)) for name in curves if name not in known]
    plots = []
    last = max((step for points in curves.values() for step, _ in points), default=0.0)
    for title, label, names in charts:
        series = []
        for name in names:
            if points := curves.get(name):
                markers = name.startswith(VALIDATION) and len(points) < 60
                x, y = zip(*points, strict=True)
                series.append(Series(title_of(name), x, y, markers=markers))
        share = all(described(name.removeprefix(VALIDATION)).unit == "share" for name in names)
        plots.append(
            plot(
                title,
                series,
                "step",
                label,
                always=len(names) > 1,
                x_range=(0.0, last) if last > 0 else None,
                y_range=(0.0, 1.0) if share else None,
                guides=guides(label, method),
                log=label in ("R1", "norm", "loss") and wide(series),
            )
        )
    return [p for p in plots if p.svg]


def guides(label: str, method: dict[str, Any]) -> list[tuple[float, str]]:
    """The curriculum's settings as lines in its charts."""
    name, text = {
        "T": ("contrastive.t_max", "T_max"),
        "AUROC": ("contrastive.auc_threshold", "T grows above"),
    }.get(label, ("", ""))
    value = number(setting(method, name)) if name else math.nan
    stride = number(setting(method, "contrastive.stride")) if label == "T" else 1.0
    if stride > 1 and math.isfinite(value) and math.isfinite(stride):
        value = float(math.ceil(value / stride))  # steps that are taken as one (methods/dat.py)
    return [(value, f"{text} {value:g}")] if math.isfinite(value) else []


def wide(series: list[Series]) -> bool:
    """Whether values span so much that a linear axis hides most of them."""
    values = sorted(v for s in series for v in s.y)
    return bool(values) and values[len(values) // 20] > 0 and values[-1] > 300 * values[len(values) // 20]


def title_of(name: str) -> str:
    """What a logged value is called."""
    if name.startswith(VALIDATION):
        return described(name.removeprefix(VALIDATION)).title
    return NAMES.get(name, spoken(name))
