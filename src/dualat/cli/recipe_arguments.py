"""Options of a command that takes a recipe: settings as the recipe's methods have them, and overrides out of what was given.

tyro reads and explains them; what an override means is said in one place, `dualat.config.changed`.
"""

import ast
import functools
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from dataclasses import Field, field, fields, is_dataclass, make_dataclass
from functools import reduce
from typing import Annotated, Any, Literal, get_type_hints

from dualat.cli.arguments import UsageError, field_names, parse
from dualat.config import (
    RunConfig,
    is_setting,
    is_used,
    load_recipe,
    nearest_settings,
    refuse_unused,
)
from dualat.methods.registry import METHODS, row_of
from dualat.recipes.reading import recipe_names, recipe_text
from dualat.short_form import STAGE, most_stages
from dualat.strict import either, names_of
from dualat.training.settings import StageSettings

FIRST = ("method", "stages", "weights", "network.name")
"""Settings that decide which others there are; read before them."""


def read(command: str, args: list[str], *flags: Any) -> tuple[Any, ...]:
    """The configuration that `RECIPE [--key.sub value ...]` means, and the command's own flags.

    Args:
        command: as in `dualat train`.
        args: the recipe, then options.
        flags: settings classes of the options that are no settings of the run; the last one says what the command does.

    Raises:
        UsageError: one sentence. SystemExit: `--help` was asked for, and printed.
    """
    if args[0].startswith("-"):
        raise UsageError(f"the recipe comes first, as in `{command} {recipe_names()[0]} {args[0]} ...`.")
    name, rest = args[0], args[1:]
    own = {entry for kind in flags for entry in field_names(kind)}
    try:
        recipe_text(name)
        refuse_unknown(rest, own, f"{command} {name}")
        base = load_recipe(name, first_options(rest))
        given = [option for _, option in options(rest) if option.partition(".")[0] not in {*own, "help"}]
        refuse_unused(base, given)
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    settings = run_options(base, rest)
    type(settings).__doc__ = flags[-1].__doc__
    *found, parsed = parse(rest, f"{command} {name}", *(kind() for kind in flags), settings)
    overrides = {option: reduce(getattr, option.split("."), parsed) for option in given}
    try:
        return load_recipe(name, overrides), *found
    except ValueError as error:
        raise UsageError(f"{error} `{command} {name} --help` lists all options.") from error


def options(args: list[str]) -> Iterator[tuple[str, str]]:
    """(as written, as a setting's dotted name) of each option in args."""
    for arg in args:
        if arg.startswith("--") and len(arg) > 2:
            name = arg[2:].split("=")[0].replace("-", "_")
            group, dot, last = name.rpartition(".")
            switch = last.startswith("no_") and not is_setting(name, most_stages())
            yield arg.split("=")[0], f"{group}{dot}{last.removeprefix('no_') if switch else last}"


def first_options(args: list[str]) -> dict[str, Any]:
    """Values of the options that decide which others there are."""
    found: dict[str, Any] = {}
    for place, arg in enumerate(args):
        name, equals, value = arg.removeprefix("--").partition("=")
        if arg.startswith("--") and name in FIRST and (equals or place + 1 < len(args)):
            value = value if equals else args[place + 1]
            found[name] = None if value == "None" else value
    return found


def refuse_unknown(args: list[str], own: set[str], command: str) -> None:
    """UsageError that names an option that does not exist, with the nearest that does."""
    for written, option in options(args):
        number = STAGE.match(option)
        if (
            option in own
            or option == "help"
            or is_setting(option, max(most_stages(), int(number[1]) if number else 0))
        ):
            continue
        near = [f"--{name.replace('_', '-')}" for name in nearest_settings(option)]
        guess = f"Did you mean {either(near)}? " if near else ""
        raise UsageError(f"unknown option {written}. {guess}`{command} --help` lists all.")


def run_options(config: RunConfig, args: list[str]) -> Any:
    """The settings that a recipe's methods read, with its values, as an instance of a class made for them.

    The settings of one stage's method alone (--stage2.method.contrastive.t-max) are in it where `args` has such an option:
    the list of all would be twice as long.
    """
    import tyro

    entries: list[Any] = []

    def add(name: str, kind: Any, doc: str, value: Any) -> None:
        entries.append((name, Annotated[kind, tyro.conf.arg(help=doc)], field(default_factory=lambda: value)))

    plan = [name for name, _ in row_of(config.method).plan]
    whole = [stage.method.name for _, stage in sorted(config.stages.items())] == plan
    numbers = [str(number) for number in range(1, most_stages() + 1)]
    add(
        "method",
        Literal[tuple(METHODS)],
        "System to train in place of the recipe's, by its name.",
        config.method,
    )
    add(
        "stages",
        Literal[("both", *numbers)],
        "Stages to train: both, or one alone; a second one starts from `weights`.",
        "both" if whole else str(max(config.stages)),
    )
    hints = get_type_hints(RunConfig, include_extras=True)
    for entry in fields(RunConfig):  # type: ignore[arg-type]
        if entry.name == "stages":
            for number, stage in sorted(config.stages.items()):
                kind, value = _stage(number, stage, args)
                add(f"stage{number}", kind, f"Stage {number}: {stage.method.name}.", value)
            for name, (kind, doc, value) in _groups(config).items():
                add(name, kind, doc, value)
        elif is_used(config, entry.name):
            add(entry.name, hints[entry.name], docs(RunConfig)[entry.name], getattr(config, entry.name))
    return make_dataclass("Options", entries)()


def _entry(kind: type, entry: "Field[Any]", default: Any) -> tuple[str, Any, Any]:
    import tyro

    hint = get_type_hints(kind, include_extras=True)[entry.name]
    return (
        entry.name,
        Annotated[hint, tyro.conf.arg(help=docs(kind)[entry.name])],
        field(default_factory=lambda: default),
    )


def _stage(number: int, stage: StageSettings, args: list[str]) -> tuple[type, Any]:
    """A class with a stage's settings, and its values."""
    named = any(option.startswith(f"stage{number}.method.") for _, option in options(args))
    chosen = [entry for entry in fields(stage) if entry.name != "method"]  # type: ignore[arg-type]
    entries = [_entry(StageSettings, entry, getattr(stage, entry.name)) for entry in chosen]
    if named:
        entries.append(("method", type(stage.method), field(default_factory=lambda: stage.method)))  # type: ignore[arg-type]
    made = make_dataclass(f"Stage{number}", entries)
    return made, made()


def _groups(config: RunConfig) -> dict[str, tuple[type, str, Any]]:
    """Class, text and value of each group that a stage's method has; of stages that share one, the class that has most."""
    found: dict[str, tuple[type, str, Any]] = {}
    for _, stage in sorted(config.stages.items()):
        for name, kind in row_of(stage.method.name).groups.items():
            if name not in found or _size(kind) >= _size(found[name][0]):
                found[name] = (kind, docs(type(stage.method)).get(name, ""), getattr(stage.method, name))
    return found


def _size(kind: Any) -> int:
    return len(list(names_of(kind))) if is_dataclass(kind) else 1  # pyright: ignore[reportArgumentType]


@functools.cache
def docs(kind: type) -> dict[str, str]:
    """The text below each field of a settings class, by the field's name; of a field without one, that of the class it extends."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):
            continue  # made at run time
        body = tree.body[0].body  # type: ignore[attr-defined]
        for entry, below in itertools.pairwise(body):
            if (
                isinstance(entry, ast.AnnAssign)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[entry.target.id] = inspect.cleandoc(str(below.value.value))  # type: ignore[union-attr]
    return found
