"""One stage of a plan, and its figures as plain values."""

from dataclasses import asdict, dataclass
from typing import Any

from dualat.planning.memory import Memory
from dualat.planning.passes import Passes
from dualat.planning.speed import Speed
from dualat.planning.step import StepCost


@dataclass(frozen=True)
class Stage:
    """A stage, before its speed is known."""

    number: int
    method: str
    batch: int
    """Images of a step, of all GPUs."""
    share: int
    """Those of one GPU."""
    accumulate: int
    """Parts into which that is cut."""
    t_max: int | None
    """T_max of the curriculum; None where there is none."""
    cost: StepCost
    guess: Passes
    """Passes with T at half of T_max: what a whole run is taken to have on average."""
    most: Passes
    """Passes with T at T_max."""
    memory: Memory
    steps: int
    steps_per_epoch: int | None
    """None: the number of images is not known."""


def stage_row(stage: Stage, speed: Speed) -> dict[str, Any]:
    """A stage as plain values."""
    epoch, room, held = stage.steps_per_epoch, speed.hardware.memory, stage.memory
    return {
        "stage": stage.number,
        "method": stage.method,
        "batch_size": stage.batch,
        "images_per_gpu": stage.share,
        "accumulate": stage.accumulate,
        "steps": stage.steps,
        "steps_per_epoch": epoch,
        "epochs": None if epoch is None else stage.steps / epoch,
        "t_max": stage.t_max,
        "guess": step_row(stage, speed, stage.guess),
        "most": step_row(stage, speed, stage.most),
        "memory": {**asdict(held), "tensors": held.tensors, "total": held.total},
        "fits": None if room is None else held.total <= room,
    }


def step_row(stage: Stage, speed: Speed, passes: Passes) -> dict[str, Any]:
    """A training step of a stage as plain values."""
    flops = stage.batch * stage.cost.flops(passes)
    seconds = speed.seconds(stage.cost, passes, stage.batch, stage.accumulate)
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
