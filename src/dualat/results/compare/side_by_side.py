"""The comparison itself: rows and columns, footnotes, best values."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dualat.results.catalogue import Key, described
from dualat.results.compare.sources import Cell, Row, protocol, published_rows, read_source
from dualat.results.naming import Frozen, everything, frozen, group, identity, names, spoken
from dualat.results.record import Record

Placed = list[tuple[Row, list[Record]]]
Groups = dict[Frozen, dict[int, Record]]

OWN = {"seed", "interval", "samples_sha256", "seconds_each"}
"""What differs between any two records and needs no footnote."""


@dataclass
class Comparison:
    """Rows, columns (name -> metric and settings that its values share), and footnotes, numbered from 1."""

    rows: list[Row]
    columns: dict[str, dict[str, str]]
    notes: list[str]

    def note(self, text: str) -> int:
        """Number of a footnote; the same text has the same number."""
        if text not in self.notes:
            self.notes.append(text)
        return self.notes.index(text) + 1


def compare(
    sources: Sequence[Path],
    published: str | None = None,
    models: Sequence[str] = ("final", "samples"),
    figures: Sequence[str] = (),
) -> Comparison:
    """Compare records.

    Args:
        sources: run folders, weights or samples that `dualat evaluate` has measured, or files of records.
        published: name of a data set whose published values are added (see `published_names`).
        models: weights of each source, one row each.
        figures: metrics to show; none: all.

    Raises ValueError or FileNotFoundError with a sentence for a source without records, or without these models.
    """
    placed = measured_rows(sources, models)
    claimed = published_rows(published) if published else []
    known = list(dict.fromkeys(r.metric for _, records in [*placed, *claimed] for r in records))
    for name in figures:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"there is no metric value {name!r} here.{hint} There are {', '.join(known)}.")
    wanted = set(figures or known)
    for _, records in [*placed, *claimed]:
        records[:] = [r for r in records if r.metric in wanted]
    grouped = join_published(group(records for _, records in placed), claimed, len(placed))
    order = sorted(grouped, key=lambda key: known.index(dict(key)["metric"]))
    result = Comparison([row for row, _ in [*placed, *claimed]], {}, [])
    for name, key in zip(names([dict(key) for key in order]), order, strict=True):
        result.columns[name] = dict(key)
        for at, record in grouped[key].items():
            result.rows[at].cells[name] = Cell(record)
    footnotes(result, published)
    mark_best(result)
    return result


def measured_rows(sources: Sequence[Path], models: Sequence[str]) -> Placed:
    """One row per source and model, with its records."""
    folders = {s: s.parent if s.name == "evaluation.json" else s for s in sources}
    tails = [f.resolve().name for f in folders.values()]
    placed: Placed = []
    for source, folder in folders.items():
        records, data = read_source(source)
        tail = folder.resolve().name
        system = tail.removesuffix(".json") if tails.count(tail) == 1 else str(folder)
        available = list(dict.fromkeys(r.model for r in records))
        if not set(models) & set(available):
            has = f"it has {', '.join(available)}: choose with --models" if available else "it is empty"
            raise ValueError(f"{source} holds no records of {', '.join(models)}; {has}.")
        for model in dict.fromkeys(m for m in models if m in available):
            row = Row(system, model, data, source=str(source))
            placed.append((row, [r for r in records if r.model == model]))
    return placed


def join_published(groups: Groups, claimed: Placed, first: int) -> Groups:
    """Put published values into the one column that they can belong to, else into columns of their own. Those that
    state most come first, so that the others find a column. first: number of the first published row."""
    claims = [(first + i, r, identity(r)) for i, (_, records) in enumerate(claimed) for r in records]
    for at, record, stated in sorted(claims, key=lambda f: -len(f[2])):
        fitting = [key for key in groups if agree(stated, dict(key))]
        theirs = [key for key in fitting if any(other >= first for other in groups[key])]
        fitting = theirs or fitting
        key = fitting[0] if len(fitting) == 1 else frozen(stated)
        groups.setdefault(key, {})[at] = record
    return groups


def agree(stated: Key, column: Key) -> bool:
    """Whether a published value belongs to a column: nothing that it states contradicts it, and what makes the value is
    stated."""
    if any(key in column and column[key] != value for key, value in stated.items()):
        return False
    return all(key in stated and key in column for key in described(stated["metric"]).stated)


def footnotes(result: Comparison, published: str | None) -> None:
    """Say what differs inside a column, and how published values were measured."""
    for row in result.rows:
        if row.published and published:
            row.notes += [result.note(text) for text in (protocol(published), row.source) if text]
    for name in result.columns:
        cells = [row.cells[name] for row in result.rows if name in row.cells and not row.published]
        for cell, text in zip(cells, differences([c.record for c in cells]), strict=True):
            if text:
                cell.notes.append(result.note(text))


def differences(records: Sequence[Record]) -> list[str]:
    """For each value of a column, in words, the settings in which it differs from another one; "" where none does."""
    facts = []
    for record in records:
        known = identity(record)
        facts.append({k: v for k, v in everything(record).items() if k not in OWN and known.get(k) != v})
    keys = [k for k in dict.fromkeys(k for f in facts for k in f) if len({f.get(k) for f in facts}) > 1]
    return [", ".join(f"{spoken(k)} {f.get(k, 'not stated')}" for k in keys) for f in facts]


def mark_best(result: Comparison) -> None:
    """Mark the best value of each column, where at least two values of the same data set stand in it."""
    for name, key in result.columns.items():
        sign = {"more": 1, "less": -1}.get(described(key["metric"]).better, 0)
        for data in {row.data for row in result.rows}:
            cells = [row.cells[name] for row in result.rows if name in row.cells and row.data == data]
            values = [sign * c.record.value for c in cells if math.isfinite(c.record.value)]
            for cell in cells if sign and len(values) > 1 else ():
                cell.best = sign * cell.record.value == max(values)
