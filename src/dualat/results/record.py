"""A result is a record: the figure with all that is needed to trust it."""

import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from dualat import __version__
from dualat.results.intervals import wilson_interval
from dualat.results.outcomes import pack
from dualat.system.files import write_text


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
    """Curves and tables behind the figure, small: bins, points of a curve, one value per class, which images were right."""
    warnings: list[str] = field(default_factory=list)
    """Why the figure may not be what it seems: signs of masked gradients (masking.py), a sentence each."""
    key: str = ""
    """Fingerprint of all that the figure depends on (weights, data, settings): where it is the same, so is the figure."""


def proportion(metric: str, hits: int, n: int, **fields: Any) -> Record:
    """Record of a proportion with its Wilson interval."""
    return Record(metric, hits / n, n, wilson_interval(hits, n), **fields)


def share_correct(
    metric: str, correct: torch.Tensor, details: dict[str, Any] | None = None, **fields: Any
) -> Record:
    """Record of the share of images (N,) that are classified rightly, with which they are (see outcomes.py)."""
    kept = (details or {}) | pack(correct.cpu().numpy())
    return proportion(metric, int(correct.sum()), len(correct), details=kept, **fields)


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
    kinds |= {"model": str, "key": str, "data": str, "details": dict, "warnings": list}
    for name, kind in kinds.items():
        if not isinstance(getattr(record, name), kind):
            raise ValueError(f"{name} is {getattr(record, name)!r}")
    return record
