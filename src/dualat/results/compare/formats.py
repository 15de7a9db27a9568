"""A comparison as text: for a terminal, for Markdown, CSV, LaTeX and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from dualat.results.catalogue import described
from dualat.results.compare.side_by_side import Comparison
from dualat.results.compare.sources import Cell, Row
from dualat.results.intervals import asymmetric

if TYPE_CHECKING:
    from rich.text import Text


def shown(cell: Cell, sign: str = "±") -> str:
    """Value and half its 95 % interval, or both ends of one that ± would misstate."""
    value, interval = cell.record.value, cell.record.ci95
    if not math.isfinite(value):
        return "undefined"
    half = (interval[1] - interval[0]) / 2 if interval else 0.0
    digits = 2 if abs(value) >= 1 else 3 if half >= 0.005 else 4
    if interval is None:
        return f"{value:.{digits}f}"
    if asymmetric(value, interval):
        return f"{value:.{digits}f} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
    return f"{value:.{digits}f} {sign}{half:.{digits}f}"


def fixed_columns(comparison: Comparison) -> list[tuple[str, Callable[[Row], str]]]:
    """What stands before the values: the system; its weights and data where rows differ in them."""
    measured = [row for row in comparison.rows if not row.published]
    columns: list[tuple[str, Callable[[Row], str]]] = [("system", lambda row: row.label)]
    if len({row.model for row in measured} - {"final"}):
        columns.append(("weights", lambda row: "" if row.published else row.model))
    if len({row.data for row in comparison.rows}) > 1:
        columns.append(("data", lambda row: row.data))
    return columns


def marks(notes: Sequence[int]) -> str:
    return ",".join(str(n) for n in sorted(notes))


def table(comparison: Comparison) -> str:
    """For a terminal. Where it is wider than that, systems become columns, in as many tables as it takes."""
    from rich.console import Console
    from rich.table import Table

    width = shutil.get_terminal_size().columns
    lines = texts(comparison)
    blocks = [lines]
    turned = sum(len_of(column) for column in zip(*lines, strict=True)) >= width
    if turned:
        blocks = side_by_side([list(line) for line in zip(*lines, strict=True)], width)
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False)
    for block in blocks:
        view = Table()
        for i, column in enumerate(zip(*block, strict=True)):
            wanted = len_of(column, wrap_head=turned and i > 0)
            size = min(wanted, max(24, width // 3) if turned and i == 0 else width) - BORDERS
            view.add_column(column[0], justify="left" if i == 0 else "right", overflow="fold", width=size)
        for line in block[1:]:
            view.add_row(*line)
        console.print(view)
    if any(cell.best for row in comparison.rows for cell in row.cells.values()):
        console.print("* best of its metric and data set; ± half of the 95 % interval", markup=False)
    for i, text in enumerate(comparison.notes, 1):
        console.print(f"[{i}] {clean(text)}", markup=False, highlight=False)
    return out.getvalue()


def texts(comparison: Comparison) -> list[list[Text]]:
    """Head and rows."""
    from rich.text import Text

    lines = written(comparison, clean, lambda text: f"{text}*", lambda text: f" [{text}]")
    return [[Text(cell) for cell in line] for line in lines]


BORDERS = 3
"""Characters around a column's text."""


def len_of(column: Sequence[Text], wrap_head: bool = False) -> int:
    """Width of a column with its borders, where its head stands in one line or, wrapped, a word per line."""
    head = [len(word) for word in column[0].plain.split()] if wrap_head else [column[0].cell_len]
    return max([*head, *(text.cell_len for text in column[1:]), 4]) + BORDERS


