"""The containers in which weights are published: torch's zip files, its older files, plain pickles, safetensors.

What a file is, is told by its first bytes. Nothing is unpacked or copied before a tensor is asked for, so that the
optimiser's half of a checkpoint costs nothing.
"""

import io
import mmap
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from dualat.system.pickles.reader import Budget, read_pickle
from dualat.system.pickles.values import (
    MOST_NUMBERS,
    Inert,
    Refused,
    Storage,
    StorageType,
    StoredTensor,
)

Source = bytes | mmap.mmap

_MAGIC = 0x1950A86A20F9469CFC6C
"""First value in files of torch before 1.6."""
_PROTOCOL = 1001
_DEEPEST = 3
"""Levels of torch files inside a pickle; a plain pickle of tensors has one."""


def read_file(path: Path | str) -> Any:
    """All that a file of weights holds, as values of values.py; nothing in the file is run.

    Tensors are read when they are asked for (`StoredTensor.load`), and only as long as the file stays as it is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: one sentence, whatever is wrong with it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give a file of weights.")
    with open(path, "rb") as handle, guarded(path):
        return _read(path, handle)


@contextmanager
def guarded(path: Path | str) -> Iterator[None]:
    """Turns whatever a damaged or hostile file leads to into a ValueError with one sentence."""
    try:
        yield
    except Refused as error:
        raise ValueError(f"{path} cannot be imported: {error}.") from error
    except MemoryError as error:
        raise ValueError(f"{path} cannot be imported: it takes more memory than there is.") from error
    except Exception as error:  # a damaged file raises whatever it likes
        raise ValueError(
            f"{path} cannot be imported: it is damaged, or holds no weights: fetch it again."
        ) from error


def _read(path: Path, handle: BinaryIO) -> Any:
    start = handle.read(512)
    if not start:
        raise Refused("it is empty")
    source = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    if start.startswith(b"PK\x03\x04"):
        return _read_zip(source, handle)
    if start[8:9] == b"{":
        return _read_safetensors(path)
    for begins, what in (
        (start[257:262] == b"ustar", "an archive: unpack it and give the file in it"),
        (start.lstrip()[:1] == b"<", "a web page: fetch the file that the page links to"),
        (start.startswith(b"version https://git-lfs"), "a pointer of Git LFS: fetch it by `git lfs pull`"),
    ):
        if begins:
            raise Refused(f"it is no file of torch, but {what}")
    return _read_stream(source, Budget(len(source)), 0)


def part(source: Source, start: int, length: int) -> Tensor:
    """Bytes of the file as uint8 (length,), a copy."""
    if start < 0 or length < 0 or start + length > len(source):
        raise Refused("it is shorter than it says: fetch it again")
    return torch.from_numpy(np.frombuffer(source, np.uint8, length, start).copy())


def storage_fields(key: Any) -> tuple[torch.dtype, str, int] | None:
    """Type, name and length of the storage that a persistent id names: ("storage", type, name, device, length, ...).
    None for an id of another kind."""
    if not isinstance(key, tuple) or len(key) < 5 or key[0] not in ("storage", b"storage"):
        return None
    _, kind, name, _, length = key[:5]
    if not isinstance(kind, StorageType) or type(length) is not int or not 0 <= length <= MOST_NUMBERS:
        return None
    return kind.dtype, str(name) if isinstance(name, str | int) else "", length


# torch's zip files: NAME/data.pkl, and each storage in NAME/data/KEY


def _read_zip(source: mmap.mmap, handle: BinaryIO) -> Any:
    archive = zipfile.ZipFile(handle)
    entries = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Refused("it is a zip file, but not one of torch")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise Refused("it is a TorchScript program, not weights: save its state_dict() where you trust it")
    budget = len(source)

    @cache
    def entry(name: str) -> Tensor:
        nonlocal budget
        if name not in entries:
            raise Refused("a storage that its pickle names is not in the file")
        budget -= entries[name].file_size
        if budget < 0:
            raise Refused("its entries are larger together than the file")
        return _entry(source, entries[name])

    if f"{root}byteorder" in entries and bytes(entry(f"{root}byteorder").tolist()) != b"little":
        raise Refused("its numbers are big-endian: save it again on an x86 or ARM machine")

    def stored_object(key: Any) -> Any:
        fields = storage_fields(key)
        if fields is None:
            return Inert("a persistent object")
        dtype, name, length = fields
        return Storage(dtype, length, _cut(lambda: entry(f"{root}data/{name}"), length * dtype.itemsize))

    pickled = io.BytesIO(entry(pickles[0]).numpy().tobytes())
    spent = Budget(len(source))
    return read_pickle(pickled, stored_object, lambda content: _read_stream(content, spent, 1), spent)


def _cut(content: Callable[[], Tensor], length: int) -> Callable[[], Tensor]:
    """The first `length` bytes of what `content` reads; a ValueError where there are fewer."""

    def read() -> Tensor:
        found = content()
        if len(found) < length:
            raise Refused("a storage is shorter than its pickle says: fetch it again")
        return found[:length]

    return read


def _entry(source: Source, info: zipfile.ZipInfo) -> Tensor:
    """An entry's bytes, its checksum compared. torch compresses nothing, so a compressed entry is no entry of torch."""
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
        raise Refused("it is a zip file, but not one of torch")
    header = source[max(info.header_offset, 0) : info.header_offset + 30]
    if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise Refused("its table of contents is wrong: fetch it again")
    start = info.header_offset + 30 + int.from_bytes(header[26:28], "little")
    content = part(source, start + int.from_bytes(header[28:30], "little"), info.file_size)
    if zlib.crc32(content.numpy()) != info.CRC:  # pyright: ignore[reportArgumentType]
        raise Refused("a checksum is wrong: fetch it again")
    return content


