"""`dualat train RECIPE [--key.sub value ...]`."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from dualat.cli.arguments import UsageError, field_names, parse
from dualat.config import (
    RunConfig,
    load_recipe,
    nearest_settings,
    recipe_names,
    recipe_text,
    to_yaml,
)
from dualat.methods.settings import refuse_unused
from dualat.settings import either, names_of, strict

USAGE = """usage: dualat train RECIPE [--key.sub value ...]

RECIPE is one of {names}, or the path of a YAML file.
`dualat train RECIPE --help` lists every setting with the recipe's own values.
`--plugin my_file.py` runs the code of that file first: what it registers can be named."""


@strict
class TrainArguments(RunConfig):
    """Train by a recipe and evaluate the result."""

    resume: bool = False
    """Go on from the newest checkpoint in the run folder; --data.source may name the same images in another place."""
    overwrite: bool = False
    """Replace a run that is already in the run folder; files that dualat did not write stay."""
    dry_run: bool = False
    """Print the resolved settings, the model's size and an estimate of the time; train nothing."""
    json: bool = False
    """Print results as JSON."""


def main(args: list[str]) -> int:
    """Parse, then train; 0 when the run is finished or was stopped by a signal with its checkpoint written."""
    if not args or args[0] in ("-h", "--help"):
        print(USAGE.format(names=", ".join(recipe_names())))
        return 0
    if args[0].startswith("-"):
        raise UsageError(f"the recipe comes first, as in `dualat train {recipe_names()[0]} {args[0]} ...`.")
    name, rest = args[0], args[1:]
    try:
        recipe_text(name)
        base = load_recipe(name)
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    refuse_unknown(rest, name)
    parsed = parse(TrainArguments, rest, f"dualat train {name}", TrainArguments(**shallow(base)))
    config = RunConfig(**{k: v for k, v in shallow(parsed).items() if k in field_names(RunConfig)})
    check_effect(config, rest)
    if config.output is None:
        config = replace(config, output=f"runs/{Path(name).stem}")
    if parsed.dry_run:
        return dry_run(config, parsed.json)
    return train(config, parsed)


def shallow(config: RunConfig) -> dict:
    """Top-level fields as they are, groups not taken apart."""
    return {name: getattr(config, name) for name in field_names(type(config))}


def options(args: list[str]) -> Iterator[tuple[str, str]]:
    """(as written, as a setting's dotted name) of each option in args."""
    for arg in args:
        if arg.startswith("--") and len(arg) > 2:
            yield arg.split("=")[0], arg[2:].split("=")[0].replace("-", "_")


def refuse_unknown(args: list[str], recipe: str) -> None:
    """An option that does not exist is named, with the nearest that does."""
    known = {*names_of(TrainArguments), "help"}
    for written, option in options(args):
        plain = ".".join(part.removeprefix("no_") for part in option.split("."))
        if option not in known and plain not in known:
            near = [f"--{name.replace('_', '-')}" for name in nearest_settings(option)]
            guess = f"Did you mean {either(near)}? " if near else ""
            raise UsageError(f"unknown option {written}. {guess}`dualat train {recipe} --help` lists all.")


def check_effect(config: RunConfig, args: list[str]) -> None:
    """An option that the configured method does not read is named."""
    try:
        refuse_unused(config.method, (option for _, option in options(args)), config.stages)
    except ValueError as error:
        raise UsageError(str(error)) from error


def dry_run(config: RunConfig, as_json: bool) -> int:
    """Resolved settings, size, and estimated time."""
    from dualat.data.in_distribution import load_splits
    from dualat.planning.dry_run import preview

    try:
        splits = load_splits(config.data)
    except (ValueError, FileNotFoundError) as error:
        text = str(error).rstrip(".")
        raise type(error)(f"{text}; `dualat plan` says without the data what a run takes.") from error
    facts = preview(config, splits)
    if as_json:
        print(json.dumps({"config": asdict(config), "plan": facts}, indent=2))
        return 0
    print(to_yaml(config))
    for key, value in facts.items():
        print(f"# {key}: {value}")
    return 0


def train(config: RunConfig, arguments: TrainArguments) -> int:
    """Train for real; a stop by a signal is a success whose sentence says how to go on."""
    from rich.console import Console

    from dualat.results.record import read_records
    from dualat.results.table import table
    from dualat.run.train import train as train_run
    from dualat.system.distributed import launched_rank
    from dualat.training.progress import announce
    from dualat.training.signals import Stopped

    try:
        folder = train_run(config, resume=arguments.resume, overwrite=arguments.overwrite)
    except Stopped as stop:
        announce(f"dualat: {stop}")
        return 0
    if launched_rank():
        return 0
    if arguments.json:
        print((folder / "evaluation.json").read_text(encoding="utf-8"), end="")
    else:
        Console().print(table(read_records(folder / "evaluation.json"), f"{folder}: held-out images"))
    announce(f"pictures: {folder / 'samples' / 'final.png'}; all else: {folder}")
    command = command_name()
    announce(
        f"next: `{command} sample {folder}` draws images, `{command} report {folder}` makes a page of everything."
    )
    return 0


def command_name() -> str:
    """How a person calls this program from where they are: `dualat`, or its path where the shell would not find it."""
    called = Path(sys.argv[0])
    if called.stem != "dualat" or shutil.which("dualat"):
        return "dualat"
    return os.path.relpath(called)