def side_by_side(lines: list[list[Text]], width: int) -> list[list[list[Text]]]:
    """Lines cut into blocks that fit the width. Each begins with the first column, which may wrap."""
    sizes = [len_of(column, wrap_head=True) for column in zip(*lines, strict=True)]
    first = min(len_of([line[0] for line in lines]), max(24, width // 3)) + 1
    cuts, used = [1], first
    for i, size in enumerate(sizes[1:], 1):
        if used + size > width and i > cuts[-1]:
            cuts.append(i)
            used = first
        used += size
    ends = pairwise([*cuts, len(sizes)])
    return [[[line[0], *line[a:b]] for line in lines] for a, b in ends]


def written(
    comparison: Comparison,
    escape: Callable[[str], str],
    bold: Callable[[str], str],
    raised: Callable[[str], str],
    sign: str = "±",
) -> list[list[str]]:
    """Head and rows of a markup: escaped text, the best value of each column bold, marks of footnotes raised."""
    fixed = fixed_columns(comparison)
    lines = [[escape(name) for name in (*(name for name, _ in fixed), *comparison.columns)]]
    for row in comparison.rows:
        cells = [escape(get(row)) for _, get in fixed]
        cells[0] += raised(marks(row.notes)) if row.notes else ""
        for name in comparison.columns:
            cell = row.cells.get(name)
            value = shown(cell, sign) if cell else ""
            value = bold(value) if cell and cell.best else value
            cells.append(value + raised(marks(cell.notes)) if cell and cell.notes else value)
        lines.append(cells)
    return lines


def markdown(comparison: Comparison) -> str:
    """A GitHub table; the best value of a column is bold."""
    head, *rows = written(
        comparison, escaped_markdown, lambda text: f"**{text}**", lambda text: f" <sup>{text}</sup>"
    )
    rule = ["---"] * (len(head) - len(comparison.columns)) + ["---:"] * len(comparison.columns)
    lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
    if comparison.notes:
        lines += ["", *(f"{i}. {escaped_markdown(text)}" for i, text in enumerate(comparison.notes, 1))]
    return "\n".join(lines) + "\n"


def clean(text: str) -> str:
    """One line without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def escaped_markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$&])", r"\\\1", clean(text))


def latex(comparison: Comparison) -> str:
    """A booktabs table; the best value of a column is bold."""

    def raised(text: str) -> str:
        return f"\\textsuperscript{{{text}}}"

    lines = written(comparison, escaped_latex, lambda text: f"\\textbf{{{text}}}", raised, "$\\pm$")
    head, *rows = (" & ".join(cells) + " \\\\" for cells in lines)
    numbers = len(comparison.columns)
    notes: list[str] = []
    for i, text in enumerate(comparison.notes, 1):
        notes += ["", f"\\par\\raggedright\\footnotesize{raised(str(i))}~{escaped_latex(text)}"]
    whole = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\begin{{tabular}}{{{'l' * (len(lines[0]) - numbers)}{'r' * numbers}}}",
        *("\\toprule", head, "\\midrule", *rows, "\\bottomrule", "\\end{tabular}", *notes, "\\end{table}"),
    ]
    return "\n".join(whole) + "\n"


_LATEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    '"': "''",
    "±": "$\\pm$",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def escaped_latex(text: str) -> str:
    """Text that LaTeX sets as it is: nothing of it is a command, an optional argument or a ligature."""
    return "".join(_LATEX.get(c, c) for c in clean(text)).replace("--", "-{}-")


def comma_separated(comparison: Comparison) -> str:
    """Raw values: four columns per metric value (value, n, low and high end of the 95 % interval)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    parts = ("", " n", " ci95 low", " ci95 high")
    head = ["system", "weights", "data", "published", "source"]
    writer.writerow([*head, *(f"{name}{part}" for name in comparison.columns for part in parts), "notes"])
    for row in comparison.rows:
        line: list[object] = [row.system, row.model, row.data, "yes" if row.published else "no", row.source]
        notes = list(row.notes)
        for name in comparison.columns:
            cell = row.cells.get(name)
            if cell is None:
                line += [None] * 4
                continue
            line += [cell.record.value, cell.record.n or None, *(cell.record.ci95 or (None, None))]
            notes += cell.notes
        told = "; ".join(comparison.notes[n - 1] for n in dict.fromkeys(notes))
        writer.writerow([*(harmless(v) for v in line), told])
    return out.getvalue()


def harmless(value: object) -> object:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def as_json(comparison: Comparison) -> str:
    """Everything, for programs."""

    def one(cell: Cell) -> dict[str, object]:
        keys = ("value", "n", "ci95", "settings", "seed", "split")
        values = {k: finite(getattr(cell.record, k)) for k in keys}
        return {**values, "n": cell.record.n or None, "best": cell.best, "notes": cell.notes}

    value = {
        "columns": [
            {"name": name, "better": described(key["metric"]).better or None, "shared": key}
            for name, key in comparison.columns.items()
        ],
        "rows": [
            {
                **{k: getattr(row, k) for k in ("system", "model", "data", "published", "source", "notes")},
                "figures": {name: one(cell) for name, cell in row.cells.items()},
            }
            for row in comparison.rows
        ],
        "notes": {str(i): text for i, text in enumerate(comparison.notes, 1)},
    }
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def finite(value: object) -> object:
    """JSON knows neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "table": table,
    "markdown": markdown,
    "csv": comma_separated,
    "latex": latex,
    "json": as_json,
}
