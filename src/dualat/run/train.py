"""One run from a recipe: data, model, stages, final evaluation. `dualat train` is this function."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dualat.config import RunConfig, changed, load_recipe, plain, to_yaml
from dualat.core.loop import frozen
from dualat.data.distance import distance_to_data, path_warning
from dualat.data.images import channel_statistics
from dualat.data.in_distribution import ImageData, Splits
from dualat.data.initial import InitialDistribution, build_initial
from dualat.data.own import OwnData
from dualat.methods.base import Method
from dualat.methods.registry import build_method, row_of
from dualat.models.batchnorm import batchnorm_modules
from dualat.models.model import (
    LoadedModel,
    ModelDescription,
    build_model,
    check_weights,
    copy_weights,
    load,
    placed,
    save_model,
)
from dualat.models.own import check_logits, own_copy
from dualat.run.data import check_same, load_run_splits, located, write_data
from dualat.run.evaluation import check_final, evaluate_run, validation_evaluator
from dualat.run.folder import CONFIG, check_folder, check_unused, clear_run, flatten, run_lock
from dualat.run.own import with_own
from dualat.system.distributed import is_first, processes, wait
from dualat.system.files import write_text
from dualat.system.precision import choose_device, choose_dtype, deterministic, fast_fp32
from dualat.system.seeds import mix_seed
from dualat.training.checkpoint import TrainingState, load_state
from dualat.training.divergence import read_outcome, write_outcome
from dualat.training.feed import Feed
from dualat.training.loop import Run, train_stage
from dualat.training.progress import announce
from dualat.training.settings import StageSettings
from dualat.training.signals import StopRequest
from dualat.training.step import check_division
from dualat.training.tracking import Tracker

LONG_RUN = 2e15
"""Floating-point operations from which compiling pays on a CPU: more than an hour on 2 cores, of which it saves minutes."""


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
        wait()  # no rank writes into the folder before all have looked at it
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
    stages = stage_plan(config, splits.train)
    for _, method, settings in stages:
        check_division(method, settings, min(settings.batch_size, len(splits.train)))
    for text in doubts(config, model, splits.train):
        warnings.warn(text, stacklevel=3)
    with run_lock(folder):
        check_folder(config, resume, overwrite)  # again: another process may have begun a run here meanwhile
        if resume and (folder / CONFIG).is_file():
            check_same(folder, config, load_recipe(str(folder / CONFIG)), splits)
        wait()
        if is_first():
            if overwrite:
                clear_run(folder)
            write_text(folder / CONFIG, to_yaml(config))
            write_data(folder, config, places, splits)
        wait()
        _train_stages(config, folder, resume, stop, model, splits, stages)
        evaluate_run(folder, config, splits, device, network)


def _train_stages(
    config: RunConfig,
    folder: Path,
    resume: bool,
    stop: StopRequest,
    model: LoadedModel,
    splits: Splits,
    stages: list[tuple[int, Method, StageSettings]],
) -> None:
    """All steps that are left; the final model is written."""
    device = choose_device(config.device)
    state = load_state(folder / "checkpoints") if resume else None
    if resume and state is None:
        announce(f"there is no checkpoint in {folder} yet: starting anew")
    if state is not None:
        check_weights(model, state.model, folder / "checkpoints")
    tracker = Tracker(folder, config.tracking.trackers, flatten(plain(config)))
    tracker.rewind(*((state.stage, state.reported) if state else (0, 0)))
    feed = Feed(splits.train, config.robust_augment, config.energy_augment, model.initial, device)
    dtype = choose_dtype(config.precision, device)
    try:
        evaluator = validation_evaluator(config, splits, folder)
        compiles = worth_compiling(config, model, splits.train, stages)
        run = Run(
            folder,
            config.seed,
            dtype,
            config.tracking,
            tracker,
            evaluator,
            stop,
            compiles,
            config.stability,
        )
        run_stages(model, stages, feed, run, state)
    finally:
        tracker.close()
    if is_first():
        save_model(model, folder / "model")
        write_outcome(folder, "finished", read_outcome(folder)["divergences"])
    wait()


def run_stages(
    model: LoadedModel,
    stages: list[tuple[int, Method, StageSettings]],
    feed: Feed,
    run: Run,
    state: TrainingState | None,
) -> None:
    """Train each stage from the averaged weights of the one before; those of all but the last are kept for comparison."""
    if state is not None and state.stage not in (number for number, *_ in stages):
        raise ValueError(
            f"the state in {run.folder / 'checkpoints'} is of stage {state.stage}, which this run lacks."
        )
    last = stages[-1][0]
    for number, method, settings in stages:
        if state is not None and state.stage > number:
            continue  # done before; the later stage's state holds all weights
        resume = state if state is not None and state.stage == number else None
        average = train_stage(model, number, method, settings, feed, run, resume)
        model.load_state_dict(average)
        if number != last and is_first():
            save_model(model, run.folder / "checkpoints" / f"stage{number}")


def stage_plan(config: RunConfig, train_data: ImageData) -> list[tuple[int, Method, StageSettings]]:
    """(number, method, settings) of the stages that this configuration trains."""
    return [
        (number, build_method(stage.method, min(stage.batch_size, len(train_data))), stage)
        for number, stage in sorted(config.stages.items())
    ]


def worth_compiling(
    config: RunConfig,
    model: LoadedModel,
    data: ImageData,
    stages: list[tuple[int, Method, StageSettings]],
) -> bool:
    """Whether the gradient loop runs compiled. `auto` decides by settings alone, so that a resumed run decides alike."""
    if not any(method.compiles for _, method, _ in stages):
        if config.compile == "on":
            raise ValueError(
                f"compile is on, but {' and '.join(m.name for _, m, _ in stages)} has no gradient loop that can be compiled: leave it at auto."
            )
        return False
    if config.compile == "auto" and config.network.is_own:
        return False  # whether somebody's own code compiles is not known
    if config.compile != "auto" or next(model.parameters()).device.type != "cpu":
        return config.compile != "off"
    work = 0.0
    for _, method, settings in stages:
        batch = min(settings.batch_size, len(data))
        passes = method.loop_steps() + (0 if method.curriculum is None else method.curriculum.t_max)
        work += settings.length(max(1, len(data) // batch)) * batch * passes
    # a pass through the network and back to its input costs about two forward passes
    return 2 * work * forward_operations(model) > LONG_RUN


def forward_operations(model: LoadedModel) -> int:
    """Floating-point operations of one image's forward pass."""
    with frozen(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *model.shape, device=next(model.parameters()).device))
    return counter.get_total_flops()


