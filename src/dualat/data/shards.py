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
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dualat.data.decode import BadImage, View, decode_image
from dualat.data.files import Files
from dualat.data.formats import WANTED, ending, suffixes
from dualat.data.images import ImageData
from dualat.data.listing import tell_left_out
from dualat.data.names import read_lines
from dualat.data.plain_arrays import read_members
from dualat.system.files import atomic_path, cache_folder, keep

NO_CLASS = -1
_VERSION = 2
_LONGEST_CLASS = 32  # bytes of a .cls file


@dataclass(eq=False)
class ShardIndex:
    """What is in a shard, one row per image in the order of the file.

    Attributes:
        names: of the image files.
        offsets, sizes: (n,), int64, in bytes.
        labels: (n,), int64; NO_CLASS where there is no .cls file.
        left_out: names of one file of each sample without a picture that is read.
    """

    names: list[str]
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    left_out: list[str]

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
    """Read the headers of a shard, and its .cls files. Names that begin with a dot are skipped."""
    names: list[str] = []
    rows: list[tuple[int, int]] = []
    keys: list[str] = []
    classes: dict[str, int] = {}
    others: dict[str, str] = {}  # a file of each sample that is neither a picture nor a class
    for tar, member in _members(shard):
        folder, _, last = member.name.rpartition("/")
        stem, _, endings = last.partition(".")
        if not member.isreg() or not stem or _hidden(folder):
            continue
        key = f"{folder}/{stem}"
        if endings.lower() == "cls":
            classes[key] = _read_class(tar, member, shard)
        elif ending(last) in suffixes():
            names.append(member.name)
            rows.append((member.offset_data, member.size))
            keys.append(key)
        else:
            others.setdefault(key, member.name)
    _check(shard, names, rows, keys, classes)
    known = set(keys)
    table = np.array(rows, dtype=np.int64).reshape(-1, 2)
    labels = np.array([classes.get(key, NO_CLASS) for key in keys], dtype=np.int64)
    left_out = [name for key, name in others.items() if key not in known]
    return ShardIndex(names, table[:, 0].copy(), table[:, 1].copy(), labels, left_out)


def _hidden(folder: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in folder.split("/"))


