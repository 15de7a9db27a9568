"""Run a study: every variant of `studies/NAME/study.yaml`, with every seed, in the one harness.

    python studies/run.py systems                       all that is missing, one run after the other
    python studies/run.py systems --only dat jem --seeds 0 1
    python studies/run.py systems --list                what is made and what is missing; trains nothing

A finished run is one file, `studies/NAME/records/VARIANT-seedN.json`; it is not run again. A run that was killed goes on
from its checkpoint (run folders lie in `runs/studies/NAME` of the repository). To run in the background: nohup ... & ;
two processes share the work: neither touches the run that the other is at. The study is checked completely before anything
is trained. Figures and pages are made by `python studies/page.py`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import plan
import torch
from checks import check_files, check_measured, check_run_folder, check_stages
from plan import made_with, nearest
from reading import listing, read_json, record_name
from reading import read_study as read_records
from samplers import choose_sampler

import dualat
from dualat.cli.arguments import UsageError
from dualat.config import RunConfig, plain
from dualat.data.in_distribution import load_splits
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.store import update_records
from dualat.models.model import load, save_model
from dualat.results.record import as_json, versions
from dualat.run.evaluation import save_grid
from dualat.system import lock
from dualat.system.devices import device_name
from dualat.system.files import write_text
from dualat.system.precision import choose_device, choose_dtype
from dualat.training.divergence import Diverged, read_outcome
from dualat.training.progress import announce
from dualat.training.signals import Stopped, StopRequest

HERE = Path(__file__).parent
CURVES = ("loss", "loss_ce", "loss_energy", "auroc", "T", "r1")
"""Figures of metrics.jsonl that a record keeps, so that pages need no run folder."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study")
    parser.add_argument("--only", nargs="+", help="these variants alone")
    parser.add_argument("--seeds", nargs="+", type=int, help="these seeds alone")
    parser.add_argument("--list", action="store_true", help="say what is made and what is missing")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args()
    sys.exit(plan.answered(lambda: command(arguments), arguments.debug))


def command(arguments: argparse.Namespace) -> int:
    """Check the study, then make its missing runs, or list them."""
    os.chdir(HERE.parent)  # run folders, as a configuration names them, are relative to the repository
    name, study = arguments.study, read_study(arguments.study)
    variants = chosen("--only", arguments.only, study["variants"], name)
    seeds = chosen("--seeds", arguments.seeds, study["seeds"], name)
    wanted = [(variant, seed) for seed in seeds for variant in variants]
    records = read_records(HERE / name)
    if arguments.list:
        print("\n".join(listing(records, wanted, partial(begun, name))))
        return 0
    missing = [of for of in wanted if not record_path(name, *of).is_file()]
    check_before(name, study, missing)
    if old := records.outdated():
        announce(
            f"{name}: made with other settings than study.yaml has now, and left as it is: {'; '.join(old)}"
        )
    if not missing:
        announce(f"{name}: nothing is missing")
        return 0
    try:
        with StopRequest():
            for variant, seed in missing:
                make(name, study, variant, seed)
    except Stopped:
        announce(f"stopped: `python studies/run.py {name}` goes on where it was")
    return 0


def chosen(option: str, given: list[Any] | None, known: Iterable[Any], name: str) -> list[Any]:
    """What was asked for, or all that there is. UsageError for what the study does not have."""
    texts = [str(value) for value in known]
    for value in given or ():
        if str(value) not in texts:
            raise UsageError(f"{option}: {name} has no {value!r}.{nearest(str(value), texts)}")
    return list(dict.fromkeys(given or known))


def record_path(name: str, variant: str, seed: int) -> Path:
    return HERE / name / "records" / record_name(variant, seed)


def run_folder(name: str, variant: str, seed: int) -> Path:
    """Relative to the repository, which is the working directory: a run's configuration names it so."""
    return Path("runs") / "studies" / name / f"{variant}-seed{seed}"


def read_study(name: str) -> dict[str, Any]:
    """A study's YAML, checked: all of its keys (see plan.StudyFile), each with a value. UsageError otherwise."""
    path = HERE / name / "study.yaml"
    if not path.is_file():
        known = sorted(p.parent.name for p in HERE.glob("*/study.yaml"))
        raise UsageError(f"there is no study {name!r}.{nearest(name, known)}")
    path = Path(os.path.relpath(path))
    study = plan.read_file(path)
    try:
        check_measured(study["metrics"], study["evaluation"])
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    return study


def configuration(study: dict[str, Any], variant: str, seed: int, folder: Path) -> RunConfig:
    """The complete configuration of one run."""
    return plan.configuration(study["base"], study["variants"][variant], seed=seed, output=str(folder))


def check_before(name: str, study: dict[str, Any], missing: list[tuple[str, int]]) -> None:
    """All that would stop a later run after hours of others: folders of other settings, data, weights that metrics need."""
    data = splits = None
    seen: list[Any] = []
    for variant, seed in missing:
        folder = run_folder(name, variant, seed)
        config = configuration(study, variant, seed, folder)
        check_run_folder(folder, config, record_path(name, variant, seed))
        if splits is None or config.data != data:
            data, splits = config.data, load_splits(config.data)
        check_stages(variant, config, splits.train)
        if (read := (config.data, config.initial, config.evaluation)) not in seen:
            seen.append(read)
            check_files(name, study, config, splits)


