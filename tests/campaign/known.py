"""Cases whose outcome is known: what the campaign must see, and what it must let pass."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

Call = Callable[[Path], object]


def refuse(text: str, kind: type[Exception] = ValueError) -> Call:
    def call(_: Path) -> object:
        raise kind(text)

    return call


def half(place: Path) -> object:
    return (place.parent / "out" / ".x.png.1.partial").write_text("half of it")


def busy(_: Path) -> object:
    while True:
        pass


CASES: dict[str, Call] = {
    "good": lambda place: (place.parent / "out" / "x.txt").write_text("x"),
    "sentence": refuse("the file holds no images: give another."),
    "lines": refuse("no file of\nthis name: give another."),
    "traceback": refuse("unhashable", TypeError),
    "internal": refuse("1 validation error: see the documents of pydantic."),
    "memory": lambda _: bytes(os.urandom(1)) * (3 * 2**26),
    "write": lambda place: (place.parents[1] / "home" / "x").write_text("x"),
    "input": lambda place: os.utime(place / "whole", (0, 0)),
    "half": half,
    "program": lambda _: os.system("true"),
    "busy": busy,
    "waiting": lambda _: time.sleep(1000),
}


def maker(name: str) -> Callable[[random.Random, Path], tuple[str, Callable[[], object]]]:
    def make(_: random.Random, place: Path) -> tuple[str, Callable[[], object]]:
        (place / "whole").write_text("x")
        return name, lambda: CASES[name](place)

    return make
