"""Command lines that are nearly right, and whether what they print and return is what a user can act on."""

import contextlib
import io
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import originals
import yaml
from damage import one_of, words_of
from images_broken import Input, class_folders
from models_broken import write_run
from verdict import wrong_command

from dualat.cli.main import COMMANDS, run
from dualat.cli.train import TrainFlags
from dualat.config import setting_names
from dualat.strict import names_of

LINES = {
    "help": "--help",
    "version": "--version",
    "recipes": "recipes digits",
    "train": "train ../in/recipe.yaml --output run --stage1.steps 1 --data.limit 40",
    "dry run": "train ../in/recipe.yaml --dry-run",
    "resume": "train ../in/run/config.yaml --output ../in/run --resume",
    "plan": "plan ../in/recipe.yaml --gpus 2 --gpu h100 --measured ../in/bench.json",
    "sample": "sample ../in/run --count 2 --classes 3 8 --output samples.npz --steps 1",
    "sample a file": "sample ../in/model.safetensors --count 1 --initial uniform --unconditional",
    "counterfactual": "counterfactual ../in/run ../in/picture.png --eps 0.5 --steps 1 --classes 3",
    "evaluate": "evaluate ../in/run --metrics clean_accuracy --output e.json",
    "evaluate a file": "evaluate ../in/model.safetensors --metrics clean_accuracy --source digits",
    "evaluate samples": "evaluate ../in/samples.npz --source digits --metrics generation",
    "compare": "compare ../in/run ../in/run/evaluation.json --format markdown --models final stage1",
    "report": "report ../in/run --output r.html",
    "import": "import-weights ../in/w.pt --normalize none --image-size 8 --output m.safetensors",
    "shards": "data prepare shards ../in/shards",
    "images": "data prepare images ../in/data --output bad.txt --workers 1",
    "open images": "data prepare open-images --annotations ../in/annotations --descriptions ../in/descriptions",
    "exclusions": "data prepare exclusions --zero-based ../in/positions --count 9",
    "checksums": "data prepare checksums ../in/sums",
    "bench": "bench --repeats 2 --network wrn-10-1 --steps 1",
}
KEPT = {
    "evaluate": ("--metrics", "clean_accuracy"),
    "evaluate a file": ("--metrics", "clean_accuracy"),
    "evaluate samples": ("--metrics", "generation"),
    "bench": ("--repeats", "2"),
}
"""What is never taken away or changed: without it the command would be right, and at work for minutes."""
WEIGHTS = {
    "train": 3,
    "dry run": 2,
    "plan": 2,
    "resume": 1,
    "sample": 8,
    "evaluate samples": 3,
    "evaluate": 5,
}
"""How often each line is taken, 10 by default: those that work long where they are right, less often."""
# no path outside the sandbox: a mistake of a command must not reach the machine that the campaign runs on
ODD = (
    *(
        "",
        " ",
        "9" * 25,
        "9" * 5000,
        "x" * 5000,
        "é",
        "\U0001f600",
        "a\nb",
        "a\x1b[31mb",
        "\udcff",
        "\u202ex",
    ),
    *words_of(
        "x 0 -1 1.5 nan inf -inf 1e999 1e-320 0x10 None null true - -- = [bold] [/b] %s {0} . .. nowhere/x.png"
    ),
    *words_of(
        "ftp:x/y.png *.tar digits fashion-mnist cifar10 wrn-9999994-1 wrn-10-9999 ../in/pipe ../in/loop"
    ),
    *words_of(
        "../in/run ../in/picture.png ../in/recipe.yaml ../in/w.pt ../in/samples.npz ../in/data ../in/nothing"
    ),
    *words_of("../in/run/model.json ../in/run/checkpoints ../in/run/evaluation.json"),
    "a" * 300 + ".png",
)
ENDLESS = words_of("steps epochs repeats count batch evaluate-every images samples restarts workers buffer")
"""Parts of the names of numbers that are honest work where they are large."""


@cache
def options(command: str) -> tuple[str, ...]:
    """A command's options, as they are written."""
    if command in ("train", "plan"):
        names: Any = [*setting_names(groups=False), *names_of(TrainFlags)]
    elif command == "data":
        kinds = import_module("dualat.cli.data").KINDS
        names = [entry.name for _, kind, _ in kinds.values() for entry in fields(kind)]
    elif command in COMMANDS:
        module = import_module(f"dualat.cli.{command.replace('-', '_')}")
        kind = next(
            v for k, v in vars(module).items() if k.endswith("Arguments") and v.__module__ == module.__name__
        )
        names = [entry.name for entry in fields(kind)]
    else:
        names = ["json", "debug-x"]
    return tuple(f"--{name.replace('_', '-')}" for name in names)


