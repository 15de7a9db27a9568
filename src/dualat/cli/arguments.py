"""Command lines parsed by tyro, with mistakes as one sentence and exit code 2."""

import contextlib
import io
import re
from collections.abc import Collection
from dataclasses import fields
from typing import TypeVar

from dualat.cli.errors import UsageError
from dualat.settings import in_group, last_mistake

__all__ = ["UsageError", "field_names", "parse"]
T = TypeVar("T")


def parse(kind: type[T], args: list[str], prog: str, default: T | None = None) -> T:
    """Arguments as an instance of the settings class `kind`; `--help` shows `default`'s values.

    Raises UsageError with one sentence for whatever tyro or the settings refuse.
    """
    import tyro  # the help without a recipe or a target does without

    errors = io.StringIO()
    last_mistake()  # of an earlier call
    try:
        with contextlib.redirect_stderr(errors):
            if default is None:
                parsed = tyro.cli(kind, args=args, prog=prog, config=(tyro.conf.FlagCreatePairsOff,))
            else:
                parsed = tyro.cli(kind, args=args, prog=prog, default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        if (text := last_mistake()) is not None:  # as it was before tyro put it into a box of 80 columns
            group = re.search(r"Error parsing ([a-z_][\w.]*):", errors.getvalue())
            text = in_group(group[1], text) if group else text
            raise UsageError(f"{text.rstrip('.')}. `{prog} --help` lists all options.") from None
        raise UsageError(sentence(errors.getvalue(), prog, field_names(kind))) from None
    for name in field_names(kind):
        option = f"--{name.replace('_', '-')}"
        if option in args and getattr(parsed, name) == ():
            raise UsageError(f"{option} is given without a value: give one or more, or leave it out.")
    return parsed


def sentence(box: str, prog: str, known: Collection[str] = ()) -> str:
    """tyro's framed message as one sentence: frame, addresses, help texts and validation internals taken out. known: names
    of settings, of which one is offered to whoever wrote a group of a recipe before it."""
    lines = [line.strip().strip("╭╮╰╯│─ ") for line in box.splitlines()]
    text = " ".join(line for line in lines if line)
    if unknown := re.search(r"Unrecognized options: ([^\s,]+)", text):
        similar = rf"(?:Perhaps you meant:|similar to {re.escape(unknown[1])}:).*?(--[\w.\-]+)"
        near, tail = re.search(similar, text), unknown[1].rpartition(".")[2]
        hint = f" Did you mean {near[1]}?" if near else ""
        if tail.replace("-", "_") in known:
            hint = f" Did you mean --{tail}?"
        if unknown[1].lower() in ("true", "false"):
            hint = " A switch has no value: --NAME turns it on, --no-NAME (as in --stage1.no-freeze-batchnorm) off."
        kind = "option" if unknown[1].startswith("-") else "argument"
        return f"unknown {kind} {unknown[1]}.{hint} `{prog} --help` lists all."
    text = re.sub(r"For full helptext.*$", "", text)
    if wrong := re.search(r"Error parsing (--[\w.\-]+): (.*)", text):
        return f"{value_sentence(wrong[1], wrong[2])} `{prog} --help` lists all options."
    if missing := re.search(r"Missing from [^:]*: (\S+)", text):
        return f"{missing[1]} is missing. `{prog} --help` lists all options."
    text = re.sub(
        r"^(Value error|Invalid choice|Missing argument|Parsing error|Required options|Required \w+) ",
        "",
        text,
    )
    text = re.sub(r"Argument helptext:.*$", "", text)
    text = re.sub(r"─+", " ", text)
    text = " ".join(text.split()).rstrip(" .")
    return (
        f"{text}. `{prog} --help` lists all options."
        if text
        else f"the arguments are not understood: `{prog} --help`."
    )


def value_sentence(option: str, text: str) -> str:
    """What tyro says of a value that it cannot read, as a sentence with the kind of value that is wanted."""
    kinds = {"int": "a whole number", "float": "a number"}
    wanted = [words for kind, words in kinds.items() if f"{kind}(" in text or f"to {kind}:" in text]
    given = re.search(r"\[(.*?)\]", text) or re.search(r": ('.*?')", text)
    value = given[1].replace("', '", " ") if given else "what was given"
    if "NoneType" in text:
        wanted.append("None")
    return f"{option} cannot be {value}" + (f": give {' or '.join(wanted)}." if wanted else ".")


def field_names(kind: type) -> set[str]:
    """Names of a settings class's fields."""
    return {entry.name for entry in fields(kind)}  # type: ignore[arg-type]
