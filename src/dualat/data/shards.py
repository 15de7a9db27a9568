"""webdataset shards: tar files in which NAME.jpg is an image and NAME.cls its class as a number.

A tar file has no table of contents, so one is made once: for each image its name, offset, size and class, in a file of its
own beside the shard (.dualat-index/), or in the cache folder where the shard's folder cannot be written. It is made anew when
the shard's size or time of change is another. With it any image is read in any order, as an exact resume needs, without the
webdataset package.
Source of the layout: the format's own description (github.com/webdataset/webdataset): files of one sample follow each other
and have the same name up to the first full stop of the last part of the path.
"""

import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dualat.data.decode import BadImage, View, decode_image
from dualat.data.folder import SUFFIXES, listed
from dualat.data.lazy import Files, LazyImages
from dualat.data.names import read_lines
from dualat.files import atomic_path, cache_folder, keep

NO_CLASS = -1
_VERSION = 1
_LONGEST_CLASS = 32  # bytes of a .cls file


@dataclass(eq=False)
class ShardIndex:
    """What is in a shard, one row per image in the order of the file.

    Attributes:
        names: of the image files.
        offsets, sizes: (n,), int64, in bytes.
        labels: (n,), int64; NO_CLASS where there is no .cls file.
    """

    names: list[str]
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


def read_index(shard: Path) -> tuple[ShardIndex, bool]:
    """The index of a shard, and whether it had to be made.

    Raises:
        ValueError: the shard is damaged, compressed, or not of this layout.
        OSError: it cannot be read.
    """
    state = _state(shard)
    for place in _places(shard):
        if (index := _kept(place, state)) is not None:
            return index, False
    index = make_index(shard)
    beside, elsewhere = _places(shard)
    try:
        with atomic_path(beside) as temporary:
            _write(temporary, index, state)
    except OSError:  # not ours to write
        keep(elsewhere, lambda temporary: _write(temporary, index, state))
    return index, True


def make_index(shard: Path) -> ShardIndex:
    """Read the headers of a shard, and its .cls files."""
    names: list[str] = []
    rows: list[tuple[int, int]] = []
    keys: list[str] = []
    classes: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                folder, _, last = member.name.rpartition("/")
                stem, _, ending = last.partition(".")
                if not member.isreg() or not stem:
                    continue
                key = f"{folder}/{stem}"
                if ending.lower() == "cls":
                    classes[key] = _read_class(tar, member, shard)
                elif f".{ending.rpartition('.')[2].lower()}" in SUFFIXES:
                    names.append(member.name)
                    rows.append((member.offset_data, member.size))
                    keys.append(key)
            with open(shard, "rb") as handle:  # tarfile takes a damaged header for the end, which is zeros
                handle.seek(tar.offset)
                if any(handle.read(tarfile.BLOCKSIZE)):
                    raise tarfile.ReadError(f"no header at byte {tar.offset}")
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(
            f"{shard} is damaged, truncated, or no plain tar file ({error}): fetch it again, or unpack it if it is "
            "compressed."
        ) from error
    _check(shard, names, rows, keys, classes)
    table = np.array(rows, dtype=np.int64).reshape(-1, 2)
    labels = np.array([classes.get(key, NO_CLASS) for key in keys], dtype=np.int64)
    return ShardIndex(names, table[:, 0].copy(), table[:, 1].copy(), labels)


def _read_class(tar: tarfile.TarFile, member: tarfile.TarInfo, shard: Path) -> int:
    handle = tar.extractfile(member)
    content = b"" if handle is None else handle.read(_LONGEST_CLASS)
    text = content.decode("utf-8", "replace").strip()
    if not text.isdecimal() or member.size > _LONGEST_CLASS or int(text) > 10**6:
        raise ValueError(
            f"{member.name} in {shard} holds {text!r}, but must be a class number from 0: write the shards anew."
        )
    return int(text)


def _check(
    shard: Path, names: list[str], rows: list[tuple[int, int]], keys: list[str], classes: dict[str, int]
) -> None:
    if not names:
        raise ValueError(f"{shard} has no images ({', '.join(SUFFIXES)}): give webdataset shards.")
    if len(set(keys)) < len(keys):
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise ValueError(f"{shard} has two images named {twice.strip('/')}: give each a name of its own.")
    if lonely := classes.keys() - set(keys):
        raise ValueError(
            f"{shard} has {min(lonely).strip('/')}.cls, but no image of that name: write it anew."
        )
    size = shard.stat().st_size
    if any(offset + length > size for offset, length in rows):
        raise ValueError(f"{shard} is truncated: fetch it again.")


