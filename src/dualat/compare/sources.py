"""Where a comparison's figures come from: files of records, and `published.yaml`."""

import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from dualat.files import read_yaml


@dataclass
class Cell:
    """One figure of one system."""

    record: dict[str, Any]
    notes: list[int] = field(default_factory=list)
    best: bool = False


@dataclass
class Row:
    """One system: a model of a source, or a published one."""

    system: str
    model: str
    data: str = ""
    published: bool = False
    source: str = ""
    notes: list[int] = field(default_factory=list)
    cells: dict[str, Cell] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.system} (published)" if self.published else self.system


def records_file(source: Path) -> Path:
    """Where the records of a source are: in a run folder, beside weights or samples, or in the file itself."""
    if source.suffix == ".json":
        path = source
    elif (source / "evaluation.json").is_file() or (source / "config.yaml").is_file():
        path = source / "evaluation.json"
    else:
        whole = source.resolve() if source.name in ("", "..") else source  # as `.` has it
        path = whole.parent / f"{whole.name}.evaluation.json"
    if path.is_file():
        return path
    if not source.exists():
        raise FileNotFoundError(
            f"{source} does not exist: give run folders, weights, samples, or files of records (.json)."
        )
    raise FileNotFoundError(
        f"{source} is not measured yet: `dualat evaluate {source}` does so and writes {path}."
    )


def read_source(source: Path) -> tuple[list[dict[str, Any]], str]:
    """Records of a source, and the name of the data where config.yaml beside them says that."""
    path = records_file(source)
    try:
        records = [usable(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is no file of records ({type(error).__name__}: {error}): `dualat evaluate` makes one, and "
            "keeps this one as .damaged."
        ) from error
    if len(named := {entry["data"] for entry in records if entry["data"]}) == 1:
        return records, named.pop()
    try:
        config = read_yaml((path.parent / "config.yaml").read_text(encoding="utf-8"))
        return records, str(config["data"]["source"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return records, ""


def usable(entry: dict[str, Any]) -> dict[str, Any]:
    """A record's fields that a comparison needs. Raises what reading a wrong one raises."""
    low_high = entry.get("ci95")
    return {
        "metric": str(entry["metric"]),
        "value": float(entry["value"]),
        "n": entry.get("n"),
        "ci95": [float(v) for v in low_high] if low_high and len(low_high) == 2 else None,
        "settings": dict(entry.get("settings") or {}),
        "seed": entry.get("seed"),
        "model": str(entry.get("model", "final")),
        "split": str(entry.get("split", "test")),
        "data": str(entry.get("data", "")),
    }


def _published() -> dict[str, Any]:
    return yaml.safe_load(resources.files("dualat").joinpath("published.yaml").read_text(encoding="utf-8"))


def published_names() -> list[str]:
    """Data sets with published figures."""
    return sorted(_published())


def published_rows(name: str) -> list[tuple[Row, list[dict[str, Any]]]]:
    """Published figures as records that state no more settings than the publication does."""
    table = _published()[name]
    rows = []
    for entry in table["rows"]:
        counts = entry.get("n", table["n"])
        records = [
            {
                "metric": metric,
                "value": entry[metric],
                "n": counts.get(metric),
                "ci95": None,
                "settings": entry.get("attack", table["attack"]) if metric == "robust_accuracy" else {},
                "seed": None,
                "model": "published",
                "split": "train" if metric == "fid" else "test",
            }
            for metric in ("clean_accuracy", "robust_accuracy", "inception_score", "fid")
            if metric in entry
        ]
        rows.append(
            (
                Row(
                    entry["system"],
                    "published",
                    name,
                    True,
                    f"{entry['source']}; {entry.get('note', '')}".rstrip("; "),
                ),
                records,
            )
        )
    return rows


def protocol(name: str) -> str:
    """How the published figures of a data set were measured."""
    return str(_published()[name]["protocol"])
