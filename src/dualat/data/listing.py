"""What lies in a folder: its pictures, its class folders, and what of it is left out.

Names that begin with a dot are skipped: thumbnails, checkpoints of notebooks, and what macOS keeps beside each file. Links
are followed, to files and to folders alike.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dualat.data.formats import ending, suffixes


def walk(folder: Path | str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All files below a folder, each as its path with / and what the system says of it.

    A folder that several links lead to is read once in each subfolder of `folder`, by its own name if it lies there, so
    that links in a circle end. Links to nothing count as files.
    """
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _below(entry.path, f"{entry.name}/", {_identity(folder)})
        else:
            yield entry.name, entry


def _below(folder: str, prefix: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    folders, links = [(folder, prefix)], []
    while folders or links:  # links last: a folder is found by its own name first
        folder, prefix = folders.pop() if folders else links.pop(0)
        if (identity := _identity(folder)) in seen:
            continue
        seen.add(identity)
        for entry in _visible(folder):
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append((entry.path, f"{prefix}{entry.name}/"))
            else:
                yield f"{prefix}{entry.name}", entry


def _visible(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)


def _identity(folder: Path | str) -> tuple[int, int]:
    state = os.stat(folder)
    return state.st_dev, state.st_ino


def pictures(folder: Path | str) -> Iterator[tuple[str, int]]:
    """Paths below a folder, with /, and sizes in bytes of all pictures, by the endings of their names, in no order."""
    return ((name, entry.stat().st_size) for name, entry in walk(folder) if _problem(entry) is None)


def _problem(entry: os.DirEntry[str]) -> str | None:
    """Why a file is left out, in a word or two; None for a picture."""
    if not entry.is_file():
        return "link to nothing" if entry.is_symlink() else "that is no file"
    suffix = ending(entry.name)
    return None if suffix in suffixes() else suffix or "without an ending"


def list_images(folder: Path) -> list[tuple[str, int]]:
    """The same, sorted by path; a warning counts and names what is left out."""
    found, left_out = [], []
    for name, entry in walk(folder):
        if (problem := _problem(entry)) is None:
            found.append((name, entry.stat().st_size))
        else:
            left_out.append((name, problem))
    tell_left_out(folder, left_out, "file")
    return sorted(found, key=lambda entry: entry[0].split("/"))


def tell_left_out(folder: Path, left_out: list[tuple[str, str]], what: str) -> None:
    """A warning that counts and names what is left out of a folder, where there is any.

    Args:
        left_out: name and kind of each, as a/b.heic and .heic.
        what: one of them, for people.
    """
    if left_out:
        kinds = Counter(kind for _, kind in sorted(left_out)).most_common()
        counted = ", ".join(f"{n} {kind}" for kind, n in kinds[:8]) + ", and others" * (len(kinds) > 8)
        many = f"1 {what} is" if len(left_out) == 1 else f"{len(left_out)} {what}s are"
        warnings.warn(
            f"{folder}: {many} left out, as Pillow reads no such pictures ({counted}), the first is "
            f"{min(name for name, _ in left_out)}.",
            stacklevel=4,
        )


def has_images(folder: Path) -> bool:
    """Whether there is any picture below a folder."""
    return next(pictures(folder), None) is not None


def class_folders(folder: Path) -> list[str]:
    """Names of the subfolders, sorted."""
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
