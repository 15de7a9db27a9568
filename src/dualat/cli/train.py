"""`dualat train RECIPE [--key.sub value ...]`."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from dualat.cli.recipe_arguments import read
from dualat.config import RunConfig, plain, to_yaml
from dualat.recipes.reading import recipe_names
from dualat.strict import strict

USAGE = """usage: dualat train RECIPE [--key.sub value ...]

RECIPE is one of {names}, or the path of a YAML file, which states what it changes of another (`extends: cifar10`).
`dualat train RECIPE --help` lists every setting with the recipe's own values.
`--plugin my_file.py` runs the code of that file first: what it registers can be named."""


@strict
class TrainFlags:
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
    config, flags = read("dualat train", args, TrainFlags)
    if config.output is None:
        config = replace(config, output=f"runs/{Path(args[0]).stem}")
    if flags.dry_run:
        return dry_run(config, flags.json)
    return train(config, flags)


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
        print(json.dumps({"config": plain(config), "plan": facts}, indent=2))
        return 0
    print(to_yaml(config))
    for key, value in facts.items():
        print(f"# {key}: {value}")
    return 0


def train(config: RunConfig, arguments: TrainFlags) -> int:
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
