"""Recipes in short: `method: NAME` stands for stages, and a top-level group such as `attack` for that group of every stage.

The complete form has a mapping for each stage, with the stage's method and all that it reads:

    stage1: {method: {name: ..., attack: {...}}, epochs: 300, optimizer: {...}}
    stage2: {method: {name: ..., attack: {...}, contrastive: {...}}, epochs: 100, ...}

This is what a run writes to its config.yaml. Whoever writes by hand may leave out the stages' methods and give

    method: NAME            its row in methods/registry.py says which stages that means
    stages: both, 1 or 2    which of them are trained
    attack: {...}           for every stage whose method has such a group

A recipe may hold settings of other methods, for `--method OTHER`: their types are checked, and they are left out. What no
method has is an unknown setting. Does not import PyTorch.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from dualat.methods.registry import DEFAULT, METHODS, known_groups, row_of
from dualat.models.settings import OF_WIDE_RESNETS, is_wide_resnet
from dualat.strict import either, explain, shown
from dualat.training.settings import StageSettings

STAGE = re.compile(r"stage([1-9]\d*)")
"""A stage's name, as in stage2.steps."""


@dataclass
class Draft:
    """A recipe with its stages told apart, values as they were given."""

    stages: dict[int, dict[str, Any]]
    """By number: values of StageSettings, with `method` as a mapping that has a name."""
    rest: dict[str, Any]
    """All that concerns the whole run."""
    unread: dict[str, Any]
    """Groups and stages that belong to other methods."""


def most_stages() -> int:
    """The largest number of stages that a method's name stands for."""
    return max(len(row.plan) for row in METHODS.values())


def drafted(values: Mapping[str, Any], own: frozenset[str]) -> Draft:
    """Take a recipe apart. `own`: names that concern the whole run.

    Raises ValueError where stages contradict each other or there is no such method.
    """
    rest = dict(values)
    method, which = rest.pop("method", None), rest.pop("stages", None)
    stages = {int(m[1]): rest.pop(name) for name in list(rest) if (m := STAGE.fullmatch(name))}
    for number, given in stages.items():
        if not isinstance(given, Mapping | None):
            raise ValueError(f"stage{number} is {shown(given)}, but is a group of settings.")
    stages = {
        number: as_meant(given or {}, StageSettings, f"stage{number}.") for number, given in stages.items()
    }
    groups = {name: rest.pop(name) for name, _ in known_groups() if name in rest and name not in own}
    plan = _plan(method, stages)
    chosen = _chosen(which, plan, method)
    found = {}
    for number in chosen:
        name, defaults = plan[number]
        given = merge(defaults, stages.pop(number, {}))
        special = given.get("method")
        shared = suited(row_of(name).settings, groups)
        given["method"] = merge({"name": name, **shared}, special if isinstance(special, Mapping) else {})
        found[number] = given
    names = {f"stage{number}": given for number, given in stages.items() if given}
    return Draft(found, rest, groups | names)


def _plan(method: Any, stages: Mapping[int, Mapping[str, Any]]) -> dict[int, tuple[str, Mapping[str, Any]]]:
    """Method and defaults of each stage, by number."""
    named = {number: name for number, given in stages.items() if (name := named_method(given)) is not None}
    if not named:
        row = row_of(DEFAULT if method is None else method)
        return dict(enumerate(row.plan, 1))
    if method is not None:
        first = next(iter(named))
        raise ValueError(
            f"method is {method}, but stage{first} has a method of its own, {named[first]}: give one or the other."
        )
    if bare := [number for number in stages if number not in named]:
        raise ValueError(f"stage{bare[0]} has no method: give it one, as in method: {DEFAULT}.")
    return {number: (row_of(named[number]).name, {}) for number in sorted(named)}


def named_method(stage: Any) -> str | None:
    """The method that a stage's values name; None where they name none."""
    method = stage.get("method") if isinstance(stage, Mapping) else None
    return method.get("name") if isinstance(method, Mapping) else method


def _chosen(which: Any, plan: Mapping[int, Any], method: Any) -> list[int]:
    """Numbers of the stages to train, of `stages: both` or a number."""
    if which is None or which == "both":
        return list(plan)
    if str(which) in map(str, plan):
        return [int(which)]
    name = method or plan[max(plan)][0]
    if len(plan) > 1:
        raise ValueError(f"stages is {shown(which)}: give {either(['both', *map(str, plan)])}.")
    others = [other for other, row in METHODS.items() if str(which) in map(str, range(1, len(row.plan) + 1))]
    hint = f", or method to {either(others)}" if others else ""
    raise ValueError(
        f"stages is {shown(which)}, but {name} has one stage only: set stages to {max(plan)}{hint}."
    )


def stage_keys(values: Mapping[Any, Any]) -> list[str]:
    """The keys of a recipe that are stages. Others may be no words at all: they are refused later, by name."""
    return [key for key in values if isinstance(key, str) and STAGE.fullmatch(key)]


