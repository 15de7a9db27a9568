"""What decides whether work that was done already can be used again: the content of tensors, the state of files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualat.data.listing import walk


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
