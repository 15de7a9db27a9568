"""What a study.yaml says, checked before anything is trained, and what each of its runs is made with.

This file imports no PyTorch, so that pages, lists and mistakes in a study answer at once.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from dualat.cli.arguments import UsageError, field_names
from dualat.cli.main import fail
from dualat.config import RunConfig, build_config, did_you_mean, plain, refuse_unused
from dualat.core.sampler_settings import SamplingSettings
from dualat.evaluation.settings import EvaluationSettings
from dualat.methods.registry import row_of
from dualat.short_form import leaves, merge
from dualat.strict import strict
from dualat.system.files import read_yaml

OF_A_RUN = ("seed", "output")
"""Settings that each run has from its place in the study."""


@strict
class StudyFile:
    """The keys of a study.yaml."""

    title: str
    """One line for the page."""
    base: dict[str, Any]
    """Settings as in a recipe."""
    variants: dict[str, dict[str, Any] | None]
    """By name: settings on top of `base`."""
    seeds: list[int]
    """Of weights, data order, samples, attacks."""
    metrics: list[str]
    """What is measured on test images; none: nothing."""
    notes: str = ""
    """What else was seen, for the page."""
    samplers: list[dict[str, Any]] = field(default_factory=list)
    """Samplers to choose from, for each model; none: the configuration's own."""
    own_samplers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By method: more samplers for its models. A file may give one without a list."""
    evaluation: dict[str, Any] = field(default_factory=dict)
    """Settings of the measurement on top of the configuration's."""

    def __post_init__(self) -> None:
        for key in ("variants", "seeds"):
            if not getattr(self, key):
                raise ValueError(f"{key} is empty: give at least one.")
        for key in ("seeds", "metrics"):
            values = getattr(self, key)
            if twice := [v for v in values if values.count(v) > 1]:
                raise ValueError(f"{key} names {twice[0]} twice.")
        for name in self.variants:
            if not re.fullmatch(r"[\w.+-]+", name):
                raise ValueError(f"variants: {name!r} names files: use letters, digits and . + - _ alone.")


def read_file(path: Path) -> dict[str, Any]:
    """A study.yaml as plain values: every key is there, and every sampler of `own_samplers` in a list.

    UsageError: one sentence with the file, the key and, where there is one, the nearest right name.
    """
    try:
        study = checked(read_yaml(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text (UTF-8): write it anew.") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    return asdict(study)


def checked(values: Any) -> StudyFile:
    """The study with all that can be checked without data: its keys, configurations and samplers. ValueError otherwise."""
    if not isinstance(values, dict):
        kind = "empty" if values is None else f"of type {type(values).__name__}"
        raise ValueError(f"a study maps keys to values, but this is {kind}.")
    known = [entry.name for entry in fields(StudyFile)]
    for key in values:
        if key not in known:
            raise ValueError(f"{key} is no key of a study.{nearest(str(key), known)}")
    for entry in fields(StudyFile):
        if entry.name not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise ValueError(f"{entry.name} is missing.")
    given: dict[str, Any] = dict(values)
    if isinstance(own := given.get("own_samplers"), dict):
        given["own_samplers"] = {method: as_list(samplers) for method, samplers in own.items()}
    study = StudyFile(**given)
    _check_samplers(study)
    methods = {_check_variant(study, name) for name in study.variants}
    for method in study.own_samplers:
        if method not in methods:
            raise ValueError(
                f"own_samplers.{method}: no variant has this method.{nearest(method, sorted(methods))}"
            )
    return study


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean X?' of a name, or all that there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]}?" if near else f" There are {', '.join(known)}."


def as_list(value: Any) -> Any:
    """One sampler as a list of one."""
    return [value] if isinstance(value, dict) else value


def _check_samplers(study: StudyFile) -> None:
    groups = {"samplers": study.samplers} | {f"own_samplers.{m}": s for m, s in study.own_samplers.items()}
    for key, samplers in groups.items():
        for sampler in samplers:
            with naming(key):
                build_config({"sampling": sampler})


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Puts the key in front of a mistake's sentence."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _check_variant(study: StudyFile, name: str) -> str:
    """Its method; ValueError for a setting that is wrong, or that the study or the method would ignore. `base` may hold
    the settings of several methods."""
    overrides = study.variants[name] or {}
    for key, values in (("base", study.base), (f"variants.{name}", overrides)):
        if given := [entry for entry in OF_A_RUN if entry in values]:
            raise ValueError(f"{key}.{given[0]} is every run's own, by `seeds` and its name: leave it out.")
    with naming("base" if _same_mistake(study.base, overrides) else f"variants.{name}"):
        config = configuration(study.base, overrides)
        refuse_unused(config, [name for name, _ in leaves(overrides)])
    for key in study.evaluation:
        if key not in field_names(EvaluationSettings):
            raise ValueError(f"evaluation.{key} is no setting.{did_you_mean(f'evaluation.{key}')}")
    with naming("evaluation"):
        replace(config.evaluation, **study.evaluation)
    return config.method


def _same_mistake(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> bool:
    """Whether a variant's configuration fails as `base` alone does."""
    found = []
    for values in (base, merge(base, overrides)):
        try:
            build_config(values)
            return False
        except ValueError as error:
            found.append(str(error))
    return found[0] == found[1]


def configuration(base: Mapping[str, Any], overrides: Mapping[str, Any] | None, **of_a_run: Any) -> RunConfig:
    """The complete configuration of a variant."""
    return build_config({**merge(base, overrides or {}), **of_a_run})


def made_with(study: Mapping[str, Any], method: str) -> dict[str, Any]:
    """What a run of this method is measured with, as plain values: a record keeps it. `study` may leave out keys."""
    unconditional = {} if row_of(method).classifies else {"energy": "marginal"}
    own = as_list(study.get("own_samplers", {}).get(method, []))
    return {
        "metrics": list(study["metrics"]),
        "evaluation": dict(study.get("evaluation", {})),
        "samplers": [sampler | unconditional for sampler in study.get("samplers", [])],
        "own_samplers": [sampler | unconditional for sampler in own],
    }


def comparable_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """A complete configuration as JSON has it, without what differs from run to run. Settings that came into the package
    after a record was made have their defaults; one that cannot be read today is compared as it is."""
    try:
        whole = plain(build_config(values))
    except ValueError:
        whole = dict(values)
    return {key: value for key, value in json.loads(json.dumps(whole)).items() if key not in OF_A_RUN}


def comparable_samplers(samplers: Iterable[Mapping[str, Any]]) -> list[str]:
    """Complete settings of each, in an order of their own; figures beside them are left out."""
    defaults = asdict(SamplingSettings())
    whole = [{name: sampler.get(name, value) for name, value in defaults.items()} for sampler in samplers]
    return sorted(json.dumps(settings) for settings in whole)


def comparable_plan(plan: Mapping[str, Any]) -> list[Any]:
    """What `made_with` gives, without the order of metrics and samplers."""
    samplers = comparable_samplers([*plan["samplers"], *plan["own_samplers"]])
    return [sorted(plan["metrics"]), json.loads(json.dumps(plan["evaluation"])), samplers]


def answered(work: Callable[[], int], debug: bool = False) -> int:
    """The exit code of a command: 0, 1 (it failed) or 2 (bad usage), with one sentence on stderr for either."""
    try:
        return work()
    except UsageError as error:
        return fail(error, 2, debug)
    except (ValueError, OSError, MemoryError) as error:
        return fail(error, 1, debug)
