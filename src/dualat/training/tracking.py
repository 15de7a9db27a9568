"""Metrics of a run: `metrics.jsonl`, always, and any of accelerate's trackers by name."""

import json
from pathlib import Path
from typing import Any

from dualat.distributed import is_first
from dualat.files import write_text


class Tracker:
    """Writes one JSON object per logged step, and the same figures to the trackers.

    Args:
        folder: the run folder.
        trackers: accelerate's names, as in "tensorboard" or "wandb".
        settings: flat settings of the run, shown by trackers that show settings.
    """

    def __init__(self, folder: Path, trackers: tuple[str, ...], settings: dict[str, Any]):
        self.path = folder / "metrics.jsonl"
        self.accelerator = None
        if trackers and is_first():
            from accelerate import Accelerator

            try:
                self.accelerator = Accelerator(log_with=list(trackers), project_dir=str(folder))
                self.accelerator.init_trackers(
                    "tensorboard" if trackers == ("tensorboard",) else "dualat", config=settings
                )
            except (ValueError, ImportError) as error:
                raise ValueError(
                    f"tracking.trackers is {', '.join(trackers)}, but accelerate cannot start it: "
                    f"{str(error).splitlines()[0]}"
                ) from error

    def rewind(self, stage: int, step: int) -> None:
        """Forget lines after (stage, step): a resumed run writes them again."""
        if not self.path.is_file() or not is_first():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
                before = (record["stage"], record["step"]) <= (stage, step)
            except (ValueError, LookupError, TypeError, RecursionError):  # the line that a kill cut short
                continue
            if before:
                kept.append(line)
        write_text(self.path, "".join(f"{line}\n" for line in kept))

    def log(self, stage: int, step: int, figures: dict[str, float]) -> None:
        """Record figures of one step, on the first rank."""
        if not is_first():
            return
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps({"stage": stage, "step": step, **figures}) + "\n")
        if self.accelerator is not None:
            self.accelerator.log(
                {f"stage{stage}/{name}": value for name, value in figures.items()}, step=step
            )

    def close(self) -> None:
        if self.accelerator is not None:
            for (
                tracker
            ) in self.accelerator.trackers:  # end_training() would also part this process from the others
                tracker.finish()
