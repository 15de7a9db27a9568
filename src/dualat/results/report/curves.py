"""The report's sections with curves from records: robustness, calibration, detection, energies, step sweep."""

import math
from collections.abc import Sequence
from itertools import pairwise

from dualat.results.catalogue import attack, attacked, described
from dualat.results.naming import flat, identity, text
from dualat.results.record import Record
from dualat.results.report.parts import Group, Section, capital, plot, shown
from dualat.results.report.plots import Series
from dualat.results.report.reading import number, numbers
from dualat.results.report.sections import by_group, lacking


def radius(record: Record) -> float:
    """Radius of a robust accuracy; NaN where settings give none."""
    return number(record.settings.get("eps"))


def robustness(figures: Sequence[Record], run: str) -> Section:
    """Accuracy over the radius: one chart per norm, one line per model, attack and number of images."""
    section = Section(
        "robustness",
        "Robustness",
        "Share of images that stay right under attack; upright lines are 95 % intervals. PGD alone is an upper bound of the "
        "robust accuracy: AutoAttack is nearer to the truth.",
    )
    own = [f for f in figures if f.metric == "robust_accuracy" and math.isfinite(radius(f))]
    group = Group()
    for norm, found in by_group(own, lambda f: text(f.settings.get("norm", "norm?"))).items():
        end = shown_radius(found)
        beyond = [f for f in found if radius(f) > end]
        chart = plot(
            f"Accuracy under attack, {norm}",
            robust_lines([f for f in found if radius(f) <= end], figures),
            f"radius eps ({norm})",
            "share of images right",
            x_range=(0.0, end or 1.0),
            y_range=(0.0, 1.0),
        )
        chart.note = ", ".join(
            f"{f.model}, {attack(flat(f.settings))} at eps {text(radius(f))}: {shown(f.value)}"
            for f in beyond
        )
        group.plots.append(chart)
    return finished(section, group, lacking("robust_accuracy", "robust_accuracy", run))


def shown_radius(figures: Sequence[Record]) -> float:
    """Where the axis ends. A single far radius, which checks that an attack can fool at all, would squeeze the rest."""
    radii = sorted({radius(f) for f in figures})
    return radii[-2] if len(radii) > 2 and radii[-1] > 3 * radii[-2] else radii[-1]


def robust_lines(records: Sequence[Record], figures: Sequence[Record]) -> list[Series]:
    """One line per model, attack and number of images, from the clean accuracy on as many images, if it is known."""
    lines = by_group(records, lambda f: (f.model, f.split, attack(flat(f.settings)), f.n))
    short = [f"{model}, {by}" for model, _, by, _ in lines]
    series = []
    for (model, split, by, n), points in lines.items():
        name = f"{model}, {by}"
        name += f", {split}, n {n:,}" if short.count(name) > 1 else ""
        same = ("clean_accuracy", model, split, n)
        clean = [f for f in figures if (f.metric, f.model, f.split, f.n) == same]
        at = dict([(0.0, f) for f in clean[:1]] + [(radius(f), f) for f in points])
        series.append(line(name, [(eps, at[eps]) for eps in sorted(at)]))
    return series


def line(name: str, points: Sequence[tuple[float, Record]]) -> Series:
    """Metric values over something, with their intervals."""
    intervals = [f.ci95 or (math.nan, math.nan) for _, f in points]
    return Series(
        name,
        [x for x, _ in points],
        [f.value for _, f in points],
        [low for low, _ in intervals],
        [high for _, high in intervals],
        markers=True,
    )