def make(name: str, study: dict[str, Any], variant: str, seed: int) -> None:
    """Make one run and its record, unless another process is at it or has made it meanwhile."""
    path, folder = record_path(name, variant, seed), run_folder(name, variant, seed)
    with locked(folder) as mine:
        if not mine:
            announce(f"{name}: {variant}, seed {seed} is left out: another process is at it")
        elif not path.is_file():
            announce(f"{name}: {variant}, seed {seed}")
            with timed(folder):
                result = run(name, study, variant, seed)
            result["seconds"] = round(seconds_spent(folder), 1)
            write_text(path, json.dumps(result, indent=1) + "\n")


def begun(name: str, variant: str, seed: int) -> str:
    """What is known of a run without a record: another process is at it, it was begun, or nothing."""
    folder = run_folder(name, variant, seed)
    if not folder.is_dir():
        return ""
    with locked(folder) as mine:
        return ": begun" if mine else ": another process is at it"


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Whether the run is this process's alone. The lock falls when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock.locked(folder / "lock", str(folder)))
            mine = True
        except lock.Held:
            mine = False
        yield mine


@contextmanager
def timed(folder: Path) -> Iterator[None]:
    """Add the seconds inside to the run's own, also where the process is stopped: a run may take several processes. Those
    of a process that is killed outright are lost."""
    began = time.perf_counter()
    try:
        yield
    finally:
        total = seconds_spent(folder) + time.perf_counter() - began
        write_text(folder / "seconds.json", json.dumps({"seconds": round(total, 1)}) + "\n")


def seconds_spent(folder: Path) -> float:
    """Seconds that all processes together have spent on a run."""
    path = folder / "seconds.json"
    return read_json(path, "python studies/run.py").get("seconds", 0.0) if path.is_file() else 0.0


def run(name: str, study: dict[str, Any], variant: str, seed: int) -> dict[str, Any]:
    """Train, choose a sampler on validation images, evaluate; the result as plain values."""
    folder = run_folder(name, variant, seed)
    config = configuration(study, variant, seed, folder)
    check_run_folder(folder, config, record_path(name, variant, seed))  # another process may have begun it
    result: dict[str, Any] = {"study": name, "variant": variant, "seed": seed, "method": config.method}
    try:
        if not is_over(folder, config):
            dualat.train(config, resume=True)
    except Diverged as error:
        announce(str(error))
    result |= read_outcome(folder)
    result["curves"] = curves(folder)
    result["images_per_second"] = speeds(folder)
    if result["outcome"] == "finished" and study["metrics"]:
        result |= judged(folder, config, study, seed)
    result["config"] = plain(config)
    result["plan"] = made_with(study, config.method)
    result["versions"] = versions()
    result["commit"] = commit()
    result["threads"] = torch.get_num_threads()
    device = choose_device(config.device)
    result["device"] = device_name(device)
    result["precision"] = str(choose_dtype(config.precision, device)).removeprefix("torch.")  # of training
    return result


def commit() -> str | None:
    """The commit of the code at the time, with -dirty where files differ from it; None outside a git repository."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def is_over(folder: Path, config: RunConfig) -> bool:
    """Whether the run has finished, or diverged for good: training goes on with neither."""
    known, policy = read_outcome(folder), config.stability
    spent = policy.on_divergence == "stop" or len(known["divergences"]) > policy.restarts
    return known["outcome"] == "finished" or (known["outcome"] == "diverged" and spent)


def judged(folder: Path, config: RunConfig, study: dict[str, Any], seed: int) -> dict[str, Any]:
    """The sampler that validation images choose, of several if there are any, and the records of the model with it, on test images."""
    splits, model = load_splits(config.data), load(folder)
    settings = replace(config.evaluation, **study["evaluation"])
    context = EvaluationContext(model, splits, settings, seed)
    made = made_with(study, config.method)
    tried: list[dict[str, Any]] = []
    if candidates := [*made["samplers"], *made["own_samplers"]]:
        model.description.sampling, tried = choose_sampler(model, splits, context, candidates, folder)
    save_model(model, folder / "sampled-best")
    save_grid(model, folder / "samples" / "best.png", seed)
    records = update_records(
        folder / "study.json", context, "final", study["metrics"], by_name=True, tell=announce
    )
    return {"sampler": asdict(model.sampling), "samplers_tried": tried, "records": as_json(records)}


def curves(folder: Path) -> dict[str, list[Any]]:
    """The course of training, one point per logged step."""
    logged = [line for line in logged_lines(folder) if "loss" in line]
    names = [name for name in CURVES if any(name in line for line in logged)]
    found: dict[str, list[Any]] = {"stage": [e["stage"] for e in logged], "step": [e["step"] for e in logged]}
    for name in names:
        found[name] = [float(f"{line[name]:.4g}") if name in line else None for line in logged]
    return found


def speeds(folder: Path) -> dict[str, float]:
    """Training images per second of each stage, as last logged. Other jobs on the machine make it smaller."""
    lines = logged_lines(folder)
    return {str(e["stage"]): round(e["images_per_second"], 1) for e in lines if "images_per_second" in e}


def logged_lines(folder: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl; none where a run diverged before anything was logged."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


if __name__ == "__main__":
    main()
