"""IDX files, the format of MNIST and its relatives: magic number, sizes (big-endian), then the bytes.

Source: the description of the format on the MNIST page (yann.lecun.com/exdb/mnist).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from dualat.data.source import MEMORY_LIMIT

_AT_A_TIME = 2**24


def read_idx(path: Path | str, dimensions: int) -> Tensor:
    """Read an IDX file of unsigned bytes, gzipped if its name ends in .gz: a uint8 tensor with `dimensions` axes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or one that is truncated, damaged or too long.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: put the file there.")
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as handle:
            return _read(handle, path, dimensions)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): fetch the file again.") from error


def _read(handle: IO[bytes] | gzip.GzipFile, path: Path, dimensions: int) -> Tensor:
    header = handle.read(4 + 4 * dimensions)
    expected = bytes((0, 0, 0x08, dimensions))  # 0x08: unsigned byte
    if header[:4] != expected:
        raise ValueError(
            f"{path} starts with {header[:4].hex() or 'nothing'}, but an IDX file of bytes with {dimensions} axes "
            f"starts with {expected.hex()}: fetch the file again."
        )
    if len(header) < 4 + 4 * dimensions:
        raise ValueError(f"{path} is truncated within its header: fetch the file again.")
    sizes = struct.unpack(f">{dimensions}I", header[4:])
    total = math.prod(sizes)
    if total > MEMORY_LIMIT:
        raise ValueError(
            f"{path} claims to hold {total} bytes, more than is read into memory: fetch the file again."
        )
    content = bytearray()
    while len(content) <= total and (part := handle.read(min(total + 1 - len(content), _AT_A_TIME))):
        content += part  # a damaged header asks for no more memory than the file has bytes
    if len(content) != total:
        state = "is truncated" if len(content) < total else "is longer than its header says"
        raise ValueError(
            f"{path} {state}: it should hold {total} bytes after its header; fetch the file again."
        )
    return (
        torch.frombuffer(content, dtype=torch.uint8).view(sizes)
        if total
        else torch.empty(sizes, dtype=torch.uint8)
    )
