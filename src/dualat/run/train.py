"""One run from a recipe: data, model, stages, final evaluation. `dualat train` is this function."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dualat.config import RunConfig, changed, load_recipe, plain, to_yaml
from dualat.data.images import Splits
from dualat.data.own import OwnData
from dualat.run.data import check_same, load_run_splits, located, write_data
from dualat.run.evaluation import check_final, evaluate_run
from dualat.run.folder import CONFIG, check_folder, check_unused, clear_run, run_lock
from dualat.run.model import new_model
from dualat.run.own import with_own
from dualat.run.stages import checked_stages, train_stages
from dualat.run.warnings import run_warnings
from dualat.system.distributed import barrier, is_first, processes
from dualat.system.files import write_text
from dualat.system.precision import choose_device, deterministic, fast_fp32
from dualat.system.seeds import mix_seed
from dualat.training.signals import StopRequest


def train(
    recipe: str | Path | RunConfig,
    overrides: Mapping[str, Any] | None = None,
    *,
    model: nn.Module | None = None,
    data: OwnData | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Train by a recipe and evaluate the result on the test split.

    Args:
        recipe: a recipe's name ("digits"), the path of a YAML file, or a complete configuration, which stays as it is.
        overrides: dotted settings, as in {"stage2.steps": 100, "seed": 1}.
        model: your own network, in place of the recipe's: any module from images (N, C, H, W) in [0, 1] to logits (N, K),
            normalisation included. A copy is trained; `dualat.load(run, network=model)` reads it.
        data: your own images, in place of the recipe's: a Dataset of (image, label) or a pair of tensors, which is split
            in the recipe's shares, a mapping of them with the keys train, validation and test, or our splits (own.py).
        resume: go on from the newest checkpoint of the run folder (a fresh start where there is none).
        overwrite: replace a run that is already in the folder.

    Returns:
        The run folder: config.yaml, data.json (where its images lie, and their hashes), metrics.jsonl, checkpoints/,
        samples/, model.safetensors and model.json (the averaged weights), evaluation.json, tensorboard/.

    Raises:
        ValueError, FileNotFoundError: settings, data or checkpoints that cannot work; the sentence says what to do.
        dualat.training.signals.Stopped: a signal asked the run to stop; nothing is lost, `resume` goes on.
    """
    whole = isinstance(recipe, RunConfig)
    config = changed(plain(recipe), overrides or {}) if whole else load_recipe(str(recipe), overrides)
    if config.output is None:
        config = replace(config, output=f"runs/{'run' if whole else Path(recipe).stem}")
    config, splits = with_own(config, overrides or (), model, data)
    with processes(config.device):
        check_unused(Path(config.output or ""))
        folder = check_folder(config, resume, overwrite)
        barrier()  # no rank writes into the folder before all have looked at it
        repeatable = deterministic(config.deterministic)
        with StopRequest() as stop, repeatable, fast_fp32(choose_device(config.device)):
            _train(config, folder, resume, overwrite, stop, model, splits)
    return folder


def _train(
    config: RunConfig,
    folder: Path,
    resume: bool,
    overwrite: bool,
    stop: StopRequest,
    network: nn.Module | None,
    own: Splits | None,
) -> None:
    """Data, model, stages, final evaluation. Nothing is written before settings and data are known to be good."""
    device = choose_device(config.device)
    torch.manual_seed(mix_seed(config.seed, "weights"))
    places = located(folder, config) if resume else config
    splits = load_run_splits(config, places) if own is None else own
    check_final(config.evaluation, splits)
    model = new_model(places, splits.train, device, network)
    model.description.data, model.description.initial = config.data, config.initial  # as they were given
    stages = checked_stages(config, splits.train)
    for text in run_warnings(config, model, splits.train):
        warnings.warn(text, stacklevel=3)
    with run_lock(folder):
        check_folder(config, resume, overwrite)  # again: another process may have begun a run here meanwhile
        if resume and (folder / CONFIG).is_file():
            check_same(folder, config, load_recipe(str(folder / CONFIG)), splits)
        barrier()
        if is_first():
            if overwrite:
                clear_run(folder)
            write_text(folder / CONFIG, to_yaml(config))
            write_data(folder, config, places, splits)
        barrier()
        train_stages(config, folder, resume, stop, model, splits, stages)
        evaluate_run(folder, config, splits, device, network)
