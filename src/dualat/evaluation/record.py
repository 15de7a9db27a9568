"""A result is a record: the figure with all that is needed to trust it."""

import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from dualat import __version__
from dualat.files import write_text


def versions() -> dict[str, str]:
    """Versions that a figure depends on."""
    return {"dualat": __version__, "torch": torch.__version__, "python": platform.python_version()}


@dataclass
class Record:
    """One figure."""

    metric: str
    value: float
    n: int
    """Images or samples that the figure is taken over."""
    ci95: tuple[float, float] | None = None
    """95 % interval."""
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    model: str = "final"
    """Which weights of the run: final (EMA of the last stage), stage1, best-robust or best-generation; start: the
    final model's samples before the first step."""
    split: str = "test"
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=versions)
    data: str = ""
    """The test split: its name, and the beginning of its SHA-256."""
    details: dict[str, Any] = field(default_factory=dict)
    """Curves and tables behind the figure, small: bins, points of a curve, one value per class."""
    key: str = ""
    """Fingerprint of all that the figure depends on (weights, data, settings): where it is the same, so is the figure."""


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson, 1927): (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.959963984540054, hits / n
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    return (
        0.0 if hits == 0 else low,
        1.0 if hits == n else high,
    )  # exact there; rounding would leave out the ends


def proportion(metric: str, hits: int, n: int, **fields: Any) -> Record:
    """Record of a proportion with its Wilson interval."""
    return Record(metric, hits / n, n, wilson_interval(hits, n), **fields)


def timed(measure: Callable[[], Record]) -> Record:
    """The record, with the seconds that it took."""
    began = time.perf_counter()
    record = measure()
    record.seconds = round(time.perf_counter() - began, 3)
    return record


def write_records(path: Path, records: list[Record]) -> None:
    """Write evaluation.json atomically."""
    write_text(path, json.dumps([asdict(r) for r in records], indent=2) + "\n")


def read_records(path: Path) -> list[Record]:
    """Records of an evaluation.json. ValueError where it is none."""
    try:
        return [usable(Record(**fields)) for fields in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is no file of records ({type(error).__name__}: {error}): move it away, or name another by --output."
        ) from error


def usable(record: Record) -> Record:
    """The record with its interval as a tuple, which JSON does not know. ValueError for fields of other types."""
    if record.ci95 is not None:
        low, high = record.ci95
        record.ci95 = (float(low), float(high))
    kinds: dict[str, type | tuple[type, ...]] = {
        "metric": str,
        "value": (int, float),
        "n": int,
        "settings": dict,
    }
    kinds |= {"model": str, "key": str, "data": str, "details": dict}
    for name, kind in kinds.items():
        if not isinstance(getattr(record, name), kind):
            raise ValueError(f"{name} is {getattr(record, name)!r}")
    return record