def overridden(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with dotted overrides on top; the values stay as they are. In short, an override is of every stage that
    has it. Of the network what another has not is left out where its name is overridden."""
    found = in_short(values) if "method" in overrides else dict(values)
    if not is_wide_resnet(str(overrides.get("network.name", "wrn-28-10"))):
        found = without(found, [f"network.{name}" for name in OF_WIDE_RESNETS])
    for key, value in overrides.items():
        for name in spread(found, str(key)):
            found = _with(found, name, value, str(key))
    return found


def extended(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's values with those of one that extends it on top; an empty group changes nothing."""
    groups = {name[:i] for name, _ in leaves(base) for i, letter in enumerate(name) if letter == "."}
    changes = {name: value for name, value in leaves(given) if name not in groups or value not in (None, {})}
    return overridden(base, changes)


def _with(values: Mapping[str, Any], name: str, value: Any, whole: str) -> dict[str, Any]:
    """A copy of nested values with one setting changed: what shares an object with others, as YAML's references do, is left."""
    group, _, rest = name.partition(".")
    if not rest:
        return {**values, name: value}
    inner = {} if values.get(group) is None else values[group]
    if not isinstance(inner, Mapping):
        raise ValueError(f"{whole} is no setting: {group} is a value, not a group.")
    return {**values, group: _with(inner, rest, value, whole)}


def spread(values: Mapping[str, Any], name: str) -> list[str]:
    """Where an override of this dotted name goes: itself, or the stages' own settings, where the recipe names each
    stage's method and several of them, or one, have it."""
    stages = stage_keys(values)
    named = {key: method for key in stages if (method := named_method(values[key]))}
    found = [f"{key}.method.{name}" for key, method in named.items() if row_of(method).knows(name)]
    return found or [name]


def in_short(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without its stages' methods, so that another method can be asked for: what they read becomes groups of all."""
    short, groups = dict(values), {}
    for key in sorted(stage_keys(values)):
        if isinstance(stage := values[key], Mapping) and "method" in stage:
            method = stage["method"] if isinstance(stage["method"], Mapping) else {}
            groups = merge(groups, {name: value for name, value in method.items() if name != "name"})
            short[key] = {name: value for name, value in stage.items() if name != "method"}
    return merge(groups, short)


def suited(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Of nested values, those of settings that a class has. None in place of one that takes none is left out: it stands for
    the published value, as it did in files of older versions."""
    hints, found = get_type_hints(kind), {}
    for key, value in values.items():
        if key not in hints or key == "name":
            continue
        if is_dataclass(hint := hints[key]) and isinstance(value, Mapping):
            found[key] = suited(hint, value)  # type: ignore[arg-type]
        elif value is not None or type(None) in kinds(hint):
            found[key] = value
    return found


def mistakes(draft: Draft) -> Iterator[str]:
    """A sentence for each setting of other methods that is none of any, or has a value of another type."""
    for name, value in leaves(draft.unread):
        head, _, rest = name.partition(".")
        rows = [row for row in METHODS.values() if row.knows(name)]
        owner, path = (
            (StageSettings, rest) if STAGE.fullmatch(head) else (rows[0].settings if rows else None, name)
        )
        if owner is not None and value is not None and path.partition(".")[0] != "method":
            yield from _mistake(name, value, owner, path)


def _mistake(name: str, value: Any, owner: type, path: str) -> Iterator[str]:
    kind: Any = owner
    for part in path.split("."):
        kind = get_type_hints(kind).get(part) if is_dataclass(kind) else None
    if kind is None:
        return  # no setting, which is said of it elsewhere
    try:
        TypeAdapter(dict[str, kind]).validate_python({name: value})  # pyright: ignore[reportInvalidTypeForm]
    except ValidationError as error:
        yield explain(error, owner)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` on top, group by group: a recipe states only what differs from the defaults."""
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = (
            merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
        )
    return merged


TABLES = ("initial.parts",)
"""Settings that are tables of names and numbers, given as a whole."""


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of nested settings; an empty group counts as one."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value and f"{prefix}{key}" not in TABLES:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def without(values: Mapping[str, Any], names: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Nested values less those of some dotted names."""
    return {
        key: without(value, names, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in names
    }


def as_meant(values: Mapping[str, Any], kind: type, prefix: str = "") -> dict[str, Any]:
    """Values as whoever wrote them in YAML meant them: `off` and `1` where words are wanted; an empty group changes nothing.

    Raises ValueError for a boolean where a number is wanted (YAML reads yes as true), and for the word None.
    """
    hints, meant = get_type_hints(kind), dict(values)
    for key, value in values.items():
        hint = hints.get(key)
        if isinstance(hint, type) and is_dataclass(hint):
            inner = {} if value is None else value
            meant[key] = as_meant(inner, hint, f"{prefix}{key}.") if isinstance(inner, Mapping) else inner
        elif hint is not None:
            meant[key] = _leaf(f"{prefix}{key}", value, hint)
    return meant


def _leaf(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is Literal:
        word = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
        return word if isinstance(value, bool | int) and word in get_args(hint) else value
    wanted = kinds(hint)
    given = value if isinstance(value, list | tuple) else [value]
    if bool not in wanted and wanted & {int, float} and any(isinstance(v, bool) for v in given):
        raise ValueError(
            f"{name} is {value!r}, but is a number: YAML reads yes, no, on and off as true and false."
        )
    word = value.lower() if isinstance(value, str) and str not in wanted else value
    if type(None) in wanted and word in ("None", "none"):
        raise ValueError(f"{name} is the word {value}: what YAML writes for None is null.")
    return value


def kinds(hint: Any) -> set[Any]:
    """The plain types in a type hint."""
    inner = get_args(hint)
    return set().union(*map(kinds, inner)) if inner else {hint}
