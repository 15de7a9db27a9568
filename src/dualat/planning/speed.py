"""How long a training step takes: from a share of the peak, a throughput, a benchmark, or each operation's least time."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualat.planning.hardware import Hardware
from dualat.planning.settings import PlanSettings
from dualat.planning.step import Passes, StepCost

_LOSS = 9
"""Passes of the benchmark's loss: three batches, each forward, back to the input and to the weights."""


@dataclass(frozen=True)
class Measured:
    """One benchmark of one device."""

    file: str
    device: str
    """As its driver calls it."""
    network: str
    shape: tuple[int, int, int]
    batch_size: int
    contender: str
    flops_per_second: float
    """Operations per second of a stage-2 training step."""


def read_measured(path: Path | str, precision: str, compiled: bool) -> Measured:
    """The fastest of dualat's own training steps in that precision.

    Args:
        precision: "bf16" or "fp32" (in TF32 where the device has it).
        compiled: whether compiled loops count too.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no result of `dualat bench` with a train_step in that precision.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: write it with `dualat bench --output {path}`.")
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        asked, rows = result["settings"], result["tasks"]["train_step"]
        device, forward = str(result["hardware"]["device"]), float(result["forward_gflop_per_image"]) * 1e9
        passes = 2 * (asked["steps"] + asked["attack_steps"]) + _LOSS
        speeds = {
            name: float(row["images_per_second"]) * passes * forward
            for name, row in rows.items()
            if usable(name, precision, compiled) and name not in result.get("fell_back_to_eager", ())
        }
        shape = (asked["channels"], asked["image_size"], asked["image_size"])
        network, batch = str(asked["network"]), int(asked["batch_size"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is no result of `dualat bench` with the task train_step: give one, or --mfu."
        ) from error
    if not speeds:
        raise ValueError(
            f"{path} has no training step of dualat in {precision}: choose another --precision, or time it with "
            f"`dualat bench --network {network}`."
        )
    best = max(speeds, key=speeds.__getitem__)
    return Measured(str(path), device, network, shape, batch, best, speeds[best])


def usable(contender: str, precision: str, compiled: bool) -> bool:
    """Whether a contender of the benchmark does what a run would do."""
    words = contender.split()
    precisions = ("fp32", "tf32") if precision == "fp32" else (precision,)
    return words[0] == "dualat" and words[1] in precisions and (compiled or "compiled" not in words)


class Speed:
    """How long work takes on all GPUs together.

    Args:
        hardware: one GPU.
        precision: of training, "bf16" or "fp32".
        settings: how many there are, and what is known of their speed.
        measured: the benchmark that `settings.measured` names.
        flops_per_image: operations per image and step of the stage that `settings.images_per_second` is of.
    """

    def __init__(
        self,
        hardware: Hardware,
        precision: str,
        settings: PlanSettings,
        measured: Measured | None,
        flops_per_image: float,
    ):
        self.hardware, self.gpus = hardware, settings.gpus
        self.peak = hardware.peaks[precision]
        self.rate: float | None = None
        """Operations per second of all GPUs; None: by each operation's least time."""
        if settings.mfu is not None:
            self.rate, self.origin = settings.mfu * self.peak * self.gpus, "MFU as given"
        elif settings.images_per_second is not None:
            self.rate = settings.images_per_second * flops_per_image
            self.origin = f"{settings.images_per_second:g} images/s in the last stage, as given"
        elif measured is not None:
            self.rate = measured.flops_per_second * self.gpus
            self.origin = f"measured: {measured.file}, {measured.contender}, {measured.device}, batch {measured.batch_size}"
        else:
            self.origin = (
                "estimated: each operation's least time by arithmetic and memory traffic, divided by "
                f"{hardware.efficiency:g}"
            )

    def seconds(self, cost: StepCost, passes: Passes, batch: int, parts: int) -> float:
        """Of one training step.

        Args:
            cost: of one part of one GPU's batch.
            passes: of the step.
            batch: images of the step, of all GPUs.
            parts: into which each GPU's batch is cut.
        """
        if self.rate is not None:
            return batch * cost.flops(passes) / self.rate
        least = cost.least_seconds(self.peak, self.hardware.bandwidth, passes)
        return parts * least / self.hardware.efficiency

    def mfu(self, flops: float, seconds: float) -> float:
        """Share of the peak that is reached."""
        return flops / (seconds * self.peak * self.gpus)
