"""What a page is made of, and how metric values and settings are written on it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from dualat.results.record import Record
from dualat.results.report import plots
from dualat.results.report.reading import Picture


@dataclass
class Plot:
    """A chart with its legend."""

    title: str
    svg: Markup
    legend: list[tuple[Markup, str]]
    """Swatch and name of each series."""
    always: bool = False
    """Whether even a single series is named."""
    note: str = ""
    """Below the legend."""


@dataclass
class Table:
    """Rows of text."""

    head: list[str]
    rows: list[list[str]]
    left: int = 1
    """Columns from the left that hold text; the others hold numbers."""
    wide: int = -1
    """Column of long text."""


@dataclass
class Card:
    """One value of the headline."""

    label: str
    value: str
    spread: str
    """± half the interval."""
    notes: list[str]


@dataclass
class Group:
    """A part of a section under its own heading."""

    title: str = ""
    plots: list[Plot] = field(default_factory=list)
    pictures: list[tuple[Picture, str]] = field(default_factory=list)
    """With the words that stand for each."""
    table: Table | None = None


@dataclass
class Section:
    """A heading, a sentence on how to read it, and what it shows; where that is nothing, the sentence `missing`."""

    anchor: str
    title: str
    lead: str
    missing: str
    groups: list[Group] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)
    text: str = ""


def filled(*groups: Group) -> list[Group]:
    """The groups in which something is, with the charts that show anything."""
    for group in groups:
        group.plots = [p for p in group.plots if p.svg]
    return [g for g in groups if g.plots or g.pictures or (g.table and g.table.rows)]


def plot(
    title: str, series: Sequence[plots.Series], x: str, y: str, always: bool = True, **options: Any
) -> Plot:
    """A chart with its legend; whatever text goes into the SVG is escaped where that is made."""
    legend = [(Markup(plots.swatch(s, i)), s.name) for i, s in enumerate(series)]
    return Plot(title, Markup(plots.chart(title, series, x, y, **options)), legend, always)


def by_group(records: Sequence[Record], key: Callable[[Record], Any]) -> dict[Any, list[Record]]:
    """Records with the same key, in the order in which keys come."""
    groups: dict[Any, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def capital(words: str) -> str:
    """With a capital letter, as a heading begins."""
    return words[:1].upper() + words[1:]


def shown(value: float) -> str:
    """A number for reading."""
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "infinite"
    size = abs(value)
    if value == int(value) and size < 1e6:
        return f"{value:,.0f}" if size > 1 else f"{value:.3f}"
    if size >= 1e6 or size < 1e-4:
        return f"{value:.3g}"
    if size >= 10:
        return f"{value:,.1f}" if size >= 100 else f"{value:.2f}"
    return f"{value:.3f}" if size >= 0.01 else f"{value:.3g}"


def interval(record: Record) -> str:
    """The 95 % interval for reading."""
    return f"{shown(record.ci95[0])} to {shown(record.ci95[1])}" if record.ci95 else ""


def half(record: Record) -> str:
    """± half the interval, with the value's digits."""
    if not record.ci95:
        return ""
    digits = len(shown(record.value).partition(".")[2])
    return f"±{(record.ci95[1] - record.ci95[0]) / 2:.{digits}f}"
