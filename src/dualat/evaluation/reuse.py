"""Work that was done already, used again: tensors kept in files, and what decides whether they are still right."""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dualat.data.listing import walk
from dualat.system.files import cache_folder, keep

Tensors = dict[str, Tensor]


def kept_tensors(path: Path | None, fit: Callable[[Tensors], bool], make: Callable[[], Tensors]) -> Tensors:
    """The tensors in a file, where it is whole and they fit; else those made now, and kept there.

    A folder that cannot be written costs time, not the result. path: None keeps nothing.
    """
    if path is not None:
        with suppress(OSError, SafetensorError, ValueError, KeyError, RuntimeError):
            if fit(found := load_file(path)):
                return found
    made = make()
    if path is not None:
        keep(path, partial(save_file, made))
    return made


def add_tensors(digest: Any, tensors: Iterable[tuple[str, Any]], types: bool = True) -> None:
    """Add names, shapes, types and values of tensors to a hash of hashlib; what is no tensor is passed over."""
    for name, tensor in tensors:
        if isinstance(tensor, Tensor):
            dtype = f"{tensor.dtype} " if types else ""
            digest.update(f"{name} {dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def file_state(value: Any) -> list[Any]:
    """Name, size and time of change of every file that a setting (a path, or several) names; [] for other values."""
    found = []
    for entry in value if isinstance(value, tuple | list) else (value,):
        path = Path(entry).expanduser() if isinstance(entry, str) else None
        if path is None or not path.exists():
            continue
        files = (
            [(path / name, entry.stat()) for name, entry in walk(path) if entry.is_file()]
            if path.is_dir()
            else []
        )
        for file, state in sorted(files) if path.is_dir() else [(path, path.stat())]:
            found.append([str(file), state.st_size, state.st_mtime_ns])
    return found


def partial_folder(target: Path, name: str) -> Path:
    """Where half-done work on a target (a path) and one of its models is kept between calls."""
    digest = hashlib.sha256(f"{target.resolve()} {name}".encode()).hexdigest()
    return cache_folder() / "partial" / digest[:16]
