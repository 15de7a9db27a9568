"""The command line in a process that starts at once: forked from one that has imported everything, which takes others seconds.

Signals, exit codes and what is written are those of `python -m dualat`; so is a kill, which no code of the process sees.
"""

import multiprocessing
import os
import signal
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

IMPORTED = [
    "dualat.cli.main",
    "dualat.cli.train",
    "dualat.run.train",
    "dualat.run.evaluation",
    "sklearn.datasets",
]
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(IMPORTED)


class Command:
    """`dualat ARGS`, running. What it says on stderr is in `errors` once it has ended."""

    def __init__(self, args: list[str], errors: Path, environment: dict[str, str] | None = None):
        self._errors = errors
        self._process: ForkServerProcess = _server.Process(
            target=_run, args=(args, errors, environment or {})
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """As of subprocess.Popen: None while it runs, -9 where it was killed."""
        return self._process.exitcode

    @property
    def errors(self) -> str:
        return self._errors.read_text() if self._errors.exists() else ""

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self._process.pid or 0, number)

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code; None where it still runs after so many seconds."""
        self._process.join(seconds)
        return self.returncode


def run(args: list[str], errors: Path, environment: dict[str, str] | None = None) -> None:
    """`dualat ARGS`, which must end well."""
    command = Command(args, errors, environment)
    assert command.wait() == 0, command.errors


def _run(args: list[str], errors: Path, environment: dict[str, str]) -> None:
    from dualat.cli.main import main

    os.environ.update(environment)
    for name in (os.devnull, errors):
        opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, sys.stdout.fileno() if name == os.devnull else sys.stderr.fileno())
    sys.argv = ["dualat", *args]
    main()
