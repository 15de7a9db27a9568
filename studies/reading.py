"""The records of the studies, and their figures over seeds."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dualat.config import merge

Run = dict[str, Any]
"""A finished or diverged run, as run.py writes it."""


@dataclass(frozen=True)
class Measured:
    """One figure of one run. n: images or samples behind it; half: half the width of its 95 % interval."""

    value: float
    n: int | None = None
    half: float | None = None


@dataclass(frozen=True)
class Figure:
    """A figure that a run may have. unit: share, distance or none; short: its column's heading."""

    name: str
    of: Callable[[Run], Measured | None]
    unit: str = "share"
    short: str = ""

    def text(self, value: float) -> str:
        """The value with the digits that it deserves."""
        if not math.isfinite(value):
            return str(value)
        if self.unit == "share":
            return f"{value:.3f}"
        if self.unit == "none":
            return f"{value:.3g}"
        size = abs(value)
        return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


@dataclass(frozen=True)
class Values:
    """One figure of a variant, seed by seed; at least one seed."""

    by_seed: dict[int, Measured]

    @property
    def mean(self) -> float:
        return sum(m.value for m in self.by_seed.values()) / len(self.by_seed)

    @property
    def low(self) -> float:
        return min(m.value for m in self.by_seed.values())

    @property
    def high(self) -> float:
        return max(m.value for m in self.by_seed.values())

    @property
    def half(self) -> float | None:
        """Half the width of one seed's 95 % interval, mean over the seeds that have one."""
        halves = [m.half for m in self.by_seed.values() if m.half is not None]
        return sum(halves) / len(halves) if halves else None

    @property
    def counts(self) -> set[int]:
        return {m.n for m in self.by_seed.values() if m.n is not None}


@dataclass
class Study:
    """A study.yaml and the runs that exist."""

    name: str
    plan: dict[str, Any]
    runs: dict[str, dict[int, Run]] = field(default_factory=dict)
    """By variant and seed; every variant of the plan has an entry."""
    cost: dict[str, Any] | None = None
    """cost.json, where there is one."""

    @property
    def command(self) -> str:
        return f"python studies/run.py {self.name}"

    @property
    def planned(self) -> int:
        """Number of runs that the plan asks for."""
        return len(self.plan["variants"]) * len(self.plan["seeds"])

    @property
    def made(self) -> int:
        """Number of runs that exist."""
        return sum(len(runs) for runs in self.runs.values())

    def values(self, variant: str, figure: Figure, seeds: set[int] | None = None) -> Values | None:
        """The figure over the seeds (all, or these) that have it; None where none has."""
        runs = self.runs.get(variant, {})
        found = {s: figure.of(run) for s, run in sorted(runs.items()) if seeds is None or s in seeds}
        known = {s: m for s, m in found.items() if m is not None}
        return Values(known) if known else None

    def outdated(self) -> list[str]:
        """'VARIANT, seed N' of the runs that were made with other settings than the plan has now."""
        found = []
        for variant, runs in self.runs.items():
            overrides = self.plan["variants"][variant] or {}
            for seed, run in runs.items():
                if not agrees(merge(self.plan["base"], overrides), run["config"]):
                    found.append(f"{variant}, seed {seed}")
        return found

    def diverged(self, variant: str) -> list[int]:
        """Seeds whose run ended by diverging."""
        runs = self.runs.get(variant, {})
        return [seed for seed, run in sorted(runs.items()) if run["outcome"] == "diverged"]


def agrees(wanted: Any, found: Any) -> bool:
    """Whether a run's configuration has all settings of a plan."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(k in found and agrees(v, found[k]) for k, v in wanted.items())
    return wanted == found


def read_studies(folder: Path) -> dict[str, Study]:
    """Every study.yaml below the folder, by the study's name, with its records."""
    return {path.parent.name: read_study(path.parent) for path in sorted(folder.glob("*/study.yaml"))}


def read_study(folder: Path) -> Study:
    """One study. Records of variants or seeds that its plan does not name are left out."""
    plan = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    study = Study(folder.name, plan, {variant: {} for variant in plan["variants"]})
    for path in sorted((folder / "records").glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        if run["variant"] in study.runs and run["seed"] in plan["seeds"]:
            study.runs[run["variant"]][run["seed"]] = run
    cost = folder / "cost.json"
    if cost.is_file():
        study.cost = json.loads(cost.read_text(encoding="utf-8"))
    return study
