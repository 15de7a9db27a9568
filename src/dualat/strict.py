"""What every settings class of the library shares: unknown keys are refused, values are checked, on assignment too, nested
settings are its own, and a mistake is a ValueError with one sentence for each. Does not import PyTorch."""

import difflib
import functools
import reprlib
from collections.abc import Callable, Iterator
from dataclasses import field, fields, is_dataclass
from typing import Any, TypeVar, dataclass_transform, get_type_hints

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from dualat.system.seeds import check_seed

_STRICT = ConfigDict(extra="forbid", validate_assignment=True, revalidate_instances="always")
LARGEST_COUNT = 2**31 - 1
FLOAT32 = (2.0**-126, (2 - 2.0**-23) * 2.0**127)
"""Least and largest number above 0 that float32 holds with all its digits."""
T = TypeVar("T")


@dataclass_transform(field_specifiers=(field,))
def strict(kind: type[T]) -> type[T]:
    """Make a settings class: a pydantic dataclass that ignores nothing, whose mistakes are a ValueError in sentences.

    Numbers that nothing later could take are refused in all of them, then by the class's own `__post_init__`. Settings
    within settings are copied, so that a change of one group never changes another.
    """
    own = getattr(kind, "__post_init__", None)

    def check(self: Any) -> None:
        check_numbers(self)
        if own is not None:
            own(self)

    kind.__post_init__ = check  # type: ignore[attr-defined]
    made = dataclass(config=_STRICT)(kind)
    for name in ("__init__", "__setattr__"):
        setattr(made, name, _in_sentences(getattr(made, name)))
    return made  # type: ignore[return-value]


def _in_sentences(method: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(method)
    def told(self: Any, *args: Any, **given: Any) -> None:
        try:
            method(self, *args, **given)
        except ValidationError as error:
            text = explain(error, type(self))
            _MISTAKES.append(text)
            del _MISTAKES[:-1]
            raise ValueError(text) from None

    return told


_MISTAKES: list[str] = []


def last_mistake() -> str | None:
    """The newest sentence about wrong settings, once: for who finds it broken into lines by a library between."""
    return _MISTAKES.pop() if _MISTAKES else None


def check_numbers(settings: Any) -> None:
    """ValueError that names the first number among the fields which is no seed, count or float32 as its field wants it."""
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        for number in value if isinstance(value, (tuple, list)) else (value,):
            if entry.name in ("seed", "seeds", "split_seed") and isinstance(number, int):
                check_seed(number, entry.name)
            elif isinstance(number, int) and abs(number) > LARGEST_COUNT:
                raise ValueError(f"{entry.name} is {shown(number)}, but must be {LARGEST_COUNT:,} at most.")
            elif isinstance(number, float):
                _check_float(entry.name, number)


def _check_float(name: str, number: float) -> None:
    """inf is left to the class: some settings take it for no limit."""
    least, most = FLOAT32
    if number != number:
        raise ValueError(f"{name} is nan: give a number.")
    if abs(number) != float("inf") and number and not least <= abs(number) <= most:
        raise ValueError(
            f"{name} is {number:g}, but must be a number that float32 holds: 0, or {least:.1e} to {most:.1e}."
        )


def shown(value: Any) -> str:
    """The value for a message, cut where it is long."""
    teller = reprlib.Repr()
    teller.maxstring = teller.maxother = 80
    teller.maxlevel = 2
    try:
        return teller.repr(value)
    except ValueError:  # Python writes no integers of more than 4,300 digits
        return "a number of thousands of digits"


def explain(error: ValidationError, kind: type) -> str:
    """Pydantic's errors about settings of this kind as sentences, without addresses and types."""
    sentences = []
    named = getattr(kind, "setting_name", _dotted)
    for problem in error.errors(include_url=False):
        name = named(problem["loc"])
        value = shown(problem["input"])
        if problem["type"] == "unexpected_keyword_argument":
            sentences.append(f"{name} is no setting.{did_you_mean(kind, name)}")
        elif problem["type"] == "value_error":
            sentences.append(in_group(name, str(problem.get("ctx", {}).get("error", problem["msg"]))))
        elif problem["type"] in ("dataclass_type", "dataclass_exact_type"):
            sentences.append(f"{name} is {value}, but is a group of settings.")
        elif problem["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            sentences.append(f"{name} is missing.")
        elif problem["type"] == "string_type":
            sentences.append(f"{name} is {value}, but is a word: write it in quotes if it is meant so.")
        else:
            message = problem["msg"][0].lower() + problem["msg"][1:]
            sentences.append(f"{name or 'a value'} is {value}: {message}.")
    return " ".join(sentences)


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in path if not isinstance(part, int))


def in_group(group: str, text: str) -> str:
    """A sentence about a group of settings with its name in front, where it does not name it itself."""
    return f"{group}: {text}" if group and group.split(".")[0] not in text else text


def names_of(kind: type, prefix: str = "", groups: bool = True) -> Iterator[str]:
    """Every setting's dotted name; with `groups`, those of groups of settings too."""
    hints = get_type_hints(kind)
    for entry in fields(kind):  # type: ignore[arg-type]
        name, inner = f"{prefix}{entry.name}", is_dataclass(hints[entry.name])
        if groups or not inner:
            yield name
        if inner:
            yield from names_of(hints[entry.name], f"{name}.", groups)  # type: ignore[arg-type]


def nearest_names(kind: type, name: str) -> list[str]:
    """Dotted names of settings of this kind that were probably meant."""
    return nearest_among(list(names_of(kind, groups=False)), list(names_of(kind)), name)


def nearest_among(names: list[str], with_groups: list[str], name: str) -> list[str]:
    """Of dotted names, those that were probably meant: all whose last part is the same, in the same group if there are any;
    else the nearest name, groups of settings among them; else that with the nearest last part; else none."""
    group, _, tail = name.rpartition(".")
    same = [n for n in names if n.rpartition(".")[2] == tail]
    near = [n for n in same if n.startswith(f"{group.split('.')[0]}.")] or same
    near = near or difflib.get_close_matches(name, with_groups, n=1, cutoff=0.75)
    if not near:
        tails = {n.rpartition(".")[2]: n for n in names}
        near = [tails[t] for t in difflib.get_close_matches(tail, list(tails), n=1, cutoff=0.7)]
    return near


def did_you_mean(kind: type, name: str) -> str:
    """' Did you mean X?' of a setting's name, or nothing."""
    near = nearest_names(kind, name)
    return f" Did you mean {either(near)}?" if near else ""


def either(names: list[str]) -> str:
    """'a', 'a or b', 'a, b or c'."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
