"""Which pictures of Open Images show no class of ImageNet, by the names of their labels.

Rule: names are compared word by word, in lower case, without punctuation, in the singular, with "A of B" read as "B A". A
label overlaps a class where one of the class's names ends in the label's words, or the label ends in one of the class's names,
or both are the same when written as one word: "Dog" and "Eskimo dog", "Tower crane" and "crane", "Hot dog" and "hotdog", but
not "Tree" and "tree frog", because the last word says what a thing is. Labels that only a person knows to be more general
("Animal", "Flower") do not overlap by this rule; such pictures carry the special label as a rule.
A picture is taken where it has labels and none overlaps; labels that people have verified to be absent (confidence 0) do not
count, and labels without a name count as overlapping.
"""

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from dualat.data.names import read_lines

Words = tuple[str, ...]
_ROWS_AT_A_TIME = 200_000


def words(name: str) -> Words:
    """The words of a name as they are compared; what is in parentheses is left out."""
    plain = re.sub(r"\(.*?\)", " ", name.lower()).replace("'", "")
    found = [_singular(word) for word in re.findall(r"[^\W_]+", plain)]
    if "of" in found[1:-1]:
        place = found.index("of", 1)
        found = found[place + 1 :] + found[:place]
    return tuple(found)


def _singular(word: str) -> str:
    """The word without its plural ending, by rule: what is made of an irregular word is the same in both names."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if re.search(r"(s|x|z|ch|sh)es$", word):
        return word[:-2]
    return word[:-1] if len(word) > 3 and re.search(r"[^sui]s$", word) else word


def _endings(phrase: Words) -> Iterator[Words]:
    return (phrase[start:] for start in range(len(phrase)))


class Overlap:
    """Whether a label overlaps any class; `classes` are names of classes, with synonyms after commas."""

    def __init__(self, classes: Iterable[str]):
        self._names: dict[Words, str] = {}
        self._ends: dict[Words, str] = {}
        self._joined: dict[str, str] = {}
        for line in classes:
            for synonym in line.split(","):
                if phrase := words(synonym):
                    self._names.setdefault(phrase, line)
                    self._joined.setdefault("".join(phrase), line)
                    for ending in _endings(phrase):
                        self._ends.setdefault(ending, line)

    def __call__(self, label: str) -> str | None:
        """The first class that the label overlaps; None where it overlaps none."""
        phrase = words(label)
        ends = (self._names[ending] for ending in _endings(phrase) if ending in self._names)
        return self._ends.get(phrase) or next(ends, None) or self._joined.get("".join(phrase))


def imagenet_classes() -> list[str]:
    """The 1,000 classes of ImageNet-1k with their synonyms, as timm has them."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(k, detailed=False) for k in range(info.num_classes())]


def read_classes(path: Path) -> list[str]:
    """Names of classes from a text file: one class per line, synonyms after commas, WordNet's number before them or not."""
    return [re.sub(r"^n\d{8}[\s,:]*", "", line) for line in read_lines(path)]


def read_descriptions(path: Path) -> dict[str, str]:
    """Names of Open Images' labels: rows of LabelName, DisplayName, with or without a header.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another layout.
    """
    with _opened(path) as handle:
        rows = [row for row in csv.reader(handle) if row]
    if rows and rows[0][0] == "LabelName":
        rows = rows[1:]
    if not rows or any(len(row) < 2 or not row[0].startswith("/") for row in rows):
        raise ValueError(
            f"{path} is no list of Open Images' labels: it must have rows such as /m/0bt9lr,Dog (class-descriptions.csv)."
        )
    return {row[0]: row[1] for row in rows}


def _opened(path: Path) -> TextIO:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: docs/data.md says where Open Images' files are to be had."
        )
    return open(path, newline="", encoding="utf-8", errors="replace")


@dataclass
class Found:
    """Outcome of the filter: names of pictures in ascending order, and what was counted."""

    pictures: list[str]
    overlapping: int
    """pictures with a label that overlaps, or has no name"""
    labels: dict[str, str]
    """label, by its name, to the class that it overlaps"""


def filter_pictures(
    annotations: Iterable[Path],
    descriptions: dict[str, str],
    overlap: Overlap,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Found:
    """Read annotations (columns ImageID, LabelName, Confidence, and others) and keep the pictures without overlap.

    Args:
        annotations: image-level labels or boxes, several files or one; a picture may be in any of them.
        progress: called as progress(file, bytes read, bytes in all).

    Raises:
        FileNotFoundError: no such file.
        ValueError: another layout, or no picture left.
    """
    classes = {mid: overlap(name) for mid, name in descriptions.items()}
    clean = {mid: found is None for mid, found in classes.items()}
    pictures: dict[str, bool] = {}
    for path in annotations:
        for picture, label, confidence in _annotations(path, progress):
            if confidence > 0:
                pictures[picture] = pictures.get(picture, True) and clean.get(label, False)
    kept = sorted(name for name, good in pictures.items() if good)
    if not kept:
        raise ValueError("no picture is without overlap: give annotations of more pictures.")
    labels = {descriptions[mid]: found for mid, found in classes.items() if found is not None}
    return Found(kept, len(pictures) - len(kept), labels)


def _annotations(path: Path, progress: Callable[[str, int, int], None]) -> Iterator[tuple[str, str, float]]:
    """Picture, label and confidence of each row; 1 where there is no such column."""
    total = path.stat().st_size if path.is_file() else 0
    with _opened(path) as handle:
        reader = csv.reader(handle)
        try:
            header = next(reader, [])
            if "ImageID" not in header or "LabelName" not in header:
                raise ValueError(
                    f"{path} has no columns ImageID and LabelName: give Open Images' annotations of image labels or "
                    "boxes (CSV)."
                )
            picture, label = header.index("ImageID"), header.index("LabelName")
            confidence = header.index("Confidence") if "Confidence" in header else None
            for count, row in enumerate(reader):
                if count % _ROWS_AT_A_TIME == 0:
                    progress(path.name, handle.buffer.tell(), total)
                try:
                    sure = 1.0 if confidence is None else float(row[confidence])
                    yield row[picture], row[label], sure
                except (IndexError, ValueError) as error:
                    raise ValueError(
                        f"{path} is damaged in row {count + 2} ({','.join(row)[:60]!r}): fetch it again."
                    ) from error
        except csv.Error as error:
            raise ValueError(f"{path} is damaged ({error}): fetch it again.") from error
    progress(path.name, total, total)


def pick(names: list[str], count: int | None, skip: int, seed: int) -> list[str]:
    """`count` of the names in an order that depends on `seed` and on the names alone, after the first `skip` of it; all
    after those without a count. Lists with skips of 0 and of a first list's length have no name in common.

    Raises:
        ValueError: there are not so many.
    """
    count = len(names) - skip if count is None else count
    if count < 1 or skip + count > len(names):
        raise ValueError(
            f"{count} pictures after the first {skip} are wanted, but there are {len(names)} in all: ask for fewer, or "
            "give annotations of more pictures."
        )

    def place(name: str) -> bytes:
        return hashlib.blake2b(f"{seed} {name}".encode(), digest_size=16).digest()

    return sorted(sorted(names, key=place)[skip : skip + count])
