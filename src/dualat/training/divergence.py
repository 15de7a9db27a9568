"""When training has diverged, and what is kept of that: how often a method diverges is a result."""

import json
import math
from pathlib import Path
from typing import Any

from dualat.files import write_text

OUTCOME = "outcome.json"


class Diverged(ValueError):
    """The loss or its gradient is infinite or undefined, or beyond the limit; the message names the step."""


def has_diverged(loss: float, gradient_norm: float, limit: float) -> bool:
    """Whether a step's figures are no finite numbers, or |loss| > limit."""
    return not (math.isfinite(loss) and math.isfinite(gradient_norm)) or abs(loss) > limit


def read_outcome(folder: Path) -> dict[str, Any]:
    """The run's outcome so far: {"outcome": "running", "divergences": []} where nothing is written yet."""
    path = folder / OUTCOME
    if not path.is_file():
        return {"outcome": "running", "divergences": []}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: remove it, or start again with --overwrite.") from error


def record_divergence(folder: Path, stage: int, step: int, loss: float, gradient_norm: float) -> None:
    """Add a divergence to the run's outcome. step: 1 is the first."""
    outcome = read_outcome(folder)
    entry = {"stage": stage, "step": step, "loss": str(loss), "gradient_norm": str(gradient_norm)}
    outcome["divergences"].append(entry)
    write_outcome(folder, "diverged", outcome["divergences"])


def write_outcome(folder: Path, outcome: str, divergences: list[dict[str, Any]]) -> None:
    """Write `outcome.json`. outcome: running, diverged, or finished."""
    content = {"outcome": outcome, "divergences": divergences}
    write_text(folder / OUTCOME, json.dumps(content, indent=2) + "\n")


def message(stage: int, step: int, loss: float, limit: float, folder: Path) -> str:
    """What happened, what is kept, what to do. step: 1 is the first."""
    kept = folder / "checkpoints"
    where = (
        f"the last good checkpoint stays in {kept}"
        if (kept / "latest.json").is_file()
        else "no checkpoint was due before"
    )
    what = (
        f"the loss grew to {loss:.3g}, beyond stability.limit = {limit:g},"
        if math.isfinite(loss) and abs(loss) > limit
        else "the loss or its gradient became infinite or undefined"
    )
    return (
        f"{what} at stage {stage}, step {step}: {where}; a lower learning rate (--stage{stage}.optimizer.lr) or "
        f"warm-up (--stage{stage}.optimizer.warmup-steps), in a new run, usually helps; --resume tries again from the last "
        "checkpoint with other random numbers, as --stability.on-divergence restart does by itself."
    )
