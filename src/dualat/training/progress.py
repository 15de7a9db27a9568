"""What a person sees while training: a live line on a terminal, plain lines elsewhere."""

import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from dualat.system.distributed import is_first

PLAIN_EVERY = 10.0  # seconds between two plain lines


def duration(seconds: float) -> str:
    """75 -> '1:15', 3675 -> '1:01:15'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def announce(text: str) -> None:
    """One line for a person, on the error stream of the first rank, so that --json output stays clean."""
    if is_first():
        Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


class Progress:
    """Shows epoch, T, losses, AUROC, R1, images per second and time left. Use as a context manager."""

    def __init__(self, title: str, total: int, done: int, steps_per_epoch: int, batch_size: int):
        self.title, self.total, self.steps_per_epoch, self.batch_size = (
            title,
            total,
            steps_per_epoch,
            batch_size,
        )
        self.console = Console(stderr=True, quiet=not is_first())
        self.first, self.begin, self.printed = done, time.monotonic(), 0.0
        self.paused = 0.0
        self.shown: dict[str, float] = {}
        shown = self.console.is_terminal and is_first()
        self.live = Live(console=self.console, refresh_per_second=4) if shown else None

    def __enter__(self) -> "Progress":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def rate(self, done: int) -> float:
        """Training steps per second since this call of the program began, evaluation time excluded."""
        return (done - self.first) / max(1e-9, time.monotonic() - self.begin - self.paused)

    def exclude(self, seconds: float) -> None:
        """Leave time spent on something else (evaluation) out of the rate."""
        self.paused += seconds

    def update(self, done: int, figures: dict[str, float]) -> None:
        """Show the state after `done` steps; figures missing this time are shown as they were."""
        self.shown |= figures
        now = time.monotonic()
        if self.live is None and now - self.printed < PLAIN_EVERY and done < self.total:
            return
        self.printed = now
        line = self.line(done)
        if self.live:
            self.live.update(Text(line))
        else:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def line(self, done: int) -> str:
        """One line of text."""
        rate = self.rate(done)
        names = {
            "loss_ce": "L_CE",
            "loss_energy": "L_energy",
            "loss_raised": "L_raised",
            "loss_out": "L_out",
            "auroc": "AUROC",
            "r1": "R1",
        }
        parts = [f"{self.title} {done}/{self.total}", f"epoch {done / self.steps_per_epoch:.1f}"]
        if "T" in self.shown:
            parts.append(f"T {self.shown['T']:.0f}")
        parts += [f"{label} {self.shown[key]:.3f}" for key, label in names.items() if key in self.shown]
        left = duration((self.total - done) / rate) if rate > 0 else "?"
        parts += [f"{rate * self.batch_size:.0f} images/s", f"{left} left"]
        return "  ".join(parts)

    def note(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
