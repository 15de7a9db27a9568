"""When training has diverged, and what is kept of that: how often a method diverges is a result."""

import json
import math
from pathlib import Path
from typing import Any

from dualat.system.files import write_text

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
        outcome = json.loads(path.read_text(encoding="utf-8"))
        return {"outcome": str(outcome["outcome"]), "divergences": list(outcome["divergences"])}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: remove it, or start again with --overwrite.") from error


def record_divergence(folder: Path, stage: int, step: int, loss: float, gradient_norm: float) -> None:
    """Add a divergence to the run's outcome. step: 1 is the first."""
    outcome = read_outcome(folder)
    entry = {"stage": stage, "step": step, "loss": str(loss), "gradient_norm": str(gradient_norm)}
    outcome["divergences"].append(entry)
    write_outcome(folder, "diverged", outcome["divergences"])


def write_outcome(folder: Path, outcome: str, divergences: list[dict[str, Any]]) -> None:
    """Write `outcome.json`. outcome: running, stopped (by a signal; a resume goes on), diverged, or finished."""
    content = {"outcome": outcome, "divergences": divergences}
    write_text(folder / OUTCOME, json.dumps(content, indent=2) + "\n")


def message(stage: int, step: int, loss: float, limit: float, folder: Path) -> str:
    """What happened, and what is kept. step: 1 is the first."""
    kept = f"the last good checkpoint stays in {folder / 'checkpoints'}"
    what = (
        f"the loss became {loss:.3g}, beyond stability.limit = {limit:g},"
        if math.isfinite(loss) and abs(loss) > limit
        else "the loss or its gradient became infinite or undefined"
    )
    where = kept if has_checkpoint(folder) else "no checkpoint was due before"
    return f"{what} at stage {stage}, step {step}: {where}"


def advice(stage: int, restarts: int, folder: Path) -> str:
    """What to do where training has diverged for good, after so many restarts."""
    rate = (
        f"a lower learning rate (--stage{stage}.optimizer.lr) or warm-up (--stage{stage}.optimizer.warmup-steps), in a new run, "
        "usually helps"
    )
    if restarts:
        return f"{restarts} restart{'s' if restarts > 1 else ''} with other random numbers led no further; {rate}."
    place = "from the last checkpoint" if has_checkpoint(folder) else "from the start"
    return f"{rate}; --resume tries again {place} with other random numbers, as --stability.on-divergence restart does by itself."


def has_checkpoint(folder: Path) -> bool:
    """Whether the run has kept a state to go on from."""
    return (folder / "checkpoints" / "latest.json").is_file()
