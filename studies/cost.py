"""Time one training step of every variant of the systems study, in turn, and write `studies/systems/cost.json`.

    OMP_NUM_THREADS=1 python studies/cost.py

Each stage of each variant is built as training builds it, with the study's settings; a step is its batch, its loss, its
gradient and the optimiser's step. Where T follows a curriculum it is held at 0 and at half of T_max: a step costs as much more
as it has gradient steps more, and a run's cost follows from the T that it logged. Run it on an otherwise idle machine.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from plan import answered
from run import HERE, commit, configuration, read_study

from dualat.bench.measure import Timing, interleaved
from dualat.config import RunConfig
from dualat.core.loop import GradientLoop
from dualat.data.in_distribution import ImageData, load_splits
from dualat.methods.base import Method
from dualat.results.record import versions
from dualat.run.model import new_model
from dualat.run.stages import stage_plan, worth_compiling
from dualat.system.devices import device_name
from dualat.system.files import write_text
from dualat.system.precision import choose_device, choose_dtype
from dualat.system.seeds import mix_seed
from dualat.training.feed import Feed
from dualat.training.optimizer import build_optimizer
from dualat.training.step import train_step

BASE = "standard-at"
"""The variant that others are compared with."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", default="systems")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each method that count")
    parser.add_argument("--output", type=Path, help="default: cost.json in the study's folder")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args()
    sys.exit(answered(lambda: command(arguments), arguments.debug))


def command(arguments: argparse.Namespace) -> int:
    """Time the steps, write them, and say what they are."""
    result = measure(read_study(arguments.study), arguments.rounds)
    path = arguments.output or HERE / arguments.study / "cost.json"
    write_text(path, json.dumps(result, indent=1) + "\n")
    base = result["seconds_per_step"].get(BASE, {}).get("1", {}).get("0")
    for variant, stages in result["seconds_per_step"].items():
        for stage, by_t in stages.items():
            for t, seconds in by_t.items():
                ratio = f"  {seconds / base:.2f} x {BASE}" if base else ""
                print(f"{variant:24} stage {stage} T = {t:3} {seconds:.4f} s{ratio}")
    return 0


def measure(study: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Seconds per step by variant, stage and T, and all that they depend on."""
    configs = {variant: configuration(study, variant, 0, Path("runs")) for variant in study["variants"]}
    first = next(iter(configs.values()))
    device = choose_device(first.device)
    load = round(os.getloadavg()[0], 2)  # of other jobs: 0 on an idle machine
    splits = load_splits(first.data)
    works: dict[str, Callable[[], object]] = {}
    for variant, config in configs.items():
        for place, (number, method, _) in enumerate(stage_plan(config, splits.train)):
            for t in held_at(method):
                key = f"{variant} {number} {t}"
                works[key] = one_step(config, splits.train, device, place, t)
    timings = interleaved(works, rounds, device)
    dtypes = {
        str(choose_dtype(config.precision, device)).removeprefix("torch.") for config in configs.values()
    }
    return {
        "seconds_per_step": nested({name: round(t.median, 5) for name, t in timings.items()}),
        "least_to_most": nested({name: ends(t) for name, t in timings.items()}),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "precision": ", ".join(sorted(dtypes)),
        "device": device_name(device),
        "load": load,
        "versions": versions(),
        "commit": commit(),
        "base": study["base"],
        "variants": study["variants"],
    }


def ends(timing: Timing) -> list[float]:
    """Seconds of the fastest and the slowest round."""
    return [round(min(timing.seconds), 5), round(max(timing.seconds), 5)]


def held_at(method: Method) -> tuple[int, ...]:
    """Values of T to time; 0 alone where the method has no curriculum."""
    return (0,) if method.curriculum is None else (0, max(1, method.curriculum.t_max // 2))


def nested(named: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """{"dat 2 15": value} -> {"dat": {"2": {"15": value}}}."""
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for name, value in named.items():
        variant, stage, t = name.split()
        result.setdefault(variant, {}).setdefault(stage, {})[t] = value
    return result


def one_step(
    config: RunConfig, data: ImageData, device: torch.device, place: int, t: int
) -> Callable[[], object]:
    """A function that takes the next training step of a stage, the first at place 0, its curriculum held at T = t;
    its loop is compiled where training would compile it."""
    torch.manual_seed(mix_seed(config.seed, "weights"))
    model = new_model(config, data, device)
    stages = stage_plan(config, data)
    number, method, settings = stages[place]
    feed = Feed(data, config.robust_augment, config.energy_augment, model.initial, device)
    streams = feed.streams(config.seed, number, settings.batch_size)
    optimizer = build_optimizer(model, settings.optimizer)
    dtype, rate = choose_dtype(config.precision, device), settings.optimizer.lr * 1e-3
    loop = GradientLoop(model, worth_compiling(config, model, data, stages), settings.batch_size)
    done = 0

    def step() -> object:
        nonlocal done
        if method.curriculum is not None:
            method.curriculum.steps = t
        seed = mix_seed(config.seed, number, done)
        torch.manual_seed(seed)
        batch = feed.batch(streams, done, seed, method.needs_energy_batch)
        done += 1
        return train_step(model, method, batch, optimizer, rate, settings, dtype, loop)

    return step


if __name__ == "__main__":
    main()
