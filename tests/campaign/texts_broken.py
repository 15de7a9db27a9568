"""Recipes, studies, records, metrics and lists: broken, then read as the library reads them."""

import importlib
import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import originals
from damage import ODD_NAMES, broken_bytes, broken_json, broken_text, broken_yaml
from images_broken import Input
from models_broken import write_run
from rich.console import Console

from dualat.config import load_recipe, to_yaml
from dualat.data import open_images
from dualat.data.checksums import read_sums, verify
from dualat.data.names import read_lines, read_positions, select
from dualat.planning.speed import read_measured
from dualat.recipes.reading import recipe_names, recipe_text
from dualat.results.compare import FORMATS, compare
from dualat.results.compare.sources import read_source
from dualat.results.record import read_records
from dualat.results.report.page import render
from dualat.results.table import table
from dualat.training.divergence import read_outcome, record_divergence
from dualat.training.tracking import Tracker

STUDIES = Path(__file__).parents[2] / "studies"


def recipe(rng: random.Random, place: Path) -> Input:
    how = rng.random()
    if how < 0.45:
        content, words = broken_yaml(originals.RECIPE, rng)
    elif how < 0.75:
        content, words = broken_yaml(originals.full_recipe(), rng)
    else:
        content, words = broken_text(recipe_text(rng.choice(recipe_names())), rng)
    path = place / "recipe.yaml"
    path.write_bytes(content)
    overrides = rng.choice(
        ({}, {}, {"seed": 3}, {"stage1.steps": 2}, {"data.source": "digits"}, {"x.y": 1}, {"seed.x": 1})
    )
    return f"{words} {overrides or ''}", lambda: to_yaml(load_recipe(str(path), overrides))


def study(rng: random.Random, place: Path) -> Input:
    if str(STUDIES) not in sys.path:
        sys.path.append(str(STUDIES))
    plan, reading = importlib.import_module("plan"), importlib.import_module("reading")
    folder = place / "tiny"
    (folder / "records").mkdir(parents=True)
    path = folder / "study.yaml"
    if rng.random() < 0.8:
        content, words = broken_yaml(originals.STUDY, rng)
        path.write_bytes(content)
        return words, lambda: plan.read_file(path)
    path.write_text(json.dumps(originals.STUDY))
    record = {
        "variant": "at",
        "seed": 0,
        "method": "standard-at",
        "outcome": "finished",
        "divergences": [],
        "curves": {},
    }
    content, words = broken_json(
        record | {"images_per_second": 1.0, "config": originals.RECIPE, "seconds": 3.0}, rng
    )
    (folder / "records" / "at-seed0.json").write_bytes(content)

    def read() -> object:
        found = reading.read_study(folder)
        return reading.listing(found, [("at", 0), ("jem", 1)])

    return f"record: {words}", read


def broken_records(path: Path, rng: random.Random) -> str:
    some = rng.sample(originals.records(), rng.choice((1, 3, 8)))
    content, words = broken_json(some, rng)
    path.write_bytes(content)
    return words


def records(rng: random.Random, place: Path) -> Input:
    path = place / "evaluation.json"
    words = broken_records(path, rng)
    if rng.random() < 0.5:
        return words, lambda: read_source(path)
    console = Console(file=io.StringIO(), width=rng.choice((20, 80, 200)))
    return words, lambda: console.print(table(read_records(path), "records"))


def comparison(rng: random.Random, place: Path) -> Input:
    words = []
    for name in ("one", "two"):
        (place / name).mkdir()
        words.append(broken_records(place / name / "evaluation.json", rng))
    if rng.random() < 0.2:
        content, what = broken_yaml({"data": {"source": "digits"}}, rng)
        (place / "one" / "config.yaml").write_bytes(content)
        words.append(f"config.yaml: {what}")
    (place / "two" / "evaluation.json").write_text(json.dumps(originals.records()))
    models, figures = (
        rng.choice((("final",), ("final", "stage1"), ("x",))),
        rng.choice(((), (), ("clean_accuracy",), ("x",))),
    )
    published, form = rng.choice((None, None, "cifar10", "x")), rng.choice(list(FORMATS))
    published = None if published == "x" else published
    return f"{words[0]} {form}", lambda: FORMATS[form](
        compare([place / "one", place / "two"], published, models, figures)
    )


