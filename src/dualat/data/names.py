"""Lists in text files: names of images, and positions in a file of images; one per line, and lines that begin with # are
comments.

The public lists of CIFAR's pictures among the 80 Million Tiny Images differ in where they begin to count:
80mn_cifar_idxs.txt (Hendrycks' Outlier Exposure) counts from 1, the four 80mn_cifar*_{train,test}_idxs.txt and
80mn_cifar101_idxs.txt (CIFAR-10.1) of RATIO's authors from 0. Counting wrongly leaves every one of CIFAR's pictures in, so
that a list must say which it is.
Source: the readers in the public code of both (hendrycks/outlier-exposure, utils/tinyimages_80mn_loader.py;
M4xim4l/InNOutRobustness and xuwangyin/DAT, utils/datasets/tinyImages.py).
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from dualat.system.files import write_text

BASES = {"zero-based": 0, "one-based": 1}
POSITIONS = "# zero-based positions of images"
"""First line of a list that `write_positions` writes."""


def read_lines(path: Path, what: str = "one entry per line") -> list[str]:
    """The lines of a list without comments, empty lines, and blanks around them.

    what: what the list should have, for people.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no text.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the list {path} does not exist: name a text file with {what}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the list {path} is no text (UTF-8): name a file with {what}.") from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def select(names: Sequence[str], include: Iterable[str], exclude: Iterable[str], where: str) -> np.ndarray:
    """Positions, ascending, of the names that are on a list of `include` (where there is one) and on none of `exclude`.

    A line means the files whose path ends in it (whole folder names), or whose file name without its suffix it is.

    Args:
        names: paths of files, with /.
        include, exclude: paths of text files.
        where: what a message calls the source.

    Raises:
        FileNotFoundError: a list is not there.
        ValueError: nothing is left; a line of `include` that means no file is a warning.
    """
    keep = np.ones(len(names), dtype=bool)
    for paths, wanted in ((tuple(include), True), (tuple(exclude), False)):
        if not paths:
            continue
        lines = {line for path in paths for line in read_lines(Path(path).expanduser())}
        depths, found = {line.count("/") for line in lines}, set()
        for i, name in enumerate(names):
            meant = lines.intersection(_meanings(name, depths))
            found |= meant
            keep[i] &= bool(meant) == wanted
        if wanted and (missing := len(lines) - len(found)):
            warnings.warn(
                f"{missing} of {len(lines)} names in {', '.join(paths)} are not in {where}.", stacklevel=3
            )
    if not keep.any():
        raise ValueError(f"the lists leave no image of {where}: give others.")
    return keep.nonzero()[0]


def _meanings(name: str, depths: Iterable[int]) -> list[str]:
    """All lines that mean this file, of those with so many slashes."""
    parts = name.split("/")
    tails = ["/".join(parts[-depth - 1 :]) for depth in depths if depth < len(parts)]
    return [*tails, parts[-1].rpartition(".")[0]]


def read_positions(entries: Iterable[str], count: int, where: str) -> np.ndarray:
    """Positions from 0, ascending, each once, that are on any of these lists of whole numbers.

    Args:
        entries: paths of text files; one without the line that `write_positions` begins with has zero-based: or
            one-based: before it.
        count: how many images there are.
        where: what a message calls the file of images.

    Raises:
        FileNotFoundError: a list is not there.
        ValueError: it does not say where it begins to count, has something else than numbers, or names an image that is
            not there.
    """
    parts = [np.empty(0, dtype=np.int64)]
    for entry in entries:
        prefix, _, rest = entry.partition(":")
        path = Path(rest if prefix in BASES else entry).expanduser()
        lines = read_lines(path)
        base = BASES.get(prefix, _stated_base(path))
        if base is None:
            raise ValueError(
                f"the list {path} does not say whether it counts from 0 or 1: give it as zero-based:{path} or "
                f"one-based:{path} (80mn_cifar_idxs.txt is one-based, RATIO's lists are zero-based)."
            )
        try:
            numbers = np.array(lines, dtype=np.int64) - base
        except (ValueError, OverflowError) as error:
            bad = next((line for line in lines if not line.lstrip("-").isdecimal()), "a number too large")
            raise ValueError(
                f"the list {path} holds {bad[:60]!r}, but must hold one whole number per line."
            ) from error
        outside = numbers[(numbers < 0) | (numbers >= count)]
        if len(outside):
            raise ValueError(
                f"the list {path} names image {int(outside[0]) + base}, but {where} has {count} images, counted from "
                f"{base}: give the list of this file, or the whole file."
            )
        parts.append(numbers)
    return np.unique(np.concatenate(parts))


def _stated_base(path: Path) -> int | None:
    """What the first line of a list that `write_positions` wrote says; None for other lists."""
    with open(path, encoding="utf-8-sig") as handle:
        first = handle.readline()
    return BASES.get(first.removeprefix("#").strip().partition(" ")[0]) if first.startswith("#") else None


def write_positions(path: Path, positions: np.ndarray) -> None:
    """A list of positions that says itself that it counts from 0."""
    text = "\n".join(map(str, positions.tolist()))
    write_text(path, f"{POSITIONS}\n{text}\n")