def new_model(
    config: RunConfig, data: ImageData, device: torch.device, network: nn.Module | None = None
) -> LoadedModel:
    """The network, on the device, with fresh weights, or with those of `config.weights`; or a copy of somebody's own."""
    mean, std = channel_statistics(data)
    initial = build_initial(config.initial, data.shape, data)
    description = ModelDescription(
        network=config.network if network is None else None,
        class_names=list(data.class_names),
        shape=data.shape,
        normalized=config.network.normalize == "data",
        initial=config.initial,
        sampling=config.sampling,
        data=config.data,
        train_sha256=data.content,
    )
    if network is None:
        model = build_model(description, initial, mean, std)
        if config.network.is_own:
            check_logits(model.network, description)
    else:
        model = LoadedModel(own_copy(network, description), description, initial)
    if config.weights is not None:
        given = load(config.weights, network=copy.deepcopy(network))
        if list(given.class_names) != list(model.class_names):
            raise ValueError(
                f"the weights in {config.weights} know the classes {', '.join(given.class_names[:5])} ..., "
                f"but the data has {', '.join(model.class_names[:5])} ...."
            )
        copy_weights(model, given.state_dict(), config.weights)
    return placed(model, device)


def doubts(config: RunConfig, model: LoadedModel, data: ImageData) -> list[str]:
    """What is allowed and probably not meant, a sentence each."""
    texts = [
        f"stage{number}.batch_size is {stage.batch_size}, but there are {len(data)} training images: "
        "every step takes all of them."
        for number, stage in sorted(config.stages.items())
        if stage.batch_size > len(data)
    ]
    for number, stage in sorted(config.stages.items()):
        frozen_needed = not row_of(stage.method.name).batch_statistics
        if frozen_needed and not stage.freeze_batchnorm and batchnorm_modules(model):
            texts.append(
                f"{stage.method.name} is published without statistics of the batch, but BatchNorm is in train mode: add "
                f"--stage{number}.freeze-batchnorm."
            )
    return [*texts, *path_sentences(config, model.initial, data)]


def path_sentences(config: RunConfig, initial: InitialDistribution | None, data: ImageData) -> list[str]:
    """A warning where T_max * eta cannot carry the initial distribution to the data, for each stage with a curriculum."""
    groups = [getattr(stage.method, "contrastive", None) for _, stage in sorted(config.stages.items())]
    paths = [group.t_max * group.step_size for group in groups if group is not None]
    if initial is None or not paths:
        return []
    count = 200
    labels = data.labels[torch.arange(count) * len(data) // count]
    starts = initial.sample(count, labels, torch.Generator().manual_seed(0))
    distance = distance_to_data(starts, data)
    return [text for path in paths if (text := path_warning(path, distance))]