def _state(shard: Path) -> np.ndarray:
    """What must be as it was for an index to hold: version of the index, size, time of change in ns."""
    found = shard.stat()
    return np.array([_VERSION, found.st_size, found.st_mtime_ns], dtype=np.int64)


def _places(shard: Path) -> list[Path]:
    """Where the index of a shard may be."""
    digest = hashlib.sha256(str(shard.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return [
        shard.parent / ".dualat-index" / f"{shard.name}.npz",
        cache_folder() / "index" / f"{shard.name}-{digest}.npz",
    ]


def _kept(place: Path, state: np.ndarray) -> ShardIndex | None:
    """The index in this file; None where it is absent, damaged, or of another state of the shard."""
    damage = (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile)
    with suppress(*damage), np.load(place) as kept:
        if not np.array_equal(kept["state"], state):
            return None
        names = kept["names"].tobytes().decode("utf-8", "surrogateescape").split("\n")
        index = ShardIndex(names, kept["offsets"], kept["sizes"], kept["labels"])
        if all(len(column) == len(names) for column in (index.offsets, index.sizes, index.labels)):
            return index
    return None


def _write(path: Path, index: ShardIndex, state: np.ndarray) -> None:
    names = np.frombuffer("\n".join(index.names).encode("utf-8", "surrogateescape"), dtype=np.uint8)
    with open(path, "wb") as handle:
        np.savez(
            handle, state=state, names=names, offsets=index.offsets, sizes=index.sizes, labels=index.labels
        )


class ShardFiles(Files):
    """Images in shards, each read by one call at its offset."""

    def __init__(self, shards: list[Path], view: View):
        super().__init__(view)
        self.shards = [str(shard) for shard in shards]
        indexes = [read_index(shard)[0] for shard in shards]
        counts = [len(index) for index in indexes]
        self.names = [name for index in indexes for name in index.names]
        self.shard_of = np.repeat(np.arange(len(shards)), counts)
        self.offsets = np.concatenate([index.offsets for index in indexes])
        self.sizes = np.concatenate([index.sizes for index in indexes])
        self.labels = np.concatenate([index.labels for index in indexes])

    def __len__(self) -> int:
        return len(self.names)

    def read(self, position: int) -> np.ndarray:
        shard = self.shards[self.shard_of[position]]
        name = f"{self.names[position]} in {shard}"
        try:
            with open(shard, "rb") as handle:
                handle.seek(int(self.offsets[position]))
                content = handle.read(int(self.sizes[position]))
        except OSError as error:
            raise BadImage(f"{name} cannot be read ({error.strerror})") from error
        return decode_image(io.BytesIO(content), self.view, name)

    def told(self, position: int) -> tuple[str, int]:
        shard = self.shards[self.shard_of[position]].rpartition(os.sep)[2]
        return f"{shard}/{self.names[position]}", int(self.sizes[position])


def open_shards(
    shards: list[Path],
    view: View,
    name: str,
    classes: tuple[str, ...] | None = None,
    workers: int | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    labelled: bool = True,
) -> LazyImages:
    """Images of shards in the order of their names and places.

    Args:
        classes: names of the classes; None: those of the file classnames.txt beside the shards, else the numbers from 0
            to the largest.
        labelled: every image needs a .cls file; else all images are of one class.

    Raises:
        ValueError: a damaged shard, an image without class, or a class that is not in `classes`.
    """
    files = ShardFiles(shards, view)
    if not labelled:
        labels, classes = np.zeros(len(files), dtype=np.int64), ("all",)
    else:
        labels = files.labels
        if len(without := (labels == NO_CLASS).nonzero()[0]):
            bare = files.names[without[0]]
            raise ValueError(
                f"{bare} in {files.shards[files.shard_of[without[0]]]} has no .cls file: write the shards anew with one "
                "for each image."
            )
        classes = classes or _class_names(shards[0].parent) or tuple(map(str, range(labels.max() + 1)))
        if labels.max() >= len(classes):
            raise ValueError(
                f"{name} has an image of class {labels.max()}, but there are {len(classes)} classes, counted from 0: "
                "give all training shards, or correct classnames.txt."
            )
    data = LazyImages(files, torch.from_numpy(labels), classes, name, workers)
    return listed(data, include, exclude)


def _class_names(folder: Path) -> tuple[str, ...] | None:
    path = folder / "classnames.txt"
    return tuple(read_lines(path)) if path.is_file() else None