def report(rng: random.Random, place: Path) -> Input:
    write_run(place)
    names = [name for name in originals.run_files() if "/" not in name or name.endswith(".png")]
    words = []
    for name in rng.sample(names, rng.choice((1, 1, 2))):
        path = place / name
        if name == "evaluation.json":
            words.append(broken_records(path, rng))
        elif name in ("metrics.jsonl", "config.yaml"):
            content, what = broken_text(path.read_text(), rng)
            path.write_bytes(content)
            words.append(f"{name}: {what}")
        else:
            content, what = broken_bytes(path.read_bytes(), list(originals.pictures().values()), rng)
            path.write_bytes(content)
            words.append(f"{name}: {what}")
    if rng.random() < 0.1:
        odd = rng.choice([n for n in ODD_NAMES if n not in ("", ".", "..")])
        (place / "samples" / f"stage{odd}.png").write_bytes(originals.pictures()["rgb.png"])
        (place / "counterfactuals" / f"{odd}.png").write_bytes(b"x")
        words.append(f"{odd!r:.30}.png")
    return ", ".join(words), lambda: render(place)


def progress(rng: random.Random, place: Path) -> Input:
    """outcome.json, and metrics.jsonl as a resumed run rewinds it."""
    if rng.random() < 0.5:
        whole = {
            "outcome": "diverged",
            "divergences": [{"stage": 1, "step": 3, "loss": "nan", "gradient_norm": "inf"}],
        }
        content, words = broken_json(whole, rng)
        (place.parent / "out" / "outcome.json").write_bytes(content)
        folder = place.parent / "out"

        def diverge() -> object:
            read_outcome(folder)
            record_divergence(folder, 1, 2, 3.0, 4.0)
            return read_outcome(folder)

        return f"outcome.json: {words}", diverge
    lines = "".join(json.dumps({"stage": 1, "step": k, "loss": 1 / k}) + "\n" for k in range(1, 6))
    if rng.random() < 0.5:
        content, words = broken_text(lines, rng)
    else:
        some, words = broken_json({"stage": 1, "step": 2, "loss": 0.5}, rng)
        content = lines.encode() + some.replace(b"\n", b" ") + b"\n"
    folder = place.parent / "out"
    (folder / "metrics.jsonl").write_bytes(content)
    return f"metrics.jsonl: {words}", lambda: Tracker(folder, (), {}).rewind(1, 3)


def measured(rng: random.Random, place: Path) -> Input:
    content, words = broken_json(originals.BENCHMARK, rng)
    path = place / "bench.json"
    path.write_bytes(content)
    precision, compiled = rng.choice(("fp32", "bf16")), rng.random() < 0.5
    return words, lambda: read_measured(path, precision, compiled)


def lists(rng: random.Random, place: Path) -> Input:
    kind = rng.choice(list(originals.LISTS))
    how = rng.random()
    text = originals.LISTS[kind]
    content, words = broken_text(text, rng) if how < 0.8 else broken_bytes(text.encode(), (), rng)
    path = place / "list.txt"
    path.write_bytes(content)
    (place / "empty").write_bytes(b"")
    base, count = rng.choice(("", "zero-based:", "one-based:")), rng.choice((5, 10**8, 1))
    include = rng.random() < 0.5
    names = ["three/0.png", "three/1.png", "eight/0.png"]
    descriptions = {"/m/01": "Dog", "/m/02": "Tree"}
    readers: dict[str, Callable[[], object]] = {
        "names": lambda: select(names, *(([str(path)], ()) if include else ((), [str(path)])), "x"),
        "positions": lambda: read_positions([f"{base}{path}"], count, "x"),
        "numbers": lambda: read_positions([f"{base}{path}"], count, "x"),
        "sums": lambda: verify(read_sums(path), place, place.parent / "out" / ".right.json"),
        "descriptions": lambda: open_images.read_descriptions(path),
        "annotations": lambda: open_images.filter_pictures(
            [path], descriptions, open_images.Overlap(["dog"])
        ),
        "classes": lambda: open_images.Overlap(open_images.read_classes(path))("Dog"),
    }
    return f"{kind}: {words}", readers[kind] if rng.random() < 0.9 else lambda: read_lines(path)
