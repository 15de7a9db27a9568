"""The records of the studies, and their figures over seeds."""

import json
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from plan import comparable_config, comparable_plan, comparable_samplers, configuration, made_with, read_file

from dualat.config import plain
from dualat.results.record import from_json

Run = dict[str, Any]
"""A finished or diverged run, as run.py writes it, its records read."""
NEEDED = ("variant", "seed", "method", "outcome", "divergences", "curves", "images_per_second", "config")
"""Keys without which a record is none."""


@dataclass(frozen=True)
class Measured:
    """One figure of one run. n: images or samples behind it; half: half the width of its 95 % interval; correct: which of the
    n images were classified rightly, (n,) of 0 and 1, where the record tells."""

    value: float
    n: int | None = None
    half: float | None = None
    correct: np.ndarray | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Figure:
    """A figure that a run may have. unit: share, distance or none; short: its column's heading; of_samples: whether it is one
    of samples, which each seed draws anew; of_diverged: whether it counts where the run diverged for good; better: more,
    less, or neither."""

    name: str
    of: Callable[[Run], Measured | None]
    unit: str = ""
    short: str = ""
    of_samples: bool = False
    of_diverged: bool = False
    better: str = ""

    def text(self, value: float) -> str:
        """The value with the digits that it deserves."""
        if not math.isfinite(value):
            return str(value)
        if self.unit == "share":
            return f"{value:.3f}"
        if self.unit != "distance":
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
    left_out: list[str] = field(default_factory=list)
    """Files among the records that belong to no variant and seed of the plan."""

    @property
    def command(self) -> str:
        return f"python studies/run.py {self.name}"

    @property
    def settings(self) -> dict[str, Any]:
        """The complete configuration of the first variant: of what all share, what the study leaves to defaults too."""
        return plain(configuration(self.plan["base"], next(iter(self.plan["variants"].values()))))

    @property
    def evaluation(self) -> dict[str, Any]:
        """How its runs are measured: the study's settings on top of the configuration's."""
        return self.settings["evaluation"] | self.plan["evaluation"]

    @property
    def radius(self) -> float:
        """The radius of the first variant's adversarial training; without any, that of its evaluation while training."""
        methods = [stage["method"] for name, stage in self.settings.items() if name.startswith("stage")]
        radii = [method["attack"]["eps"] for method in methods if "attack" in method]
        return radii[0] if radii else self.settings["evaluation"]["validation_eps"]

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
        counted = {s: run for s, run in runs.items() if run["outcome"] == "finished" or figure.of_diverged}
        found = {s: figure.of(run) for s, run in sorted(counted.items()) if seeds is None or s in seeds}
        known = {s: m for s, m in found.items() if m is not None}
        return Values(known) if known else None

    def outdated(self) -> list[str]:
        """'VARIANT, seed N' of the runs that were made with other settings than the plan has now."""
        return [
            f"{variant}, seed {seed}"
            for variant, runs in self.runs.items()
            if runs
            for seed in self._outdated_seeds(variant)
        ]

    def _outdated_seeds(self, variant: str) -> list[int]:
        """Seeds of a variant whose configuration, or what a finished run is measured with, is not the plan's."""
        try:
            config = configuration(self.plan["base"], self.plan["variants"][variant])
        except ValueError as error:
            raise ValueError(f"study.yaml of {self.name}, variants.{variant}: {error}") from None
        wanted = comparable_config(plain(config))
        plan = made_with(self.plan, config.method)
        return [
            seed
            for seed, run in self.runs[variant].items()
            if comparable_config(run["config"]) != wanted or not measured_alike(run, plan)
        ]

    def diverged(self, variant: str) -> list[int]:
        """Seeds whose run ended by diverging."""
        runs = self.runs.get(variant, {})
        return [seed for seed, run in sorted(runs.items()) if run["outcome"] == "diverged"]


def measured_alike(run: Run, plan: dict[str, Any]) -> bool:
    """Whether a run was measured as the plan wants it. Old records tell their samplers alone; of a run that diverged nothing
    was measured."""
    if run["outcome"] != "finished":
        return True
    if "plan" in run:
        return comparable_plan(run["plan"]) == comparable_plan(plan)
    if "samplers_tried" not in run:
        return True
    wanted = comparable_samplers([*plan["samplers"], *plan["own_samplers"]])
    return comparable_samplers(run["samplers_tried"]) == wanted


def read_studies(folder: Path) -> dict[str, Study]:
    """Every study.yaml below the folder, by the study's name, with its records."""
    return {path.parent.name: read_study(path.parent) for path in sorted(folder.glob("*/study.yaml"))}


def read_study(folder: Path) -> Study:
    """One study. Records that belong to no variant and seed of its plan, or bear another's name, are left out and named."""
    plan = read_file(folder / "study.yaml")
    study = Study(folder.name, plan, {variant: {} for variant in plan["variants"]})
    for path in sorted((folder / "records").glob("*.json")):
        run = read_record(path, study.command)
        variant, seed = run["variant"], run["seed"]
        known = variant in study.runs and seed in plan["seeds"]
        if known and path.name == record_name(variant, seed):
            study.runs[variant][seed] = run
        else:
            study.left_out.append(path.name)
    cost = folder / "cost.json"
    if cost.is_file():
        study.cost = read_json(cost, "python studies/cost.py")
    return study


def record_name(variant: str, seed: int) -> str:
    """The file of a run's record."""
    return f"{variant}-seed{seed}.json"


def read_record(path: Path, command: str) -> Run:
    """A record. ValueError that names the file where it is damaged, and what makes it anew."""
    run = read_json(path, command)
    if missing := [key for key in NEEDED if key not in run]:
        raise ValueError(
            f"{path} is no complete record, it has no {missing[0]}: remove it, and make it anew with `{command}`."
        )
    try:
        run["records"] = [from_json(entry) for entry in run.get("records", [])]
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): remove it, and make it anew with `{command}`."
        ) from None
    return run


def read_json(path: Path, command: str) -> dict[str, Any]:
    """An object of a JSON file. ValueError that names the file, and what makes it anew."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # cut off, empty, or no text
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{path} is damaged: remove it, and make it anew with `{command}`.")
    return values


def listing(
    study: Study, wanted: list[tuple[str, int]], begun: Callable[[str, int], str] = lambda *_: ""
) -> list[str]:
    """What is made, with the seconds that it took, what is missing, and about how long that will take. begun: what is known of
    a missing run."""
    made = {of: study.runs[of[0]][of[1]] for of in wanted if of[1] in study.runs[of[0]]}
    missing = [of for of in wanted if of not in made]
    old = study.outdated()
    lines = [f"{study.name}: {len(made)} of {len(wanted)} runs are made"]
    for (variant, seed), run in made.items():
        text = f"{variant}, seed {seed}"
        seconds = f"{run['seconds']:.0f} s" if "seconds" in run else "seconds unknown"
        note = "  (made with other settings than study.yaml has now)" if text in old else ""
        lines.append(f"  made     {text}: {run['outcome']}, {seconds}{note}")
    lines += [f"  missing  {variant}, seed {seed}{begun(variant, seed)}" for variant, seed in missing]
    lines += [f"  of no run of the plan: {name}" for name in study.left_out]
    times = [run["seconds"] for run in made.values() if "seconds" in run]
    if missing and times:
        median = statistics.median(times)
        total = len(missing) * median
        lines.append(
            f"missing: about {total:.0f} s ({total / 3600:.1f} h), {len(missing)} runs of {median:.0f} s, the median"
        )
    elif missing:
        lines.append(f"missing: {len(missing)} runs; how long they take is known when the first is made")
    return lines
