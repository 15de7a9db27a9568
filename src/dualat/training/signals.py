"""SIGTERM, SIGUSR1 (batch systems) and Ctrl-C ask a run to stop.

During training steps the step is ended and a checkpoint written first. Before and after them, while data is read or
the final figures are measured, there is nothing to save and the run leaves at once.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):
    """A signal asked the run to stop; nothing is lost."""


class StopRequest:
    """Context manager that handles the signals. A second Ctrl-C during steps stops at once.

    signal: name of the signal that asked, None while none did.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self) -> None:
        self.signal: str | None = None
        self.in_steps = False
        self.previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in self.SIGNALS:
            try:
                self.previous[number] = signal.signal(number, self.handle)
            except ValueError:  # not the main thread (a notebook's worker): signals stay as they are
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def steps(self) -> Iterator[None]:
        """Inside, a signal sets `self.signal`, and the loop is trusted to look at it after every step."""
        self.in_steps = True
        try:
            yield
        finally:
            self.in_steps = False
        if self.signal is not None:  # it came after the last look
            raise self.outside(self.signal)

    def handle(self, number: int, frame: FrameType | None) -> None:
        if not self.in_steps:
            raise self.outside(signal.Signals(number).name)
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    @staticmethod
    def outside(name: str) -> Stopped:
        return Stopped(
            f"stopped by {name} outside the training steps, with nothing to save: the same command with --resume "
            "goes on from the last checkpoint."
        )
