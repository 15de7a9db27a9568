"""The speed of training that `dualat bench` has measured, for planning."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
