"""A pickle read as data. A pickle is a program for a small stack machine; here is that machine with no way out of it:
no module is imported, no object of the program's own is made, called or given a state.

Python's own `pickletools` takes the bytes apart into opcodes and their arguments; it runs nothing either.
"""

import pickletools
from collections.abc import Callable
from typing import Any

from dualat.system.pickles.rebuild import known, set_state
from dualat.system.pickles.values import ArrayInPieces, Inert, Known, Refused

_LARGEST_MEMO = 2**32
_ITEM = 100  # bytes of memory that an item of a list or dict takes, about

_NEW: dict[str, Callable[[], Any]] = {
    **{"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False},
    **{"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": lambda: Inert("set")},
    **{name: lambda: Inert("an extension") for name in ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER")},
}
"""Opcodes that push a value of their own."""
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME", "READONLY_BUFFER"}
_ARGUMENTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
"""Opcodes that push the argument that pickletools has decoded."""


class Budget:
    """What reading one file may cost, the files inside it included: a hostile one ends here.

    opcodes: a state dict of 10,000 tensors takes about 300,000. copied: bytes that our functions copy, which for an
    honest file is its own size at most, or twice that where torch files lie inside it.
    """

    def __init__(self, size: int):
        self.opcodes = 2_000_000
        self.copied = 4 * size + 2**26

    def step(self) -> None:
        self.opcodes -= 1
        if self.opcodes < 0:
            raise Refused("its pickle is far longer than that of any weights")

    def copy(self, values: tuple[Any, ...]) -> None:
        self.copied -= _ITEM * len(values)
        for value in values:
            if isinstance(value, str | bytes | bytearray):
                self.copied -= len(value)
            elif isinstance(value, list | tuple):
                self.copied -= _ITEM * len(value)
        if self.copied < 0:
            raise Refused("its pickle asks for more memory than any weights take")


def read_pickle(
    stream: Any,
    stored_object: Callable[[Any], Any],
    load_bytes: Callable[[bytes], Any],
    budget: Budget,
) -> Any:
    """The value of the pickle at the stream's position, which is left just behind it.

    Args:
        stream: readable bytes, with read, readline and tell.
        stored_object: what a persistent id stands for (torch's way of naming a storage).
        load_bytes: reads a torch file that lies inside the pickle as bytes.
        budget: what reading may still cost.

    Returns:
        None, bool, int, float, str, bytes, list, tuple, dict (entries with text as keys), storages and tensors of
        values.py, and `Inert` for all else. Lists and dicts may hold themselves.

    Raises Refused, or whatever a damaged pickle leads to (IndexError, KeyError, ...).
    """
    machine = _Machine(stored_object, load_bytes, budget)
    for opcode, argument, _ in pickletools.genops(stream):
        budget.step()
        if opcode.name == "STOP":
            return machine.stack.pop()
        machine.step(opcode.name, argument)
    raise Refused("its pickle has no end")


class _Machine:
    """Stack, marks and memo. `op_NAME` is the opcode NAME; others push a value of their own or their argument."""

    def __init__(
        self, stored_object: Callable[[Any], Any], load_bytes: Callable[[bytes], Any], budget: Budget
    ):
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.stored_object, self.load_bytes, self.budget = stored_object, load_bytes, budget

    def step(self, name: str, argument: Any) -> None:
        if name in _ARGUMENTS:
            self.stack.append(argument)
        elif name in _NEW:
            self.stack.append(_NEW[name]())
        elif name in _TUPLES:
            items = [self.stack.pop() for _ in range(_TUPLES[name])]
            self.stack.append(tuple(reversed(items)))
        elif name not in _IGNORED:
            getattr(self, f"op_{name.lower()}")(argument)

    # The stack and the memo

    def op_mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def op_pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def op_pop_mark(self, _: Any) -> None:
        self.since_mark()

    def op_dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def op_put(self, index: Any) -> None:
        if not 0 <= index < _LARGEST_MEMO:
            raise Refused("its pickle numbers a value beyond reason")
        self.memo[index] = self.stack[-1]

    def op_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_get(self, index: Any) -> None:
        self.stack.append(self.memo[index])

    op_binput = op_long_binput = op_put
    op_binget = op_long_binget = op_get

    # Containers

    def op_list(self, _: Any) -> None:
        items = self.since_mark()  # which puts another stack in place
        self.stack.append(items)

    def op_append(self, _: Any) -> None:
        value = self.stack.pop()
        if type(self.stack[-1]) is list:
            self.stack[-1].append(value)

    def op_appends(self, _: Any) -> None:
        items = self.since_mark()
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(items)

    def op_tuple(self, _: Any) -> None:
        items = self.since_mark()
        self.stack.append(tuple(items))

    def op_dict(self, _: Any) -> None:
        items = self.since_mark()
        self.stack.append({})
        self.fill(items)

    def op_setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.fill([key, value])

    def op_setitems(self, _: Any) -> None:
        self.fill(self.since_mark())

    def fill(self, items: list[Any]) -> None:
        """Keys and values in turn into the dict on top. Text alone is taken as a key: hashing a deep tuple could end
        the process, and chosen numbers make a dict slow."""
        if type(self.stack[-1]) is dict:
            for key, value in zip(items[::2], items[1::2], strict=True):
                if type(key) is str:
                    self.stack[-1][key] = value

    def op_additems(self, _: Any) -> None:
        self.since_mark()

    def op_frozenset(self, _: Any) -> None:
        self.since_mark()
        self.stack.append(Inert("frozenset"))

    # What would import, call and make objects

    def named(self, module: Any, name: Any) -> Any:
        if type(module) is not str or type(name) is not str:
            return Inert("an object")
        return known(module, name, self.load_bytes)

    def call(self, function: Any, arguments: Any) -> Any:
        if isinstance(function, Known) and type(arguments) is tuple:
            self.budget.copy(arguments)
            return function.call(*arguments)
        return Inert(function.name if isinstance(function, Inert) else "an object")

    def op_global(self, names: Any) -> None:
        self.stack.append(self.named(*names.split(" ", 1)))

    def op_stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.named(module, name))

    def op_reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self.call(function, arguments))

    op_newobj = op_reduce

    def op_newobj_ex(self, _: Any) -> None:
        self.stack.pop()
        self.op_reduce(None)

    def op_obj(self, _: Any) -> None:
        kind, *arguments = self.since_mark()
        self.stack.append(self.call(kind, tuple(arguments)))

    def op_inst(self, names: Any) -> None:
        arguments = tuple(self.since_mark())
        self.stack.append(self.call(self.named(*names.split(" ", 1)), arguments))

    def op_build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], ArrayInPieces) and type(state) is tuple:
            self.budget.copy(state)
        set_state(self.stack[-1], state)

    def op_persid(self, key: Any) -> None:
        self.stack.append(self.stored_object(key))

    def op_binpersid(self, _: Any) -> None:
        self.stack.append(self.stored_object(self.stack.pop()))
