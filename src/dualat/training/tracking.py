"""Metrics of a run: `metrics.jsonl`, always; TensorBoard's files; and any other of accelerate's trackers by name."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualat.system.distributed import is_first
from dualat.system.files import write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Tracker:
    """Writes one JSON object per logged step, and the same figures to the trackers.

    Args:
        folder: the run folder.
        trackers: "tensorboard", or another of accelerate's names, such as "wandb".
        settings: flat settings of the run, shown by trackers that show settings.

    Raises ValueError where a tracker cannot be started.
    """

    def __init__(self, folder: Path, trackers: tuple[str, ...], settings: dict[str, Any]):
        self.path = folder / "metrics.jsonl"
        self.writer: SummaryWriter | None = None
        self.accelerator = None
        if not is_first():
            return
        if others := [name for name in trackers if name != "tensorboard"]:
            self.accelerator = started(others, folder, settings)
        if "tensorboard" in trackers:
            from torch.utils import tensorboard

            self.writer = tensorboard.SummaryWriter(str(folder / "tensorboard"))
            self.writer.add_hparams(settings, {})

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
        named = {f"stage{stage}/{name}": value for name, value in figures.items()}
        if self.writer is not None:
            for name, value in named.items():
                self.writer.add_scalar(name, value, step)
        if self.accelerator is not None:
            self.accelerator.log(named, step=step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        if self.accelerator is not None:
            for (
                tracker
            ) in self.accelerator.trackers:  # end_training() would also part this process from the others
                tracker.finish()


def started(trackers: list[Any], folder: Path, settings: dict[str, Any]) -> Any:
    """accelerate with these trackers running. ValueError where it is not installed, or cannot start one of them."""
    names = ", ".join(trackers)
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ValueError(
            f"tracking.trackers is {names}, which needs accelerate: pip install 'dualat[trackers]' brings it."
        ) from error
    try:
        accelerator = Accelerator(log_with=trackers, project_dir=str(folder))
        accelerator.init_trackers("dualat", config=settings)
    except (ValueError, ImportError) as error:
        raise ValueError(
            f"tracking.trackers is {names}, but accelerate cannot start it: {str(error).splitlines()[0]}"
        ) from error
    return accelerator
