"""What comes out of a file that somebody else wrote: plain values, tensors not yet read, and inert leftovers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MOST_NUMBERS = 2**40
"""A tensor that claims more is damaged: it would be larger than any network."""


class Refused(ValueError):
    """What is wrong with a file, as the end of a sentence that begins with its name."""


class Inert:
    """Something that a pickle names and that is neither a tensor nor a plain value. It keeps its name and nothing
    else: calling it, setting its state or its items does nothing, because nobody does so."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = "".join(c if c.isprintable() else "?" for c in name[:100])


@dataclass(frozen=True, eq=False)
class Known:
    """A function that a pickle may call: ours, in place of the one that the pickle names."""

    call: Callable[..., Any]


@dataclass(frozen=True, eq=False)
class StorageType:
    """The kind of numbers that a storage holds."""

    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Storage:
    """A row of numbers in the file.

    Attributes:
        dtype: kind of number.
        length: how many, as the pickle says.
        content: reads them, as bytes: uint8 of exactly length * itemsize; Refused where the file has fewer.
    """

    dtype: torch.dtype
    length: int
    content: Callable[[], Tensor]


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor that is still in the file."""

    shape: tuple[int, ...]
    load: Callable[[], Tensor]


class ArrayInPieces:
    """numpy.ndarray, made empty by a pickle and filled by its state afterwards."""

    def __init__(self) -> None:
        self.tensor: StoredTensor | Inert = Inert("numpy.ndarray")


def as_tensor(value: Any) -> StoredTensor | None:
    """The tensor that a value is; None for others."""
    value = value.tensor if isinstance(value, ArrayInPieces) else value
    return value if isinstance(value, StoredTensor) else None


def stored(
    storage: Storage, offset: int, shape: Any, strides: Any, dtype: torch.dtype | None = None
) -> StoredTensor:
    """A view of a storage: number i_1 ... i_n is at offset + sum of i_k * strides[k].

    dtype: in place of the storage's own.

    Raises Refused where shape and strides are no rows of small whole numbers, or reach beyond the storage.
    """
    kind = dtype or storage.dtype
    shape, strides = whole_numbers(shape), whole_numbers(strides)
    if len(shape) != len(strides) or type(offset) is not int or offset < 0:
        raise Refused("a tensor's shape, strides and offset do not go together")
    count = 1
    for size in shape:
        count *= size
    if count > MOST_NUMBERS:
        raise Refused("a tensor claims an impossible size")
    if not count:
        return StoredTensor(shape, lambda: torch.empty(shape, dtype=kind))
    if count * kind.itemsize > storage.length * storage.dtype.itemsize:
        raise Refused("a tensor has more numbers than are stored for it")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if (last + 1) * kind.itemsize > storage.length * storage.dtype.itemsize:
        raise Refused("a tensor reaches beyond the numbers that are stored for it")
    return StoredTensor(shape, lambda: numbers(storage.content(), kind).as_strided(shape, strides, offset))


def numbers(content: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes (n,) as numbers (n // itemsize,)."""
    if dtype == torch.bool:
        return content != 0
    return content[: len(content) // dtype.itemsize * dtype.itemsize].view(dtype)


def whole_numbers(values: Any) -> tuple[int, ...]:
    """A list or tuple of at most 16 whole numbers, 0 or more; else Refused."""
    if not isinstance(values, list | tuple) or len(values) > 16:
        raise Refused("a tensor's shape is no short row of numbers")
    if not all(type(value) is int and 0 <= value <= MOST_NUMBERS for value in values):
        raise Refused("a tensor's shape is no row of whole numbers")
    return tuple(values)
