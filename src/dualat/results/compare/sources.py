"""Where a comparison's values come from: files of records, and `published.yaml`."""

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from dualat.results.record import Record, read_records
from dualat.system.files import read_yaml


@dataclass
class Cell:
    """One metric value of one system."""

    record: Record
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


def read_source(source: Path) -> tuple[list[Record], str]:
    """Records of a source, and the name of the data where they, or config.yaml beside them, say that."""
    path = records_file(source)
    records = read_records(path)
    if len(stated := {record.data for record in records if record.data}) == 1:
        return records, stated.pop()
    try:
        config = read_yaml((path.parent / "config.yaml").read_text(encoding="utf-8"))
        return records, str(config["data"]["source"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return records, ""


def _published() -> dict[str, Any]:
    return yaml.safe_load(
        resources.files("dualat.results").joinpath("published.yaml").read_text(encoding="utf-8")
    )


def published_names() -> list[str]:
    """Data sets with published values."""
    return sorted(_published())


def published_rows(name: str) -> list[tuple[Row, list[Record]]]:
    """Published values as records that state no more settings than the publication does."""
    table = _published()[name]
    rows = []
    for entry in table["rows"]:
        counts = entry.get("n", table["n"])
        records = [
            Record(
                metric,
                entry[metric],
                counts.get(metric) or 0,
                settings=entry.get("attack", table["attack"]) if metric == "robust_accuracy" else {},
                model="published",
                split="train" if metric == "fid" else "test",
                versions={},
            )
            for metric in ("clean_accuracy", "robust_accuracy", "inception_score", "fid")
            if metric in entry
        ]
        source = "; ".join(entry[key] for key in ("source", "note") if key in entry)
        rows.append((Row(entry["system"], "published", name, True, source), records))
    return rows


def protocol(name: str) -> str:
    """How the published values of a data set were measured."""
    return str(_published()[name]["protocol"])
