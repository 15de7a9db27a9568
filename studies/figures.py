"""Figures of the studies, drawn from records alone."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from measures import CLEAN, JUDGED, curve, pgd, unsteady
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


def draw(study: Study, folder: Path) -> Path | None:
    """The study's figure as a PNG; None where it has no figure, or no records for it: then an older one is removed."""
    drawing = DRAWINGS.get(study.name)
    if drawing is None:
        return None
    path = folder / f"{study.name}.png"
    figure, axes = plt.subplots(figsize=(6.4, 4.0), dpi=100, layout="constrained")
    try:
        if not drawing(study, axes):
            path.unlink(missing_ok=True)
            return None
        axes.set_title(study.plan["title"], fontsize=10)
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})
        return path
    finally:
        plt.close(figure)


def style(study: Study, variant: str) -> tuple[str, str]:
    """The variant's colour and marker, the same in every figure of the study."""
    index = list(study.runs).index(variant)
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def bars(values: Values) -> list[list[float]]:
    """Error bars from the least to the greatest seed."""
    return [[values.mean - values.low], [values.high - values.mean]]


def plane(x: Figure, y: Figure) -> Drawing:
    """One labelled point per variant; error bars from the least to the greatest seed."""

    def drawing(study: Study, axes: Axes) -> bool:
        found = [(v, study.values(v, x), study.values(v, y)) for v in study.runs]
        points = [(v, a, b) for v, a, b in found if a is not None and b is not None]
        for variant, a, b in points:
            colour, marker = style(study, variant)
            axes.errorbar(
                a.mean, b.mean, bars(b), bars(a), color=colour, marker=marker, capsize=2, lw=1, label=variant
            )
        axes.set_xlabel(f"{x.name} (left is better)" if x.unit == "distance" else x.name)
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
    """A figure of stage 2 over its steps: one thin line per seed, and the mean over seeds."""

    def drawing(study: Study, axes: Axes) -> bool:
        drawn = False
        for variant, runs in study.runs.items():
            colour, _ = style(study, variant)
            lines = [dict(curve(run, name, 2)) for run in runs.values()]
            lines = [line for line in lines if line]
            for line in lines:
                axes.plot(list(line), list(line.values()), color=colour, lw=0.6, alpha=0.4)
            if lines:
                steps = sorted(set().union(*lines))
                means = [statistics.fmean(line[s] for line in lines if s in line) for s in steps]
                axes.plot(steps, means, color=colour, lw=1.8, label=variant)
                drawn = True
        if log:
            axes.set_yscale("log")
        axes.set_xlabel("step of stage 2")
        axes.set_ylabel(words)
        if drawn:
            axes.legend(fontsize=8)
        return drawn

    return drawing


def divergences(study: Study, axes: Axes) -> bool:
    """Runs that diverged, by variant."""
    made = {v: runs for v, runs in study.runs.items() if runs}
    counts = [sum(map(unsteady, runs.values())) for runs in made.values()]
    steady = [len(runs) - count for runs, count in zip(made.values(), counts, strict=True)]
    axes.bar(list(made), counts, color=COLOURS[1], label="diverged")
    axes.bar(list(made), steady, bottom=counts, color=COLOURS[4], label="steady")
    axes.tick_params(axis="x", rotation=45)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("runs")
    if made:
        axes.set_ylim(0, 1.2 * max(map(len, made.values())))
        axes.legend(fontsize=8, loc="upper left", ncols=2)
    return bool(made)


DRAWINGS: dict[str, Drawing] = {
    "systems": plane(JUDGED, pgd(1.0)),
    "stability": divergences,
    "ablation-batchnorm": course("loss_energy", "L_BCE", log=False),
    "ablation-knob": plane(JUDGED, CLEAN),
    "ablation-initial": plane(JUDGED, CLEAN),
    "ablation-at-branch": course("r1", "R1 on real images", log=True),
    "ablation-energy": plane(JUDGED, CLEAN),
}