def _members(shard: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The open tar file and each of its members. ValueError where the file is damaged."""
    try:
        with tarfile.open(shard, "r:") as tar:
            place = -1
            for member in tar:
                if tar.offset <= place:  # a negative size: tarfile would read the same headers for ever
                    raise tarfile.ReadError(f"the header before byte {member.offset_data} leads back")
                place = tar.offset
                yield tar, member
            with open(shard, "rb") as handle:  # tarfile takes a damaged header for the end, which is zeros
                handle.seek(tar.offset)
                if any(handle.read(tarfile.BLOCKSIZE)):
                    raise tarfile.ReadError(f"no header at byte {tar.offset}")
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        reason = error if isinstance(error, tarfile.TarError) and str(error) else "a header is no header"
        raise ValueError(
            f"{shard} is damaged, truncated, or no plain tar file ({reason}): fetch it again, or unpack it if it is "
            "compressed."
        ) from error


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
        raise ValueError(f"{shard} has no images: give webdataset shards of {WANTED}.")
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
    """What must be as it was for an index to hold: its version, the endings that are read, size, time of change in ns."""
    found, read = shard.stat(), zlib.crc32(" ".join(sorted(suffixes())).encode())
    return np.array([_VERSION, read, found.st_size, found.st_mtime_ns], dtype=np.int64)


def _places(shard: Path) -> list[Path]:
    """Where the index of a shard may be."""
    digest = hashlib.sha256(str(shard.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return [
        shard.parent / ".dualat-index" / f"{shard.name}.npz",
        cache_folder() / "index" / f"{shard.name}-{digest}.npz",
    ]


def _kept(place: Path, state: np.ndarray) -> ShardIndex | None:
    """The index in this file; None where it is absent, damaged, or of another state of the shard."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept, _ = read_members(place)
        if not np.array_equal(kept["state"], state):
            return None
        names, left_out = (_unpacked(kept[column]) for column in ("names", "left_out"))
        index = ShardIndex(names, kept["offsets"], kept["sizes"], kept["labels"], left_out)
        columns = (index.offsets, index.sizes, index.labels)
        if all(column.shape == (len(names),) and column.dtype == np.int64 for column in columns):
            return index
    return None


def _write(path: Path, index: ShardIndex, state: np.ndarray) -> None:
    columns = {"offsets": index.offsets, "sizes": index.sizes, "labels": index.labels}
    columns |= {"names": _packed(index.names), "left_out": _packed(index.left_out)}
    with open(path, "wb") as handle:
        np.savez(handle, state=state, **columns)  # pyright: ignore[reportArgumentType]


def _packed(names: list[str]) -> np.ndarray:
    return np.frombuffer("\n".join(names).encode("utf-8", "surrogateescape"), dtype=np.uint8)


def _unpacked(column: np.ndarray) -> list[str]:
    text = column.tobytes().decode("utf-8", "surrogateescape")
    return text.split("\n") if text else []


class ShardFiles(Files):
    """Images in shards, each read by one call at its offset."""

    def __init__(self, shards: list[Path], view: View, workers: int | None = None):
        super().__init__(view, workers)
        self.shards = [str(shard) for shard in shards]
        indexes = [read_index(shard)[0] for shard in shards]
        others = [name for index in indexes for name in index.left_out]
        told = [(name, ending(name) or "without an ending") for name in others]
        tell_left_out(shards[0].parent, told, "sample")
        counts = [len(index) for index in indexes]
        self.names = [name for index in indexes for name in index.names]
        self.shard_of = np.repeat(np.arange(len(shards)), counts)
        self.offsets = np.concatenate([index.offsets for index in indexes])
        self.sizes = np.concatenate([index.sizes for index in indexes])
        self.labels = np.concatenate([index.labels for index in indexes])

    def __len__(self) -> int:
        return len(self.names)

    def read(self, position: int) -> np.ndarray:
        return decode_image(io.BytesIO(self.raw(position)), self.view, self._name(position))

    def raw(self, position: int) -> bytes:
        try:
            with open(self.shards[self.shard_of[position]], "rb") as handle:
                handle.seek(int(self.offsets[position]))
                return handle.read(int(self.sizes[position]))
        except OSError as error:
            raise BadImage(f"{self._name(position)} cannot be read ({error.strerror})") from error

    def _name(self, position: int) -> str:
        return f"{self.names[position]} in {self.shards[self.shard_of[position]]}"

    def told(self, position: int) -> tuple[str, int]:
        shard = self.shards[self.shard_of[position]].rpartition(os.sep)[2]
        return f"{shard}/{self.names[position]}", int(self.sizes[position])


def open_shards(
    shards: list[Path],
    view: View,
    name: str,
    classes: tuple[str, ...] | None = None,
    workers: int | None = None,
    labelled: bool = True,
) -> ImageData:
    """Images of shards in the order of their names and places.

    Args:
        classes: names of the classes; None: those of the file classnames.txt beside the shards, else the numbers from 0
            to the largest.
        labelled: every image needs a .cls file; else all images are of one class.

    Raises:
        ValueError: a damaged shard, an image without class, or a class that is not in `classes`.
    """
    files = ShardFiles(shards, view, workers)
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
        if classes is not None:
            _check_names(shards[0].parent, classes)
        classes = classes or _class_names(shards[0].parent) or tuple(map(str, range(labels.max() + 1)))
        if labels.max() >= len(classes):
            raise ValueError(
                f"{name} has an image of class {labels.max()}, but there are {len(classes)} classes, counted from 0: "
                "give all training shards, or correct classnames.txt."
            )
    return ImageData(files, torch.from_numpy(labels), classes, name)


def _class_names(folder: Path) -> tuple[str, ...] | None:
    path = folder / "classnames.txt"
    return tuple(read_lines(path)) if path.is_file() else None


def _check_names(folder: Path, classes: tuple[str, ...]) -> None:
    """ValueError where the folder's own names of the classes are not those of the training shards."""
    numbered = classes == tuple(map(str, range(len(classes))))
    for k, (own, name) in enumerate(zip(_class_names(folder) or (), classes, strict=False)):
        if own != name and not numbered:
            raise ValueError(
                f"{folder / 'classnames.txt'} calls class {k} {own!r}, and the training shards {name!r}: give both the "
                "same names in the same order."
            )
