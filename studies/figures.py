"""Figures of the studies, drawn from records alone."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from claims import NO_SYSTEMS
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox
from measures import CLEAN, EXPLODED, JUDGED, curve, pgd, relative_cost, unsteady
from reading import Figure, Study, Values

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#000000",
    "#7F7F7F",
    "#8C564B",
    "#6A3D9A",
    "#A6761D",
    "#17A2B8",
)
MARKERS = "osD^vP*Xh<>"
PLACES = [(x, y) for y in (9, -9, 0, 20, -20) for x in (7, -7)]
"""Offsets of a point's name, in points; the best first."""

Drawing = Callable[[Study, Axes], bool]
"""Draws a study on axes; False where there is nothing to draw."""


def draw(study: Study, folder: Path) -> list[Path]:
    """The study's figures as PNGs. One for which there are no records yet is left out, and an older one of it removed."""
    paths = []
    for name, drawing in DRAWINGS.get(study.name, {}).items():
        path = folder / f"{name}.png"
        figure, axes = plt.subplots(figsize=(6.4, 4.0), dpi=100, layout="constrained")
        try:
            if not drawing(study, axes):
                path.unlink(missing_ok=True)
                continue
            axes.set_title(axes.get_title() or study.plan["title"], fontsize=10)
            axes.grid(alpha=0.25)
            axes.set_axisbelow(True)
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, metadata={"Software": None})
            paths.append(path)
        finally:
            plt.close(figure)
    return paths


def style(study: Study, variant: str) -> tuple[str, str]:
    """The variant's colour and marker, the same in every figure of the study."""
    index = list(study.runs).index(variant)
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def interval(figure: Figure, values: Values) -> float | None:
    """Half of the bar at a variant's mean: of one seed's 95 % interval, where other test images would move all seeds alike, or
    where there is one seed alone; None where the seeds themselves show what samples vary by."""
    return None if figure.of_samples and len(values.by_seed) > 1 else values.half


def plane(x: Figure, y: Figure) -> Drawing:
    """One labelled mark per variant, at its means, a dot per seed, and 95 % intervals."""

    def drawing(study: Study, axes: Axes) -> bool:
        found = [(v, study.values(v, x), study.values(v, y)) for v in study.runs]
        points = [(v, a, b) for v, a, b in found if a is not None and b is not None]
        for variant, a, b in points:
            colour, marker = style(study, variant)
            filled = "white" if variant in NO_SYSTEMS else colour
            axes.errorbar(
                a.mean,
                b.mean,
                interval(y, b),
                interval(x, a),
                color=colour,
                marker=marker,
                mfc=filled,
                capsize=2,
                lw=0.7,
            )
            both = sorted(a.by_seed.keys() & b.by_seed.keys())
            if len(both) > 1:
                dots = [[side.by_seed[s].value for s in both] for side in (a, b)]
                axes.plot(*dots, color=colour, marker=".", ms=4, ls="", alpha=0.6)
        axes.set_xlabel(f"{x.name} (left is better)" if x.better == "less" else x.name)
        axes.set_ylabel(y.name)
        if points and max(a.mean for _, a, _ in points) > 8 * min(a.mean for _, a, _ in points):
            axes.set_xscale("log")
        axes.margins(0.12)
        label(axes, [(v, a.mean, b.mean, style(study, v)[0]) for v, a, b in points])
        return bool(points)

    return drawing


def label(axes: Axes, points: Sequence[tuple[str, float, float, str]]) -> None:
    """Names beside their points, in their colour, at the first place where they lie on no other name, no point and no border."""
    figure = axes.figure
    figure.canvas.draw()  # the layout, and with it where points are on the page
    spots = [axes.transData.transform((x, y)) for _, x, y, _ in points]
    taken: list[Bbox] = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in spots]
    for variant, x, y, colour in points:
        for right, up in PLACES:
            text = axes.annotate(
                variant,
                (x, y),
                xytext=(right, up),
                textcoords="offset points",
                fontsize=8,
                color=colour,
                ha="left" if right > 0 else "right",
                va="center",
            )
            box = text.get_window_extent()
            inside = axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1
            if (inside and not any(box.overlaps(other) for other in taken)) or (right, up) == PLACES[-1]:
                taken.append(box)
                break
            text.remove()


def course(name: str, words: str, log: bool) -> Drawing:
    """A figure of stage 2 over its steps, a line per run: a mean over seeds would smooth what is asked about."""

    def drawing(study: Study, axes: Axes) -> bool:
        drawn = False
        for variant, runs in study.runs.items():
            colour, _ = style(study, variant)
            lines = [line for run in runs.values() if (line := curve(run, name, 2))]
            for number, line in enumerate(lines):
                words_once = variant if number == 0 else None
                axes.plot(*zip(*line, strict=True), color=colour, lw=0.9, alpha=0.75, label=words_once)
                drawn = True
        if log:
            axes.set_yscale("log")
        axes.set_xlabel("step of stage 2")
        axes.set_ylabel(words)
        if drawn:
            axes.legend(fontsize=8)
        return drawn

    return drawing


def steadiness(study: Study, axes: Axes) -> bool:
    """The largest logged |loss| of each run; a cross where a run diverged, above the line whatever its loss."""
    places = {v: place for place, (v, runs) in enumerate(study.runs.items()) if runs}
    for variant, place in places.items():
        for shift, run in enumerate(study.runs[variant].values()):
            losses = [abs(v) for v in run["curves"].get("loss", []) if v is not None and math.isfinite(v)]
            bad = unsteady(run)
            axes.plot(
                place + 0.5 * ((shift + 0.5) / len(study.runs[variant]) - 0.5),
                min(max(losses, default=EXPLODED), 1.5 * EXPLODED),
                color=COLOURS[1] if bad else COLOURS[0],
                marker="X" if bad else "o",
                ms=5,
                ls="",
            )
    axes.axhline(EXPLODED, color=COLOURS[1], lw=1)
    axes.annotate(
        "counts as diverged above", (0, EXPLODED), xytext=(2, -10), textcoords="offset points", fontsize=8
    )
    axes.set_ylim(0.5, 2 * EXPLODED)
    axes.set_yscale("log")
    axes.set_xticks(list(places.values()), list(places), rotation=45)
    axes.set_ylabel("largest logged |loss| of a run")
    return bool(places)


def costs(study: Study, axes: Axes) -> bool:
    """Training time of each variant, relative to standard-at."""
    found = {v: values.mean for v in study.runs if (values := relative_cost(study, v)) is not None}
    order = sorted(found, key=lambda v: -found[v])
    drawn = axes.barh(order, [found[v] for v in order], color=[style(study, v)[0] for v in order])
    axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=8)
    axes.margins(x=0.1)
    axes.set_xlabel("training time, standard-at = 1")
    axes.set_title("What training costs")
    return bool(found)


DRAWINGS: dict[str, dict[str, Drawing]] = {
    "systems": {"systems": plane(JUDGED, pgd(1.0)), "systems-cost": costs},
    "stability": {"stability": steadiness},
    "ablation-batchnorm": {"ablation-batchnorm": course("loss_energy", "L_BCE", log=False)},
    "ablation-knob": {"ablation-knob": plane(JUDGED, CLEAN)},
    "ablation-initial": {"ablation-initial": plane(JUDGED, CLEAN)},
    "ablation-at-branch": {"ablation-at-branch": course("r1", "R1 on real images", log=True)},
    "ablation-energy": {"ablation-energy": plane(JUDGED, CLEAN)},
}
"""By study: file name and drawing of each figure."""