def value_for(option: str, rng: random.Random) -> str:
    """An odd value that does not ask for endless work."""
    value = rng.choice(ODD)
    while value == "9" * 25 and any(part in option for part in ENDLESS):
        value = rng.choice(ODD)
    return value


def misspelt(word: str, rng: random.Random) -> str:
    place = rng.randrange(len(word) + 1)
    return rng.choice(
        (
            word[:place] + word[place + 1 :],
            word[:place] + "x" + word[place:],
            word.upper(),
            word[:-1],
            f" {word}",
        )
    )


def line(rng: random.Random) -> list[str]:
    """One of the lines with one to three mistakes."""
    name = rng.choices(list(LINES), [WEIGHTS.get(name, 10) for name in LINES])[0]
    kept = KEPT.get(name, ())
    words = [word for word in words_of(LINES[name]) if word not in kept]
    command = words[0] if words else "bench"
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(words))
        what = one_of("odd odd lose double typo option option option swap equals switch", rng)
        if what == "odd":
            words[place] = value_for(words[place - 1], rng) if place else rng.choice(ODD)
        elif what == "lose" and len(words) > 1:
            del words[place]
        elif what == "double":
            words[place:place] = [words[place]]
        elif what == "typo":
            words[place] = misspelt(words[place], rng)
        elif what == "option":
            option = rng.choice(options(command))
            words += [option, value_for(option, rng)]
        elif what == "swap":
            other = rng.randrange(len(words))
            words[place], words[other] = words[other], words[place]
        elif what == "equals":
            option = rng.choice(options(command))
            words.append(f"{option}={value_for(option, rng)}")
        elif what == "switch":
            words.append(
                rng.choice((*options(command), "--help", "-h", "-x", "--no-json", "--json", "--version"))
            )
    return [*words, *kept]


def write_inputs(place: Path, rng: random.Random) -> None:
    """All that the lines name, whole."""
    write_run(place / "run")
    (place / "model.safetensors").write_bytes(originals.model_file())
    (place / "picture.png").write_bytes(originals.pictures()["rgb.png"])
    (place / "samples.npz").write_bytes(originals.arrays()["samples.npz"])
    (place / "recipe.yaml").write_text(yaml.safe_dump(originals.RECIPE))
    (place / "bench.json").write_text(yaml.safe_dump(originals.BENCHMARK, default_flow_style=True))
    (place / "w.pt").write_bytes(originals.weights()[0])
    (place / "shards").mkdir()
    os.mkfifo(place / "pipe")
    (place / "loop").symlink_to("loop")
    for name, text in originals.LISTS.items():
        (place / name).write_text(text)
    (place / "data").mkdir()
    class_folders(place / "data", rng)


def command(rng: random.Random, place: Path) -> Input:
    """A command line in this process, in the folder `out` beside `place`."""
    words, encoding = line(rng), rng.choice(("utf-8",) * 9 + ("ascii",))
    write_inputs(place, rng)
    return f"{words} {encoding}", lambda: called(words, encoding, place)


def process(rng: random.Random, place: Path) -> Input:
    """A command line as a user gives it: in a process of its own."""
    words, environment = line(rng), dict(os.environ) | {"LC_ALL": rng.choice(("C.UTF-8", "C", "POSIX"))}
    write_inputs(place, rng)

    def call() -> str | None:
        done = subprocess.run(
            [sys.executable, "-m", "dualat", *words],
            cwd=place.parent / "out",
            env=environment,
            capture_output=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (30, 30)),
        )
        err = done.stderr.decode("utf-8", "backslashreplace")
        return wrong_command(done.returncode, done.stdout.decode("utf-8", "replace"), err, place.parent)

    return f"{words} {environment['LC_ALL']}", call


def called(words: list[str], encoding: str, place: Path) -> str | None:
    """What is wrong with how the command ends; None where nothing is."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")  # as main() has it
    err = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    here = os.getcwd()
    os.chdir(place.parent / "out")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code: object = run(list(words))
            except SystemExit as stop:  # tyro ends --help this way
                code = stop.code or 0
    finally:
        os.chdir(here)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode(encoding, "replace"))  # type: ignore[attr-defined]
    return wrong_command(code, *texts, place.parent)


MAKERS: dict[str, Callable[[random.Random, Path], Input]] = {"command": command, "process": process}
