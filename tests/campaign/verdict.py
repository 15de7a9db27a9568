"""What passes: an input is taken, or refused with one short sentence that a person can act on."""

import re
from pathlib import Path

from dualat.cli.main import LONGEST, one_line

INTERNAL = (
    *(
        "pydantic",
        "http://",
        "https://",
        "<class",
        "<built-in",
        "object at 0x",
        "Traceback",
        "[type=",
        "torch.Size",
    ),
    *(
        "dtype(",
        "np.int64(",
        "np.float64(",
        "tensor(",
        "codec can't",
        "JSONDecodeError",
        "NoneType",
        "PosixPath",
    ),
    *(
        "[Errno",
        "errno=",
        "numpy.core",
        "invalid literal",
        "unhashable",
        "not subscriptable",
        "has no attribute",
    ),
    *(
        "unexpected keyword",
        "lambda",
        "positional argument",
        "std::",
        "ctypes",
        "__init__",
        "_rebuild",
        "aten::",
    ),
    *("RuntimeError", "KeyError", "TypeError", "AttributeError", "list index out of range", "object is not"),
    *("argument must be", "unsupported operand", "not supported between", "Error(s) in loading"),
)
"""Words of Python's and of libraries, which say nothing to a user."""


def wrong_sentence(text: str, place: Path) -> str | None:
    """What is wrong with a message; None where nothing is."""
    short = re.sub(re.escape(str(place)) + r"\S*", "PATH", text)
    if not text.strip():
        return "an empty message"
    if any(c in text for c in "\n\r"):
        return "a message of several lines"
    if not short.isprintable():
        return "a message with control characters"
    if len(short) > LONGEST:
        return f"a message of {len(short)} characters"
    if found := [word for word in INTERNAL if word in short]:
        return f"a message with {found[0]!r}"
    if re.search(r"(?<!\.)\.\.$|: *$|\( *\):", short):
        return "a message with an end or an inside that is missing"
    return None


def wrong_error(error: BaseException, place: Path) -> str | None:
    """What is wrong with an exception; None where it is a ValueError or a file's OSError with a sentence."""
    ours = type(error).__module__.partition(".")[0] == "dualat"
    if isinstance(error, OSError) and not ours and error.strerror and error.filename:
        return wrong_sentence(
            one_line(f"{error.filename}: {error.strerror}"), place
        )  # as the command line says it
    if not (ours or type(error) in (ValueError, FileNotFoundError, OSError)):
        return f"{type(error).__name__}, which no command takes for a user's mistake"
    return wrong_sentence(one_line(str(error)), place)  # a file's name may hold anything


def wrong_command(code: object, out: str, err: str, place: Path) -> str | None:
    """What is wrong with a command's exit code and error output; None where nothing is."""
    if code not in (0, 1, 2):
        return f"exit code {code!r}"
    if "Traceback" in out + err:
        return "a traceback"
    lines = err.split("\n")
    told = [
        line for line in lines if line.startswith("dualat: ") and not line.startswith("dualat: warning: ")
    ]
    others = [line for line in lines if line and not line.startswith(("dualat: ", "  ", "pictures: "))]
    if others:
        return f"a line that dualat does not begin: {others[0][:80]!r}"
    if code and len(told) != 1 and code == 2:
        return f"{len(told)} lines for one mistake"
    if code and not told:
        return "no sentence"
    return next(
        (wrong for line in told if (wrong := wrong_sentence(line.removeprefix("dualat: "), place))), None
    )
