"""SIGTERM, SIGUSR1 (batch systems) and Ctrl-C ask a run to stop: it ends its step, writes a checkpoint and leaves."""

import signal
from types import FrameType


class StopRequest:
    """Context manager that turns the signals into a flag. A second Ctrl-C stops at once."""

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self) -> None:
        self.signal: str | None = None
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

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