# Older files of torch: five pickles, then the storages one behind the other; and plain pickles


def _read_stream(source: Source, budget: Budget, depth: int) -> Any:
    """A plain pickle, or a file of torch before 1.6, which may be bytes inside another pickle."""
    if depth > _DEEPEST:
        raise Refused("torch files lie too deep in each other")
    stream: Any = io.BytesIO(source) if isinstance(source, bytes) else source

    def plain(stored_object: Callable[[Any], Any]) -> Any:
        return read_pickle(
            stream, stored_object, lambda content: _read_stream(content, budget, depth + 1), budget
        )

    def no_object(_: Any) -> Any:
        return Inert("a persistent object")

    head = plain(no_object)
    if type(head) is not int or head != _MAGIC:
        return head
    if plain(no_object) != _PROTOCOL:
        raise Refused("it was written by a version of torch that is not known")
    plain(no_object)  # about the machine that wrote it
    places: dict[str, int] = {}
    types: dict[str, tuple[torch.dtype, int]] = {}

    def stored_object(key: Any) -> Any:
        fields = storage_fields(key)
        if fields is None:
            inner = key[1] if isinstance(key, tuple) and len(key) > 1 and key[0] == "module" else None
            return inner if isinstance(inner, Inert) else Inert("a persistent object")
        dtype, name, length = fields
        types.setdefault(name, (dtype, length))
        whole = Storage(dtype, length, lambda: _content(source, places, name, length * dtype.itemsize))
        return _view(whole, key[5] if len(key) > 5 else None)

    value = plain(stored_object)
    _find_storages(source, stream, plain(no_object), types, places)
    return value


def _find_storages(
    source: Source, stream: Any, keys: Any, types: dict[str, tuple[torch.dtype, int]], places: dict[str, int]
) -> None:
    """Where each storage begins: in the order of `keys`, each is its length (8 bytes) and its numbers."""
    position = stream.tell()
    for key in keys if isinstance(keys, list) else ():
        if str(key) not in types:
            raise Refused("its storages and its pickle do not go together")
        dtype, length = types[str(key)]
        if int.from_bytes(source[position : position + 8], "little") != length:
            raise Refused("a storage is not as long as its pickle says: fetch it again")
        places[str(key)] = position + 8
        position += 8 + length * dtype.itemsize
    if position > len(source):
        raise Refused("it is shorter than it says: fetch it again")


def _content(source: Source, places: dict[str, int], name: str, length: int) -> Tensor:
    if name not in places:
        raise Refused("a storage that its pickle names is not in the file")
    return part(source, places[name], length)


def _view(whole: Storage, view: Any) -> Storage:
    """The stretch of a storage that old files may name: (name, offset, length) in numbers."""
    if not isinstance(view, tuple) or len(view) != 3:
        return whole
    _, offset, length = view
    if type(offset) is not int or type(length) is not int or min(offset, length) < 0:
        raise Refused("a storage's view is no row of numbers")
    if offset + length > whole.length:
        raise Refused("a view reaches beyond its storage")
    size = whole.dtype.itemsize
    return Storage(
        whole.dtype, length, lambda: whole.content()[offset * size : (offset + length) * size].clone()
    )


# safetensors


def _read_safetensors(path: Path) -> dict[str, StoredTensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            if "dualat" in (handle.metadata() or {}):
                raise Refused(
                    "it is a model of dualat already: dualat.load and the commands read it as it is"
                )
            shapes = {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise Refused("its header is damaged: fetch it again") from error

    def load(name: str) -> Callable[[], Tensor]:
        def read() -> Tensor:
            with safe_open(path, framework="pt") as handle:
                return handle.get_tensor(name)

        return read

    return {name: StoredTensor(shape, load(name)) for name, shape in shapes.items()}
