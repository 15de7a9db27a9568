"""`dualat COMMAND ...`: finds the command, runs it, and turns errors into one sentence and an exit code."""

import difflib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module
from types import FrameType

from dualat import __version__
from dualat.cli.errors import UsageError
from dualat.system.plugins import load_installed, load_plugin, take_plugins

COMMANDS = {
    "train": "train by a recipe, in both stages, and evaluate the result",
    "plan": "say what training by a recipe would take, before anything is spent",
    "sample": "draw images of the classes asked for",
    "counterfactual": "show what would have to change in an image for another class",
    "evaluate": "measure a trained model on held-out images",
    "compare": "set runs, other systems and published figures side by side",
    "report": "write a run's figures, curves and samples as one HTML page",
    "import-weights": "turn published weights of another system into a model",
    "data": "make large data sets ready, and check them",
    "bench": "time the loops against a textbook's, on this machine",
    "recipes": "list the recipes, or print one",
}

HELP = """usage: dualat COMMAND ...

Classifiers that are also energy-based generative models, by dual adversarial training.

commands:
{commands}

`dualat COMMAND --help` shows every setting of a command. `dualat --version` prints the version.
`dualat COMMAND ... --plugin my_file.py` runs the code of that file first: metrics and more that it registers.
Exit codes: 0 done, 1 failed (one sentence says why; --debug shows the traceback), 2 the command line makes no sense."""


def main(argv: list[str] | None = None) -> None:
    """Entry point of the `dualat` command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, on_interrupt)
    if hasattr(
        sys.stdout, "reconfigure"
    ):  # a terminal that lacks a character gets ? for it, and not an error
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(args: list[str]) -> int:
    """Run one command line and return its exit code."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {name:<15} {text}" for name, text in COMMANDS.items())))
        return 0
    if args[0] == "--version":
        print(f"dualat {__version__}")
        return 0
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    name, rest = args[0], args[1:]
    warnings.showwarning = show_warning
    try:
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            raise UsageError(
                f"there is no command {name!r}."
                + (f" Did you mean {near[0]}?" if near else "")
                + f" There are {', '.join(COMMANDS)}."
            )
        rest = load_plugins(rest)
        command: Callable[[list[str]], int] = import_module(f"dualat.cli.{name.replace('-', '_')}").main
        return command(rest)
    except UsageError as error:
        return fail(error, 2, debug)
    except (ValueError, OSError, MemoryError) as error:
        return fail(error, 1, debug)
    except KeyboardInterrupt:
        print("dualat: interrupted.", file=sys.stderr)
        return 1
    except Exception as error:
        if isinstance(error, RuntimeError) and "home directory" in str(error):  # of Path.expanduser
            return fail(
                ValueError("a path begins with ~, but that user has no home here: write it out"), 1, debug
            )
        if not out_of_memory(error):
            raise
        less = MemoryError(
            f"there is not enough memory for this ({str(error).splitlines()[0]}): ask for less at a time"
        )
        less.__cause__ = error
        return fail(less, 1, debug)


def load_plugins(args: list[str]) -> list[str]:
    """Run the code of installed plugins and of each `--plugin FILE`; what is left of the command line."""
    try:
        rest, files = take_plugins(args)
    except ValueError as error:
        raise UsageError(str(error)) from error
    load_installed()
    for file in files:
        load_plugin(file)
    return rest


def on_interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C is a KeyboardInterrupt, but where something is being imported, this is the end: libraries that are interrupted
    there raise errors of their own, or abort the process. Nothing is begun yet that could be lost."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"dualat: interrupted.\n")
            os._exit(1)
        frame = frame.f_back
    raise KeyboardInterrupt


def out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch says that what was asked for does not fit."""
    signs = ("out of memory", "can't allocate memory", "not enough memory", "calculation overflowed")
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in signs)


def fail(error: BaseException, code: int, debug: bool) -> int:
    """Print what is wrong in one sentence; with --debug, the traceback too. Nothing where the reader of a pipe, such as
    `head`, has had enough."""
    if debug:
        traceback.print_exception(error)
    if code == 2 and os.environ.get("RANK", "0") != "0":
        return code  # all processes of torchrun read one command line: the first says what is wrong with it
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes there
        return code
    if isinstance(error, OSError) and error.strerror and not isinstance(error, FileNotFoundError):
        text = str(error) if error.filename is None and error.errno is None else error.strerror
        if error.filename and str(error.filename) not in text:
            text = f"{error.filename}: {text}"
    else:
        text = str(error) or type(error).__name__
    print(f"dualat: {one_line(text if text.endswith('?') else text.rstrip('.') + '.')}", file=sys.stderr)
    return code


LONGEST = 600
"""Characters of a message. The end is kept: it says what to do."""


def one_line(text: str) -> str:
    """A message in one line that a terminal shows as it is: names of files and values may hold anything. What does not print
    is written as in Python's strings, and of a very long one the middle is left out."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 205]} ... {shown[-200:]}"


def show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Warnings as plain lines; deprecations of libraries are not the user's business."""
    if issubclass(category, (UserWarning, RuntimeWarning)):
        print(f"dualat: warning: {one_line(str(message))}", file=sys.stderr)
