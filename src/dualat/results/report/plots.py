"""Line charts and histograms as inline SVG without ids, scripts or fonts: colours come from the page's style sheet.

Every series has its own colour, dashes and marker, so that a chart also reads in grey and to the colour-blind. Drawings
are 380 units wide, about the width at which the page shows them, so that 12-unit text stays legible on a phone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 380, 262
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 12, 42
STYLES = 6
"""Number of series styles in the style sheet (s0 ... s5); more series start again."""
DENSEST = 160
"""Points of a line; longer ones are averaged, with a band from least to greatest."""


@dataclass
class Series:
    """One line, or with kind "steps" one histogram (then x holds one edge more than y holds values)."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    sizes: Sequence[float] = ()
    """Marker radii; none: 3."""
    kind: str = "line"
    markers: bool = False


@dataclass
class Axis:
    """Maps values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        share = ((math.log10(value) if self.log else value) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            every = max(1, (last - first + 1) // 5)
            return [10.0**e for e in range(first, last + 1, every)]
        raw = (self.high - self.low) / 4
        unit = 10 ** math.floor(math.log10(raw))
        step = min((m * unit for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 12) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    guides: Sequence[tuple[float, str]] = (),
    diagonal: bool = False,
    log: bool = False,
) -> str:
    """A chart as one SVG element, or "" where no series holds a finite point.

    guides: horizontal lines (value, label). diagonal: the line y = x. log: a logarithmic y axis, if all values allow it.
    """
    series = [thin(s) for s in series]
    xs = [v for s in series for v in s.x if math.isfinite(v)]
    ys = [v for s in series for v in (*s.y, *s.low, *s.high) if math.isfinite(v)]
    if not xs or not ys:
        return ""
    log = log and min(ys) > 0
    filled = any(s.kind == "steps" for s in series)
    x_axis = Axis(*(x_range or spread(min(xs), max(xs))), LEFT, WIDTH - RIGHT)
    low, high = y_range or room(
        min([*ys, *(g for g, _ in guides)]), max([*ys, *(g for g, _ in guides)]), log, filled
    )
    y_axis = Axis(low, high, HEIGHT - BOTTOM, TOP, log)
    parts, labels = [*frame(x_axis, y_axis, x_label, y_label)], []
    if diagonal:
        low, high = max(x_axis.low, y_axis.low), min(x_axis.high, y_axis.high)
        parts.append(
            f'<line class="guide" x1="{x_axis(low)}" y1="{y_axis(low)}" x2="{x_axis(high)}" y2="{y_axis(high)}"/>'
        )
    for value, label in guides:
        y = y_axis(value)
        parts.append(f'<line class="guide" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>')
        up = y - 5 if y > TOP + 18 else y + 13
        labels.append(f'<text class="note" x="{WIDTH - RIGHT - 2}" y="{up}">{escape(label)}</text>')
    for i, s in enumerate(series):
        parts += drawing(s, i % STYLES, x_axis, y_axis)
    parts += labels  # over the lines
    label = escape(f"{title}. {x_label} against {y_label}. {' '.join(summary(s) for s in series)}")
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def thin(s: Series) -> Series:
    """A long line as means over equal counts of points, with a band from the least to the greatest of each."""
    if s.kind != "line" or s.markers or len(s.x) <= DENSEST:
        return s
    size = -(-len(s.x) // DENSEST)
    x, y, low, high = [], [], [], []
    for first in range(0, len(s.x), size):
        part = [v for v in s.y[first : first + size] if math.isfinite(v)]
        x.append(s.x[min(first + size, len(s.x)) - 1])
        y.append(math.fsum(part) / len(part) if part else math.nan)
        low.append(min(part, default=math.nan))
        high.append(max(part, default=math.nan))
    return Series(s.name, x, y, low, high)


def spread(low: float, high: float) -> tuple[float, float]:
    """A range that is not empty."""
    gap = (abs(low) or 1.0) * 0.1 if high - low <= 1e-9 * max(abs(low), abs(high)) else 0.0
    return low - gap, high + gap


def room(low: float, high: float, log: bool, from_zero: bool) -> tuple[float, float]:
    """Range of the y axis: a little more than the values; from zero where bars stand on it or it is near."""
    if log:
        return (low / 1.2, high * 1.2) if high > 1.05 * low else (low / 3, high * 3)
    low, high = spread(low, high)
    if from_zero or 0 <= low < 0.4 * high:
        return 0.0, high * 1.05
    gap = 0.06 * (high - low)
    return low - gap, high + gap


def tick(value: float) -> str:
    """A tick's label, short."""
    if value and (abs(value) >= 100_000 or abs(value) < 1e-3):
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")


