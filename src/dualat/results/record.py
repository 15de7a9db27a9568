"""A result is a record: a metric value with all that is needed to trust it. The one reader and writer of evaluation.json."""

import json
import math
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from dualat import __version__
from dualat.results.intervals import wilson_interval
from dualat.system.files import write_text


def versions() -> dict[str, str]:
    """Versions that a metric value depends on; torch's with its build (+cu128) where torch is loaded."""
    torch = sys.modules.get("torch")
    build = metadata.version("torch") if torch is None else str(torch.__version__)
    return {"dualat": __version__, "torch": build, "python": platform.python_version()}


@dataclass
class Record:
    """One metric value."""

    metric: str
    value: float
    """NaN where it is undefined."""
    n: int
    """Images or samples that the value is taken over; 0: not stated."""
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
    """Curves and tables behind the value, small: bins, points of a curve, one value per class, which images were right."""
    warnings: list[str] = field(default_factory=list)
    """Why the value may not be what it seems: signs of masked gradients (masking.py), a sentence each."""
    key: str = ""
    """Fingerprint of all that the value depends on (weights, data, settings): where it is the same, so is the value."""


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("metric", "model", "split", "data", "key"), (str,)),
    **dict.fromkeys(("settings", "versions", "details"), (dict,)),
    **dict.fromkeys(("value", "seconds"), (int, float)),
    **dict.fromkeys(("n", "seed"), (int,)),
    **dict.fromkeys(("ci95", "warnings"), (list,)),
}
"""What each field may be in a file, besides null."""


def proportion(metric: str, hits: int, n: int, **fields: Any) -> Record:
    """Record of a proportion with its Wilson interval."""
    return Record(metric, hits / n, n, wilson_interval(hits, n), **fields)


def share_correct(
    metric: str, correct: np.ndarray, details: dict[str, Any] | None = None, **fields: Any
) -> Record:
    """Record of the share of images that are classified rightly, and in its details which they are: `correct`, (N,) of 0 and
    1 in the order of the images, eight in two hex digits. So two models can be compared image by image: the noise of their
    difference is that of the images on which they differ."""
    packed = {"correct": np.packbits(correct.astype(bool)).tobytes().hex()}
    return proportion(metric, int(correct.sum()), len(correct), details=(details or {}) | packed, **fields)


def outcomes(record: Record) -> np.ndarray | None:
    """Which of the images are classified rightly, (n,) of 0 and 1; None where the record does not tell."""
    if "correct" not in record.details:
        return None
    return np.unpackbits(np.frombuffer(bytes.fromhex(record.details["correct"]), np.uint8))[: record.n]


def timed(measure: Callable[[], Record]) -> Record:
    """The record, with the seconds that it took."""
    began = time.perf_counter()
    record = measure()
    record.seconds = round(time.perf_counter() - began, 3)
    return record


def as_json(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Records as plain values that JSON has: an undefined value is None."""
    return [asdict(r) | ({"value": None} if r.value != r.value else {}) for r in records]


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write evaluation.json atomically."""
    write_text(path, json.dumps(as_json(records), indent=2) + "\n")


def read_records(path: Path) -> list[Record]:
    """Records of an evaluation.json; none where there is no such file. ValueError where it holds anything else."""
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, list):
            raise ValueError("it is no list")
        return [from_json(entry) for entry in entries]
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is no file of records ({_reason(error)}): `dualat evaluate` makes one, and keeps this one as .damaged."
        ) from error


def _reason(error: Exception) -> str:
    """What is wrong with a file, in words; what Python says of it means nothing to whoever has it."""
    if isinstance(error, UnicodeDecodeError):
        return "it is no text"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno} is no JSON"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def from_json(entry: Any) -> Record:
    """A record of its JSON object. What an old or foreign one lacks, or has as null, is unknown; a metric's name is needed.

    Raises:
        ValueError: a field that records do not have, or one of another kind.
    """
    if not isinstance(entry, dict) or entry.get("metric") is None or "value" not in entry:
        raise ValueError("a record has a metric and a value")
    for name, value in entry.items():
        if name not in _KINDS:
            raise ValueError(f"a record has no field {name!r}")
        if value is not None and (
            not isinstance(value, _KINDS[name]) or isinstance(value, bool) or _huge(value)
        ):
            raise ValueError(f"{name} of {str(entry['metric'])[:60]!r} is {repr(value)[:60]}")
    known = {name: value for name, value in entry.items() if value is not None}
    known["ci95"] = _interval(known.get("ci95"))
    return Record(**({"value": math.nan, "n": 0, "versions": {}} | known))


def _huge(value: Any) -> bool:
    """Whether this is a whole number beyond all floats."""
    return isinstance(value, int) and abs(value) > sys.float_info.max


def _interval(ends: Sequence[Any] | None) -> tuple[float, float] | None:
    """Both ends; None where one of them is unknown."""
    if ends is None:
        return None
    if len(ends) != 2 or not all(
        end is None or (type(end) in (int, float) and not _huge(end)) for end in ends
    ):
        raise ValueError(f"ci95 is {repr(ends)[:60]}")
    low, high = (math.nan if end is None else float(end) for end in ends)
    return None if math.isnan(low + high) else (low, high)
