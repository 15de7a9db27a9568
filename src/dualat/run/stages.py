"""The stages of a run: what is to be trained, whether its gradient loop runs compiled, and all steps."""

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from dualat.config import RunConfig, plain
from dualat.core.loop import frozen
from dualat.data.in_distribution import ImageData, Splits
from dualat.methods.base import Method
from dualat.methods.registry import build_method
from dualat.models.model import LoadedModel, check_weights, save_model
from dualat.run.evaluation import validation_evaluator
from dualat.run.folder import flatten
from dualat.system.distributed import barrier, is_first
from dualat.system.precision import choose_device, choose_dtype
from dualat.training.checkpoint import TrainingState, load_state
from dualat.training.divergence import read_outcome, write_outcome
from dualat.training.feed import Feed
from dualat.training.loop import Run, train_stage
from dualat.training.progress import announce
from dualat.training.settings import StageSettings
from dualat.training.signals import StopRequest
from dualat.training.step import check_division
from dualat.training.tracking import Tracker

Stages = list[tuple[int, Method, StageSettings]]
"""Number, method and settings of each stage, in their order."""
LONG_RUN = 2e15
"""Floating-point operations from which compiling pays on a CPU: more than an hour on 2 cores, of which it saves minutes."""


def stage_plan(config: RunConfig, train_data: ImageData) -> Stages:
    """(number, method, settings) of the stages that this configuration trains."""
    return [
        (number, build_method(stage.method, min(stage.batch_size, len(train_data))), stage)
        for number, stage in sorted(config.stages.items())
    ]


def checked_stages(config: RunConfig, train_data: ImageData) -> Stages:
    """The same; ValueError where a batch cannot be divided as its settings, or the processes, ask."""
    stages = stage_plan(config, train_data)
    for _, method, settings in stages:
        check_division(method, settings, min(settings.batch_size, len(train_data)))
    return stages


def worth_compiling(
    config: RunConfig,
    model: LoadedModel,
    data: ImageData,
    stages: Stages,
) -> bool:
    """Whether the gradient loop runs compiled. `auto` decides by settings alone, so that a resumed run decides alike.

    Raises ValueError where `compile` is on and no stage has a loop that can be compiled.
    """
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


def train_stages(
    config: RunConfig,
    folder: Path,
    resume: bool,
    stop: StopRequest,
    model: LoadedModel,
    splits: Splits,
    stages: Stages,
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
        kept = (config.tracking, tracker, evaluator, stop, compiles, config.stability)
        run = Run(folder, config.seed, dtype, *kept)
        run_stages(model, stages, feed, run, state)
    finally:
        tracker.close()
    if is_first():
        save_model(model, folder / "model")
        write_outcome(folder, "finished", read_outcome(folder)["divergences"])
    barrier()


def run_stages(
    model: LoadedModel,
    stages: Stages,
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