def frame(x_axis: Axis, y_axis: Axis, x_label: str, y_label: str) -> list[str]:
    """Grid lines, tick labels and axis labels."""
    parts = []
    floor = HEIGHT - BOTTOM
    for value in y_axis.ticks():
        y = y_axis(value)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 7}" y="{y + 4}">{tick(value)}</text>')
    for value in x_axis.ticks():
        x = x_axis(value)
        parts.append(f'<line class="axis" x1="{x}" y1="{floor}" x2="{x}" y2="{floor + 4}"/>')
        parts.append(f'<text class="tick mid" x="{min(x, WIDTH - 17)}" y="{floor + 17}">{tick(value)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{floor}" x2="{WIDTH - RIGHT}" y2="{floor}"/>')
    middle, half = (LEFT + WIDTH - RIGHT) / 2, (TOP + floor) / 2
    parts.append(f'<text class="label mid" x="{middle}" y="{HEIGHT - 6}">{escape(x_label)}</text>')
    parts.append(
        f'<text class="label mid" transform="translate(10 {half}) rotate(-90)">{escape(y_label)}</text>'
    )
    return parts


def drawing(s: Series, style: int, x_axis: Axis, y_axis: Axis) -> list[str]:
    """Band, line, error bars and markers of one series."""
    if s.kind == "steps":
        return histogram(s, style, x_axis, y_axis)
    parts, points = [], list(zip(s.x, s.y, strict=False))
    drawn = [(x_axis(x), y_axis(y), i) for i, (x, y) in enumerate(points) if math.isfinite(x + y)]
    ends = list(zip(s.x, s.low, s.high, strict=False))
    if s.markers:
        for x, low, high in ends:
            if math.isfinite(x + low + high):
                parts.append(
                    f'<line class="s{style} error" x1="{x_axis(x)}" y1="{y_axis(low)}" '
                    f'x2="{x_axis(x)}" y2="{y_axis(high)}"/>'
                )
    elif band := [(x, a, b) for x, a, b in ends if math.isfinite(x + a + b)]:
        there = " ".join(f"{x_axis(x)},{y_axis(b)}" for x, _, b in band)
        back = " ".join(f"{x_axis(x)},{y_axis(a)}" for x, a, _ in reversed(band))
        parts.append(f'<polygon class="f{style}" points="{there} {back}"/>')
    if len(drawn) > 1:
        parts.append(f'<polyline class="s{style}" points="{" ".join(f"{x},{y}" for x, y, _ in drawn)}"/>')
    if s.markers or len(drawn) == 1:
        for x, y, i in drawn:
            radius = round(s.sizes[i], 1) if i < len(s.sizes) and math.isfinite(s.sizes[i]) else 3.5
            hint = escape(f"{s.name}: {points[i][1]:.4g} at {points[i][0]:.4g}")
            parts.append(marker(style, x, y, radius, hint))
    return parts


def swatch(s: Series, number: int) -> str:
    """The series' line, and its marker if it has one, for the legend."""
    style = number % STYLES
    shape = marker(style, 14, 6, 3.5) if s.markers else ""
    line = f'<line class="s{style}" x1="1" y1="6" x2="27" y2="6"/>'
    return f'<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true">{line}{shape}</svg>'


def histogram(s: Series, style: int, x_axis: Axis, y_axis: Axis) -> list[str]:
    """An outline with a light filling."""
    floor = y_axis(y_axis.low)
    bars = [
        (x_axis(a), x_axis(b), y_axis(v))
        for a, b, v in zip(s.x, s.x[1:], s.y, strict=False)
        if math.isfinite(a + b + v)
    ]
    if not bars:
        return []
    path = (
        f"M{bars[0][0]},{floor}"
        + "".join(f"L{a},{y}L{b},{y}" for a, b, y in bars)
        + f"L{bars[-1][1]},{floor}"
    )
    return [f'<path class="f{style}" d="{path}"/>', f'<path class="s{style}" d="{path}"/>']


def marker(style: int, x: float, y: float, r: float, hint: str = "") -> str:
    """A marker whose shape goes with the style; the value shows where the pointer rests."""
    title = f"<title>{hint}</title>" if hint else ""
    shapes = (
        None,
        [(-r, -r), (r, -r), (r, r), (-r, r)],
        [(0, -1.3 * r), (1.2 * r, r), (-1.2 * r, r)],
        [(0, -1.4 * r), (1.4 * r, 0), (0, 1.4 * r), (-1.4 * r, 0)],
    )
    shape = shapes[style % len(shapes)]
    if shape is None:
        return f'<circle class="m{style}" cx="{x}" cy="{y}" r="{r}">{title}</circle>'
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in shape)
    return f'<polygon class="m{style}" points="{points}">{title}</polygon>'


def summary(s: Series) -> str:
    """The series in words, for those who do not see it."""
    if s.kind == "steps":
        peak = max(((v, i) for i, v in enumerate(s.y) if math.isfinite(v)), default=None)
        if peak is None or peak[1] + 1 >= len(s.x):
            return ""
        return f"{s.name}: highest near {(s.x[peak[1]] + s.x[peak[1] + 1]) / 2:.4g}."
    points = [(x, y) for x, y in zip(s.x, s.y, strict=False) if math.isfinite(x + y)]
    if not points:
        return ""
    (x0, y0), (x1, y1) = points[0], points[-1]
    if len(points) == 1:
        return f"{s.name}: {y0:.4g} at {x0:.4g}."
    return f"{s.name}: from {y0:.4g} at {x0:.4g} to {y1:.4g} at {x1:.4g}."
