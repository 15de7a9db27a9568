"""Which class a text means: that of a folder, or of a command line."""

import difflib
from collections.abc import Sequence

_SHOWN = 20


def class_number(text: str, names: Sequence[str], owner: str) -> int:
    """The class that is called `text`, exactly; or the class of this number, counted from 0, where no name is a number.

    Args:
        names: one per class.
        owner: what a message calls what has the classes.

    Raises:
        ValueError: there is no such class, or more than one of this name.
    """
    if len(same := [str(k) for k, name in enumerate(names) if name == text]) > 1:
        raise ValueError(
            f"{text!r} is the name of the classes {', '.join(same)} of {owner}: give the number instead."
        )
    if same:
        return int(same[0])
    counted = not any(_is_number(name) for name in names)
    if counted and _is_number(text) and int(text) < len(names):
        return int(text)
    near = [] if _is_number(text) else difflib.get_close_matches(text, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    shown = ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
    numbers = f" (or numbers 0 to {len(names) - 1})" if counted else ""
    raise ValueError(f"{owner} has no class {text!r}{hint}: it has {shown}{numbers}.")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