def reliability(figures: Sequence[Record], run: str) -> Section:
    """Accuracy over confidence, one chart per model."""
    section = Section(
        "calibration",
        "Calibration",
        "On the dashed line confidence equals accuracy; below it the model is too sure. The larger a marker, the more "
        "images are in its bin. ECE is the mean distance from the line over all images.",
    )
    group = Group()
    own = [f for f in figures if f.metric == "ece"]
    for model, records in by_group(own, lambda f: f.model).items():
        series = []
        for f in records:
            share = numbers(f.details.get("share"))
            x, y = numbers(f.details.get("confidence")), numbers(f.details.get("accuracy"))
            sizes = [2.0 + 6.0 * math.sqrt(s) if s >= 0 else 2.0 for s in share]
            heat = f.settings.get("temperature", 1)
            words = [
                "as trained" if heat in (1, None) else f"temperature {text(heat)}",
                attacked(identity(f)),
                f"{described(f.metric).title} {shown(f.value)}",
            ]
            filled = [i for i, pair in enumerate(zip(x, y, strict=False)) if math.isfinite(sum(pair))]
            series.append(
                Series(
                    ", ".join(w for w in words if w),
                    [x[i] for i in filled],
                    [y[i] for i in filled],
                    sizes=[sizes[i] if i < len(sizes) else 3.5 for i in filled],
                    markers=True,
                )
            )
        group.plots.append(
            plot(
                f"Reliability, {model}",
                series,
                "confidence",
                "accuracy",
                x_range=(0.0, 1.0),
                y_range=(0.0, 1.0),
                diagonal=True,
            )
        )
    return finished(section, group, lacking("ece", "calibration", run))


def detection(figures: Sequence[Record], run: str) -> Section:
    """ROC curves, one chart per model and set of outside images."""
    section = Section(
        "detection",
        "Detection of out-of-distribution images",
        "Held-out images of the data set against images from elsewhere; the dashed line is chance. Attacked: the image from elsewhere "
        "was changed to look familiar.",
    )
    group = Group()
    own = [f for f in figures if f.metric == "ood_auroc"]
    for (model, source), records in by_group(
        own, lambda f: (f.model, text(f.settings.get("source")))
    ).items():
        series = []
        for f in records:
            words = [
                f"score {text(f.settings.get('score'))}",
                attacked(identity(f)),
                f"AUROC {shown(f.value)}",
            ]
            x, y = numbers(f.details.get("fpr")), numbers(f.details.get("tpr"))
            series.append(Series(", ".join(w for w in words if w), x, y))
        group.plots.append(
            plot(
                f"{source}, {model}",
                series,
                "false positive rate",
                "true positive rate",
                x_range=(0.0, 1.0),
                y_range=(0.0, 1.0),
                diagonal=True,
            )
        )
    return finished(section, group, lacking("ood_auroc", "ood", run))


def energies(figures: Sequence[Record], run: str) -> Section:
    """Histograms of E(x), one chart per model."""
    section = Section(
        "energies",
        "Energies",
        "Where E(x) of each set of images lies. A good model gives real images, seen or not, the lowest energies.",
    )
    group = Group()
    own = [f for f in figures if f.metric == "energy"]
    for model, records in by_group(own, lambda f: f.model).items():
        series = []
        for f in records:
            edges, share = numbers(f.details.get("edges")), numbers(f.details.get("share"))
            widths = [b - a for a, b in pairwise(edges)]
            heights = [s / w if w > 0 else math.nan for s, w in zip(share, widths, strict=False)]
            name = f"{text(f.settings.get('images'))}, mean {shown(f.value)}"
            series.append(Series(name, edges, heights, kind="steps"))
        group.plots.append(
            plot(f"Energies, {model}", series, "energy E(x)", "share of images per unit of energy")
        )
    return finished(section, group, lacking("energy", "energy", run))


def step_sweep(figures: Sequence[Record], run: str) -> Section:
    """Quality of samples over the number of sampling steps."""
    section = Section(
        "sweep",
        "Sampling steps",
        "Quality of samples over the number of gradient steps, on samples that no other metric uses.",
    )
    group = Group()
    own = [f for f in figures if f.metric == "step_sweep"]
    for name in ("frechet_distance", "sample_class_accuracy"):
        row = described(name)
        series = [
            Series(f.model, numbers(f.details.get("steps")), numbers(f.details.get(name)), markers=True)
            for f in own
            if name in f.details
        ]
        bounded = (0.0, 1.0) if row.unit == "share" else None
        group.plots.append(plot(capital(row.title), series, "sampling steps", row.title, y_range=bounded))
    return finished(section, group, lacking("step_sweep", "step_sweep", run))


def finished(section: Section, group: Group, missing: str) -> Section:
    """The section with the charts that show anything, or with what makes them."""
    group.plots = [p for p in group.plots if p.svg]
    if group.plots:
        section.groups.append(group)
    else:
        section.missing = missing
    return section
