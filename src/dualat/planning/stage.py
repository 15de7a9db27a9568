"""One stage of a plan: what its training step takes, and its figures as plain values."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from dualat.config import RunConfig
from dualat.methods.base import Method
from dualat.models.batchnorm import set_train_mode
from dualat.models.model import LoadedModel
from dualat.planning.data import DataFacts
from dualat.planning.hardware import Hardware
from dualat.planning.memory import CONTEXT, EXCHANGE, Memory, memory, slots
from dualat.planning.speed import Speed
from dualat.planning.step import Passes, StepCost, count_passes, step_cost
from dualat.training.settings import StageSettings

UNCOUNTED = 10**6
"""Images that a source is taken to have where their number is not known: more than any batch."""


@dataclass(frozen=True)
class Stage:
    """A stage, before its speed is known."""

    number: int
    method: Method
    settings: StageSettings
    batch: int
    """Images of a step, of all GPUs."""
    share: int
    """Those of one GPU."""
    cost: StepCost
    guess: Passes
    """Passes with T at half of T_max: what a whole run is taken to have on average."""
    most: Passes
    """Passes with T at T_max."""
    memory: Memory
    steps: int
    steps_per_epoch: int | None
    """None: the number of images is not known."""


def see_stage(
    config: RunConfig,
    model: LoadedModel,
    part: tuple[int, Method, StageSettings],
    images: DataFacts,
    gpus: int,
    precision: str,
    hardware: Hardware,
) -> Stage:
    """Passes, operations and memory of one stage."""
    number, method, settings = part
    batch = min(settings.batch_size, images.train or UNCOUNTED)
    epoch = None if images.train is None else max(1, images.train // batch)
    if epoch is None and settings.steps is None:
        raise ValueError(
            f"the images of {config.data.source} cannot be counted here, and stage{number} is {settings.epochs:g} epochs "
            "long: give --train-images (1281167 for ImageNet)."
        )
    at_work = images_at_work(method, number, batch, gpus, settings.accumulate)
    most, guess = both_passes(method, images)
    set_train_mode(model, settings.freeze_batchnorm)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    cost = step_cost(model, method, most, at_work, images.shape, dtype)
    is_gpu, sharpness = hardware.memory is not None, bool(method.sharpness)
    compiled = is_gpu and config.compile != "off"
    context = is_gpu * (CONTEXT + (gpus > 1) * EXCHANGE)
    held = memory(model, cost, slots(settings.optimizer), sharpness, batch // gpus, compiled, context)
    steps = settings.length(epoch or 1)
    return Stage(number, method, settings, batch, batch // gpus, cost, guess, most, held, steps, epoch)


def images_at_work(method: Method, number: int, batch: int, gpus: int, accumulate: int) -> int:
    """Images that one GPU has at work at a time, of each batch. ValueError where a batch cannot be shared out so."""
    if gpus > 1 and method.one_process:
        raise ValueError(
            f"method {method.name} keeps a replay buffer, which {gpus} GPUs cannot share: plan it with --gpus 1."
        )
    if batch % (gpus * accumulate):
        each = f" in {accumulate} parts each" if accumulate > 1 else ""
        raise ValueError(
            f"stage{number} has batches of {batch} images, which {gpus} GPUs{each} cannot divide: give --stage{number}."
            f"batch-size a multiple of {gpus * accumulate}, or another number of GPUs."
        )
    return batch // (gpus * accumulate)


def both_passes(method: Method, images: DataFacts) -> tuple[Passes, Passes]:
    """Passes with T at T_max, and at half of it; the same where the method has no curriculum."""

    def passes(share: int) -> Passes:
        if method.curriculum is not None:
            method.curriculum.steps = method.curriculum.t_max // share
        return count_passes(method, images.shape[0], images.classes)

    return passes(1), passes(2)


def stage_row(stage: Stage, speed: Speed) -> dict[str, Any]:
    """A stage as plain values."""
    epoch, room, held = stage.steps_per_epoch, speed.hardware.memory, stage.memory
    return {
        "stage": stage.number,
        "method": stage.method.name,
        "batch_size": stage.batch,
        "images_per_gpu": stage.share,
        "accumulate": stage.settings.accumulate,
        "steps": stage.steps,
        "steps_per_epoch": epoch,
        "epochs": None if epoch is None else stage.steps / epoch,
        "t_max": stage.method.curriculum and stage.method.curriculum.t_max,
        "guess": step_row(stage, speed, stage.guess),
        "most": step_row(stage, speed, stage.most),
        "memory": {**asdict(held), "tensors": held.tensors, "total": held.total},
        "fits": None if room is None else held.total <= room,
    }


def step_row(stage: Stage, speed: Speed, passes: Passes) -> dict[str, Any]:
    """A training step of a stage as plain values."""
    flops = stage.batch * stage.cost.flops(passes)
    seconds = speed.seconds(stage.cost, passes, stage.batch, stage.settings.accumulate)
    epoch = stage.steps_per_epoch
    return {
        "passes": {k: v for k, v in asdict(passes).items() if k not in ("rounds", "made")},
        "flops_per_image": flops / stage.batch,
        "flops_per_step": flops,
        "flops_per_epoch": None if epoch is None else flops * epoch,
        "seconds_per_step": seconds,
        "images_per_second": stage.batch / seconds,
        "mfu": speed.mfu(flops, seconds),
        "hours": stage.steps * seconds / 3600,
    }
