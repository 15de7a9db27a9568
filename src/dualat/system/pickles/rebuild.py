"""The functions that a pickle of tensors asks for by name, written anew, and nothing else.

`known` answers with one of them, or with an inert leftover. Whatever reaches these functions comes from the file: each
checks its arguments, and what does not fit is an inert leftover too, or Refused where the file must be damaged.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dualat.system.pickles.values import (
    ArrayInPieces,
    Inert,
    Known,
    Refused,
    Storage,
    StorageType,
    stored,
    whole_numbers,
)

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_DTYPES = {
    name: getattr(torch, name)
    for name in (
        "float16",
        "bfloat16",
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "bool",
    )
}
_ARRAY_TYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"}


class ArrayType:
    """numpy.dtype: kind and size, as in f4; the byte order follows as state."""

    def __init__(self, code: str):
        self.code, self.order = code, "="


def known(module: str, name: str, load_bytes: Callable[[bytes], Any]) -> Any:
    """What stands for MODULE.NAME. load_bytes: reads a torch file inside the pickle."""
    if name in _STORAGES and module in ("torch", "torch.cuda", "torch.storage"):
        return StorageType(_STORAGES[name])
    if module == "torch" and name in _DTYPES:
        return _DTYPES[name]
    if (module, name) == ("torch.storage", "_load_from_bytes"):
        return Known(lambda content: load_bytes(content) if isinstance(content, bytes) else Inert(name))
    found = _FUNCTIONS.get((module, name))
    return Inert(f"{module}.{name}") if found is None else Known(found)


def tensor(storage: Any = None, offset: Any = 0, shape: Any = (), strides: Any = (), *_: Any) -> Any:
    """torch._utils._rebuild_tensor and _rebuild_tensor_v2."""
    return stored(storage, offset, shape, strides) if isinstance(storage, Storage) else Inert("torch.Tensor")


def tensor_of_type(
    storage: Any = None,
    offset: Any = 0,
    shape: Any = (),
    strides: Any = (),
    grad: Any = None,
    hooks: Any = None,
    dtype: Any = None,
    *_: Any,
) -> Any:
    """torch._utils._rebuild_tensor_v3: the type stands beside the storage."""
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        return Inert("torch.Tensor")
    return stored(storage, offset, shape, strides, dtype)


def first(value: Any = None, *_: Any) -> Any:
    """torch._utils._rebuild_parameter: the tensor without its wrapping."""
    return value


def subclass(function: Any = None, kind: Any = None, arguments: Any = (), *_: Any) -> Any:
    """torch._tensor._rebuild_from_type_v2: one of the functions above, called as for a plain tensor."""
    if isinstance(function, Known) and function.call in (tensor, tensor_of_type) and type(arguments) is tuple:
        return function.call(*arguments)
    return Inert("torch.Tensor")


def mapping(items: Any = (), *_: Any) -> dict[str, Any]:
    """collections.OrderedDict, dict: entries whose keys are text."""
    if isinstance(items, dict):
        return items
    if not isinstance(items, list | tuple):
        return {}
    pairs = [pair for pair in items if isinstance(pair, list | tuple) and len(pair) == 2]
    return {key: value for key, value in pairs if type(key) is str}


def row(items: Any = (), *_: Any) -> tuple[Any, ...]:
    """torch.Size."""
    return tuple(items) if isinstance(items, list | tuple) else ()


def encoded(text: Any = None, encoding: Any = None, *_: Any) -> Any:
    """_codecs.encode, by which old protocols write bytes."""
    return (
        text.encode("latin1") if type(text) is str and encoding in ("latin1", "latin-1") else Inert("bytes")
    )


def array_type(code: Any = None, *_: Any) -> Any:
    """numpy.dtype, of plain numbers alone."""
    return ArrayType(code) if type(code) is str and code in _ARRAY_TYPES else Inert("numpy.dtype")


def array_in_pieces(*_: Any) -> ArrayInPieces:
    """numpy.core.multiarray._reconstruct."""
    return ArrayInPieces()


def array_scalar(kind: Any = None, raw: Any = None, *_: Any) -> Any:
    """numpy.core.multiarray.scalar."""
    return array((), kind, False, raw)


def array_from_buffer(raw: Any = None, kind: Any = None, shape: Any = (), order: Any = "C", *_: Any) -> Any:
    """numpy.core.numeric._frombuffer."""
    return array(shape, kind, order == "F", raw)


def array(shape: Any, kind: Any, columns_first: Any, raw: Any) -> Any:
    """numpy's bytes as a tensor; an inert leftover for text, dates, objects."""
    raw = raw.encode("latin1", "replace") if type(raw) is str else raw
    if not isinstance(kind, ArrayType) or not isinstance(raw, bytes | bytearray):
        return Inert("numpy.ndarray")
    shape, item = whole_numbers(shape), int(kind.code[1:])
    if math.prod(shape) * item != len(raw):
        raise Refused("an array's shape does not go with its bytes")
    order = kind.order if kind.order in "<>" else "="
    plain = np.frombuffer(bytes(raw), np.dtype(order + kind.code)).astype(kind.code)
    values = torch.from_numpy(plain)
    sizes = list(shape) if columns_first else list(shape)[::-1]
    strides = [math.prod(sizes[:i]) for i in range(len(sizes))]
    storage = Storage(values.dtype, len(values), lambda: values.view(torch.uint8))
    return stored(storage, 0, shape, strides if columns_first else strides[::-1])


def set_state(target: Any, state: Any) -> None:
    """The state that a pickle gives to an object: read for numpy's arrays and types, dropped for all others."""
    if not isinstance(state, tuple):
        return
    if isinstance(target, ArrayType) and len(state) > 1 and type(state[1]) is str and len(state[1]) == 1:
        target.order = state[1]
    if isinstance(target, ArrayInPieces) and len(state) == 5:
        target.tensor = array(*state[1:])


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): tensor,
    ("torch._utils", "_rebuild_tensor_v2"): tensor,
    ("torch._utils", "_rebuild_tensor_v3"): tensor_of_type,
    ("torch._utils", "_rebuild_parameter"): first,
    ("torch._utils", "_rebuild_parameter_with_state"): first,
    ("torch._tensor", "_rebuild_from_type_v2"): subclass,
    ("torch", "Size"): row,
    ("collections", "OrderedDict"): mapping,
    ("builtins", "dict"): mapping,
    ("__builtin__", "dict"): mapping,
    ("_codecs", "encode"): encoded,
    ("numpy", "dtype"): array_type,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", array_in_pieces),
            ("multiarray", "scalar", array_scalar),
            ("numeric", "_frombuffer", array_from_buffer),
        )
    },
}
