"""The report's sections with curves from records: robustness, calibration, detection, energies, step sweep."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from dualat.results.catalogue import attack, attacked, described
from dualat.results.naming import flat, identity, text
from dualat.results.record import Record
from dualat.results.report.parts import Group, Plot, Section, by_group, capital, filled, plot, shown
from dualat.results.report.plots import Series
from dualat.results.report.reading import number, numbers
from dualat.results.report.sections import lacking

UNIT: dict[str, Any] = {"x_range": (0.0, 1.0), "y_range": (0.0, 1.0)}


def charts(
    records: Sequence[Record], key: Callable[[Record], Any], draw: Callable[[Any, list[Record]], Plot]
) -> list[Group]:
    """A chart per group of records."""
    return filled(Group(plots=[draw(name, found) for name, found in by_group(records, key).items()]))


def joined(*words: str) -> str:
    return ", ".join(word for word in words if word)


def radius(record: Record) -> float:
    """Radius of a robust accuracy; NaN where settings give none."""
    return number(record.settings.get("eps"))


def robustness(records: Sequence[Record], run: str) -> Section:
    """Accuracy over the radius: one chart per norm, one line per model, attack and number of images."""
    own = [r for r in records if r.metric == "robust_accuracy" and math.isfinite(radius(r))]

    def draw(norm: str, found: list[Record]) -> Plot:
        end = shown_radius(found)
        chart = plot(
            f"Accuracy under attack, {norm}",
            robust_lines([r for r in found if radius(r) <= end], records),
            f"radius eps ({norm})",
            "share of images right",
            x_range=(0.0, end or 1.0),
            y_range=(0.0, 1.0),
        )
        beyond = [r for r in found if radius(r) > end]
        chart.note = ", ".join(
            f"{r.model}, {attack(flat(r.settings))} at eps {text(radius(r))}: {shown(r.value)}"
            for r in beyond
        )
        return chart

    return Section(
        "robustness",
        "Robustness",
        "Share of images that stay right under attack; upright lines are 95 % intervals. PGD alone is an upper bound of the "
        "robust accuracy: AutoAttack is nearer to the truth.",
        lacking("robust_accuracy", "robust_accuracy", run),
        charts(own, lambda r: text(r.settings.get("norm", "norm?")), draw),
    )


def shown_radius(records: Sequence[Record]) -> float:
    """Where the axis ends. A single far radius, which checks that an attack can fool at all, would squeeze the rest."""
    radii = sorted({radius(r) for r in records})
    return radii[-2] if len(radii) > 2 and radii[-1] > 3 * radii[-2] else radii[-1]


def robust_lines(attacked: Sequence[Record], records: Sequence[Record]) -> list[Series]:
    """One line per model, attack and number of images, from the clean accuracy on as many images, if it is known."""
    lines = by_group(attacked, lambda r: (r.model, r.split, attack(flat(r.settings)), r.n))
    short = [f"{model}, {by}" for model, _, by, _ in lines]
    series = []
    for (model, split, by, n), points in lines.items():
        name = f"{model}, {by}"
        name += f", {split}, n {n:,}" if short.count(name) > 1 else ""
        same = ("clean_accuracy", model, split, n)
        clean = [r for r in records if (r.metric, r.model, r.split, r.n) == same]
        at = dict([(0.0, r) for r in clean[:1]] + [(radius(r), r) for r in points])
        found = [at[eps] for eps in sorted(at)]
        ends = [r.ci95 or (math.nan, math.nan) for r in found]
        low, high = ([pair[i] for pair in ends] for i in (0, 1))
        series.append(Series(name, sorted(at), [r.value for r in found], low, high, markers=True))
    return series


def reliability(records: Sequence[Record], run: str) -> Section:
    """Accuracy over confidence, one chart per model."""

    def line(r: Record) -> Series:
        share = numbers(r.details.get("share"))
        x, y = numbers(r.details.get("confidence")), numbers(r.details.get("accuracy"))
        sizes = [2.0 + 6.0 * math.sqrt(s) if s >= 0 else 2.0 for s in share]
        heat = r.settings.get("temperature", 1)
        words = "as trained" if heat in (1, None) else f"temperature {text(heat)}"
        name = joined(words, attacked(identity(r)), f"{described(r.metric).title} {shown(r.value)}")
        filled = [i for i, pair in enumerate(zip(x, y, strict=False)) if math.isfinite(sum(pair))]
        return Series(
            name,
            [x[i] for i in filled],
            [y[i] for i in filled],
            sizes=[sizes[i] if i < len(sizes) else 3.5 for i in filled],
            markers=True,
        )

    def draw(model: str, found: list[Record]) -> Plot:
        lines = [line(r) for r in found]
        return plot(f"Reliability, {model}", lines, "confidence", "accuracy", diagonal=True, **UNIT)

    return Section(
        "calibration",
        "Calibration",
        "On the dashed line confidence equals accuracy; below it the model is too sure. The larger a marker, the more "
        "images are in its bin. ECE is the mean distance from the line over all images.",
        lacking("ece", "calibration", run),
        charts([r for r in records if r.metric == "ece"], lambda r: r.model, draw),
    )


def detection(records: Sequence[Record], run: str) -> Section:
    """ROC curves, one chart per model and set of outside images."""

    def line(r: Record) -> Series:
        score = f"score {text(r.settings.get('score'))}"
        name = joined(score, attacked(identity(r)), f"AUROC {shown(r.value)}")
        return Series(name, numbers(r.details.get("fpr")), numbers(r.details.get("tpr")))

    def draw(key: tuple[str, str], found: list[Record]) -> Plot:
        model, source = key
        lines, axes = [line(r) for r in found], ("false positive rate", "true positive rate")
        return plot(f"{source}, {model}", lines, *axes, diagonal=True, **UNIT)

    own = [r for r in records if r.metric == "ood_auroc"]
    return Section(
        "detection",
        "Detection of out-of-distribution images",
        "Held-out images of the data set against images from elsewhere; the dashed line is chance. Attacked: the image from elsewhere "
        "was changed to look familiar.",
        lacking("ood_auroc", "ood", run),
        charts(own, lambda r: (r.model, text(r.settings.get("source"))), draw),
    )


def energies(records: Sequence[Record], run: str) -> Section:
    """Histograms of E(x), one chart per model."""

    def histogram(r: Record) -> Series:
        edges, share = numbers(r.details.get("edges")), numbers(r.details.get("share"))
        widths = [b - a for a, b in pairwise(edges)]
        heights = [s / w if w > 0 else math.nan for s, w in zip(share, widths, strict=False)]
        name = f"{text(r.settings.get('images'))}, mean {shown(r.value)}"
        return Series(name, edges, heights, kind="steps")

    def draw(model: str, found: list[Record]) -> Plot:
        bars = [histogram(r) for r in found]
        return plot(f"Energies, {model}", bars, "energy E(x)", "share of images per unit of energy")

    return Section(
        "energies",
        "Energies",
        "Where E(x) of each set of images lies. A good model gives real images, seen or not, the lowest energies.",
        lacking("energy", "energy", run),
        charts([r for r in records if r.metric == "energy"], lambda r: r.model, draw),
    )


def step_sweep(records: Sequence[Record], run: str) -> Section:
    """Quality of samples over the number of sampling steps."""
    own = [r for r in records if r.metric == "step_sweep"]

    def draw(name: str) -> Plot:
        row = described(name)
        series = [
            Series(r.model, numbers(r.details.get("steps")), numbers(r.details.get(name)), markers=True)
            for r in own
            if name in r.details
        ]
        bounded = (0.0, 1.0) if row.unit == "share" else None
        return plot(capital(row.title), series, "sampling steps", row.title, y_range=bounded)

    return Section(
        "sweep",
        "Sampling steps",
        "Quality of samples over the number of gradient steps, on samples that no other metric uses.",
        lacking("step_sweep", "step_sweep", run),
        filled(Group(plots=[draw("frechet_distance"), draw("sample_class_accuracy")])),
    )
