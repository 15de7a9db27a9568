"""Run a study: every variant of `studies/NAME/study.yaml`, with every seed, in the one harness.

    python studies/run.py systems                       all that is missing, one run after the other
    python studies/run.py systems --only dat jem --seeds 0 1

A finished run is one file, `studies/NAME/records/VARIANT-seedN.json`; it is not run again. A run that was killed goes on
from its checkpoint (run folders lie in `runs/studies/NAME`). To run in the background: nohup ... & ; two processes may
share the work if they are given different variants or seeds. Figures and pages are made by `python studies/page.py`.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml

import dualat
from dualat.config import RunConfig, build_config, merge
from dualat.data.in_distribution import Splits, load_splits
from dualat.evaluate import as_json, complete, save_grid
from dualat.evaluation.frechet import frechet_distance
from dualat.evaluation.record import versions
from dualat.evaluation.samples import from_model
from dualat.evaluation.subject import Subject
from dualat.files import write_text
from dualat.load import LoadedModel, load, save_model
from dualat.sampling_settings import SamplingSettings
from dualat.seeding import mix_seed
from dualat.training.divergence import Diverged, read_outcome
from dualat.training.progress import announce
from dualat.training.signals import Stopped

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
    arguments = parser.parse_args()
    study = read_study(arguments.study)
    for seed in arguments.seeds or study["seeds"]:
        for variant in arguments.only or study["variants"]:
            path = HERE / arguments.study / "records" / f"{variant}-seed{seed}.json"
            if path.is_file():
                continue
            announce(f"{arguments.study}: {variant}, seed {seed}")
            try:
                result = run(arguments.study, study, variant, seed)
            except Stopped as stop:
                announce(str(stop))
                return
            write_text(path, json.dumps(result, indent=1) + "\n")


def read_study(name: str) -> dict[str, Any]:
    """A study's YAML: base (a recipe), variants (overrides by name), seeds, metrics, evaluation, samplers."""
    path = HERE / name / "study.yaml"
    if not path.is_file():
        known = sorted(p.parent.name for p in HERE.glob("*/study.yaml"))
        raise SystemExit(f"there is no study {name!r}: give one of {', '.join(known)}.")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def configuration(study: dict[str, Any], variant: str, seed: int, folder: Path) -> RunConfig:
    """The complete configuration of one run."""
    values = merge(study["base"], study["variants"][variant] or {})
    return build_config({**values, "seed": seed, "output": str(folder)})


def run(name: str, study: dict[str, Any], variant: str, seed: int) -> dict[str, Any]:
    """Train, choose a sampler on validation images, evaluate; the result as plain values."""
    folder = Path("runs") / "studies" / name / f"{variant}-seed{seed}"
    config = configuration(study, variant, seed, folder)
    began = time.perf_counter()
    result: dict[str, Any] = {"study": name, "variant": variant, "seed": seed, "method": config.method}
    try:
        if not (folder / "model.safetensors").is_file():
            dualat.train(config, resume=True)
    except Diverged as error:
        announce(str(error))
    result |= read_outcome(folder)
    result["curves"] = curves(folder)
    result["images_per_second"] = speeds(folder)
    if result["outcome"] == "finished" and study["metrics"]:
        result |= judged(folder, config, study, seed)
    result["config"] = asdict(config)
    result["versions"] = versions()
    result["threads"] = torch.get_num_threads()
    result["seconds"] = round(time.perf_counter() - began, 1)
    return result


def judged(folder: Path, config: RunConfig, study: dict[str, Any], seed: int) -> dict[str, Any]:
    """The sampler that validation images choose, and the records of the model with it, on test images."""
    splits, model = load_splits(config.data), load(folder)
    settings = replace(config.evaluation, **{k: as_tuple(v) for k, v in study["evaluation"].items()})
    subject = Subject(model, splits, settings, seed)
    own = study.get("own_samplers", {}).get(config.method)
    candidates = [*study["samplers"], *([own] if own else [])]
    unconditional = {"energy": "marginal"} if config.method == "at-ebm" else {}
    chosen, tried = choose_sampler(model, splits, subject, [c | unconditional for c in candidates])
    model.description.sampling = chosen
    save_model(model, folder / "sampled-best")
    save_grid(model, folder / "samples" / "best.png", seed)
    records = complete(folder / "study.json", subject, "final", study["metrics"], by_name=True, tell=announce)
    return {"sampler": asdict(chosen), "samplers_tried": tried, "records": as_json(records)}


def choose_sampler(
    model: LoadedModel, splits: Splits, subject: Subject, candidates: list[dict[str, Any]]
) -> tuple[SamplingSettings, list[dict[str, Any]]]:
    """Of several samplers the one with the least Frechet distance to validation images; samples of a seed of its own."""
    target = subject.judge.features_of(splits.validation)
    tried = []
    for candidate in candidates:
        model.description.sampling = SamplingSettings(**candidate)
        images = from_model(model, 500, mix_seed("choose-sampler", subject.seed)).images.float() / 255
        distance = frechet_distance(subject.judge.features(images), target)
        tried.append({**candidate, "validation_frechet": distance})
    best = min(range(len(tried)), key=lambda i: tried[i]["validation_frechet"])
    return SamplingSettings(**candidates[best]), tried


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


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


if __name__ == "__main__":
    main()
