"""Command lines parsed by tyro, with mistakes as one sentence and exit code 2."""

import contextlib
import io
import re
from collections.abc import Collection, Iterable
from dataclasses import field, fields, make_dataclass
from typing import Annotated, Any, TypeVar, overload

from dualat.cli.errors import UsageError
from dualat.strict import in_group, last_mistake

__all__ = ["UsageError", "field_names", "parse"]
A = TypeVar("A")
B = TypeVar("B")


@overload
def parse(args: list[str], prog: str, part: type[A] | A, /) -> tuple[A]: ...
@overload
def parse(args: list[str], prog: str, part: type[A] | A, other: type[B] | B, /) -> tuple[A, B]: ...
@overload
def parse(args: list[str], prog: str, /, *parts: Any) -> tuple[Any, ...]: ...
def parse(args: list[str], prog: str, /, *parts: Any) -> tuple[Any, ...]:
    """Arguments as instances of settings classes, whose options stand beside each other.

    parts: classes, or instances whose values `--help` shows; the last one's docstring is the command's.

    Raises UsageError with one sentence for whatever tyro or the settings refuse.
    """
    import tyro  # the help without a recipe does without

    kinds, entries = [part if isinstance(part, type) else type(part) for part in parts], []
    for place, (part, kind) in enumerate(zip(parts, kinds, strict=True)):
        default = field() if kind is part else field(default_factory=lambda given=part: given)
        entries.append((f"part{place}", Annotated[kind, tyro.conf.arg(name="")], default))
    made = make_dataclass("Arguments", entries, kw_only=True)
    made.__doc__ = kinds[-1].__doc__
    config, errors = (tyro.conf.FlagCreatePairsOff,) if kinds == list(parts) else (), io.StringIO()
    last_mistake()  # of an earlier call
    try:
        with contextlib.redirect_stderr(errors):
            parsed = vars(tyro.cli(made, args=args, prog=prog, config=config)).values()
    except ValueError as error:
        text = str(error)
    except SystemExit as stop:
        if not stop.code:
            raise
        if (text := last_mistake()) is None:
            names = {name for kind in kinds for name in field_names(kind)}
            raise UsageError(sentence(errors.getvalue(), prog, names)) from None
        # as it was before tyro put it into a box of 80 columns
        group = re.search(r"Error parsing (?:part\d+\.)?([a-z_][\w.]*):", errors.getvalue())
        text = in_group(group[1], text) if group else text
    else:
        refuse_empty(parsed, args)
        return tuple(parsed)
    raise UsageError(f"{text.rstrip('.')}. `{prog} --help` lists all options.")


def refuse_empty(parts: Iterable[Any], args: list[str]) -> None:
    """UsageError for an option that takes several values and is given none."""
    for part in parts:
        for name in field_names(type(part)):
            option = f"--{name.replace('_', '-')}"
            if option in args and getattr(part, name) == ():
                raise UsageError(f"{option} is given without a value: give one or more, or leave it out.")


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
