"""Which records are comparable, as they are of the same metric value, and what that is called: the same everywhere."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from dualat.results.catalogue import Key, described
from dualat.results.record import Record


def text(value: Any) -> str:
    """A setting's value as text."""
    if isinstance(value, Mapping):
        return f"({in_words(value)})"
    if isinstance(value, (list, tuple)):
        return " ".join(text(v) for v in value)
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as text by dotted name; what is None is left out."""
    result: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            result[f"{prefix}{key}"] = text(value)
    return result


def spoken(name: str) -> str:
    """A dotted name in words."""
    return str(name).replace("_", " ").replace(".", " ")


def in_words(settings: Mapping[str, Any]) -> str:
    """Settings in one line."""
    return ", ".join(f"{spoken(k)} {v}" for k, v in flat(settings).items())


def identity(record: Record) -> dict[str, str]:
    """What tells a record's metric value from others: the metric, and what decides its meaning."""
    row, settings = described(record.metric), record.settings
    wanted = tuple(settings) if row.identity is None else row.identity
    chosen: dict[str, Any] = {name: settings[name] for name in wanted if name in settings}
    chosen |= {name: count(settings.get(name)) for name, count in row.counted.items()}
    if (row.biased and "reference" in wanted) or (not row.biased and record.split not in ("test", "")):
        chosen["split"] = record.split
    if row.biased and record.n:
        chosen["n"] = record.n
    return {"metric": record.metric, **flat(chosen)}


def everything(record: Record) -> dict[str, str]:
    """All that a record says of how it was measured."""
    row = described(record.metric)
    rest: dict[str, Any] = {"n": record.n or None, "seed": record.seed}
    if not row.biased or "reference" in (row.identity or ()):
        rest["split"] = record.split
    return {"metric": record.metric, **flat(record.settings), **flat(rest)}


def name(key: Key, omit: Collection[str] = (), short: bool = False) -> str:
    """A metric value with the settings that a reader asks for first. omit: of these, which to leave out."""
    key = {k: v for k, v in key.items() if k not in omit}
    row = described(key["metric"])
    parts = [part(key) for part in row.told]
    parts.append(f"n {key['n']}" if row.biased and "n" in key else "")
    if (split := key.get("split", "test")) not in ("test", key.get("images")):
        parts.append(f"{'against ' if row.biased else ''}{split} images")
    return ", ".join([(row.short if short else "") or row.title, *(p for p in parts if p)])


def name_of(record: Record, omit: Collection[str] = ()) -> str:
    """The name of a record's metric value."""
    return name(identity(record), omit)


def names(keys: Sequence[Key], omit: Collection[str] = (), short: bool = False) -> list[str]:
    """A different name for each metric value: where others have the same, with what tells it from them."""
    plain = [name(key, omit, short) for key in keys]
    found: list[str] = []
    for key, words in zip(keys, plain, strict=True):
        alike = [k for k, other in zip(keys, plain, strict=True) if other == words]
        differing = [
            k for k in dict.fromkeys(k for a in alike for k in a) if len({a.get(k) for a in alike}) > 1
        ]
        found.append(", ".join([words, *(f"{spoken(k)} {key.get(k, 'not stated')}" for k in differing)]))
    return [
        f"{words} ({found[:i].count(words) + 1})" if words in found[:i] else words
        for i, words in enumerate(found)
    ]


Frozen = tuple[tuple[str, str], ...]
"""A key that can be one of a dictionary."""


def frozen(key: Key) -> Frozen:
    return tuple(sorted(key.items()))


def group(rows: Iterable[Iterable[Record]]) -> dict[Frozen, dict[int, Record]]:
    """Records by the metric value that they are of, then by the number of their row. Where a row has several of one, as with two seeds, all that is known of them tells them apart."""
    loose: dict[Frozen, dict[int, list[Record]]] = {}
    for at, records in enumerate(rows):
        for record in records:
            loose.setdefault(frozen(identity(record)), {}).setdefault(at, []).append(record)
    groups: dict[Frozen, dict[int, Record]] = {}
    for key, cells in loose.items():
        if all(len({frozen(everything(r)) for r in records}) == 1 for records in cells.values()):
            groups[key] = {at: records[-1] for at, records in cells.items()}
            continue
        for at, records in cells.items():
            for record in records:
                groups.setdefault(frozen(everything(record)), {})[at] = record
    return groups
