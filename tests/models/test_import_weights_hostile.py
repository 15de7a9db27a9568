"""Files that mean harm: nothing in them runs, and the weights beside it load."""

import contextlib
import os
import pickle
import subprocess
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_networks import binary, small_weights

from dualat.models.import_weights.convert import import_network
from dualat.models.import_weights.files import read_file
from dualat.models.import_weights.settings import ImportSettings
from dualat.system.pickles.values import Inert

PLAIN = ImportSettings(normalize="none", image_size=8)


class Call:
    """Pickles as a call of any function, with a state that __setstate__ or setattr would take."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None, items: Any = None):
        self.parts = (function, arguments, state, items)

    def __reduce__(self):
        function, arguments, state, items = self.parts
        return (function, arguments, state, iter(items) if items is not None else None)


class Trap:
    """Acts when it is made, called, given a state, items or a hash; its pickle names this class."""

    target = ""

    def __new__(cls, *arguments: Any):
        if cls.target:
            Path(cls.target).touch()
        return super().__new__(cls)

    def act(self, *_: Any) -> Any:
        Path(self.target).touch()
        return 0

    __setstate__ = __setitem__ = append = extend = __hash__ = __call__ = act  # pyright: ignore

    def __getstate__(self):
        return {"x": 1}


def touch(sentinel: Path) -> str:
    return f"touch {sentinel}"


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda s: Call(os.system, touch(s)),
    "subprocess": lambda s: Call(subprocess.Popen, ["touch", str(s)]),
    "eval": lambda s: Call(eval, f"open({str(s)!r}, 'w')"),
    "exec": lambda s: Call(exec, f"open({str(s)!r}, 'w')"),
    "open": lambda s: Call(open, str(s), "w"),
    "getattr": lambda s: Call(getattr, Call(Trap), "act"),
    "a method": lambda s: Call(Path.touch, s),
    "nested": lambda s: [{"a": (1, Call(list, Call(map, os.system, [touch(s)])))}],
    "state": lambda s: Call(Trap, 3, state={"y": Call(os.system, touch(s))}),
    "setstate": lambda s: Trap(),
    "items": lambda s: Call(Trap, items=[1, 2]),
    "inside a parameter": lambda s: Call(
        torch._utils._rebuild_parameter, Call(os.system, touch(s)), True, None
    ),
    "inside an ordered dict": lambda s: Call(OrderedDict, [["a", Call(os.system, touch(s))]]),
}


@pytest.fixture
def sentinel(tmp_path: Path, monkeypatch) -> Path:
    path = tmp_path / "it-ran"
    monkeypatch.setattr(Trap, "target", str(path))
    return path


@pytest.mark.parametrize("how", ["zip", "before 1.6", "pickle"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_in_a_file_runs(tmp_path: Path, sentinel: Path, kind, how):
    value = {"evil": HOSTILE[kind](sentinel), "state_dict": small_weights(), "more": HOSTILE[kind](sentinel)}
    path = tmp_path / "w.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=how == "zip")
    sentinel.unlink(missing_ok=True)  # making a trap has sprung it
    imported = import_network(path, PLAIN)
    found = imported.network.state_dict()
    assert all(torch.equal(found[k], v) for k, v in value["state_dict"].items())
    assert not sentinel.exists()
    with contextlib.suppress(Exception):  # and it is loaded: Python's own reader runs it
        pickle.loads(path.read_bytes()) if how == "pickle" else torch.load(path, weights_only=False)
    for _ in range(100):  # a process of its own takes a moment
        if sentinel.exists():
            break
        time.sleep(0.02)
    assert sentinel.exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_would_run_is_no_weight(tmp_path: Path, sentinel: Path, kind):
    state: dict[str, Any] = {**small_weights(), "fc.bias": HOSTILE[kind](sentinel)}
    torch.save(state, tmp_path / "w.pt")
    sentinel.unlink(missing_ok=True)
    with pytest.raises(ValueError, match="1 missing .first: 'fc.bias'"):
        import_network(tmp_path / "w.pt", PLAIN)
    torch.save(HOSTILE[kind](sentinel), tmp_path / "w.pt")
    sentinel.unlink(missing_ok=True)
    with pytest.raises(ValueError, match="weights are read from a state dict alone"):
        import_network(tmp_path / "w.pt", PLAIN)
    assert not sentinel.exists()


def raw_pickles(s: Path) -> dict[str, bytes]:
    """Opcodes that Python's pickler no longer writes, and persistent ids of every kind."""
    system, command = b"cos\nsystem\n", binary(touch(s))
    return {
        "INST": b"(" + command + b"ios\nsystem\n.",
        "OBJ": b"(" + system + command + b"o.",
        "NEWOBJ": system + b"(" + command + b"t\x81.",
        "NEWOBJ_EX": system + b"(" + command + b"t}\x92.",
        "STACK_GLOBAL": binary("os") + binary("system") + b"\x93(" + command + b"tR.",
        "dotted": binary("builtins") + binary("eval.__call__") + b"\x93(" + command + b"tR.",
        "names that are no text": b"K\x01K\x02\x93)R.",
        "PERSID": b"Pos.system\n.",
        "pid, a call": system + b"(" + command + b"tRQ.",
        "pid, a list": b"]Q.",
        "pid, None": b"NQ.",
        "pid, a short tuple": b"(" + binary("storage") + b"tQ.",
        "pid, no type": b"(" + binary("storage") + system + binary("0") + binary("cpu") + b"K\x02tQ.",
        "pid, huge": b"("
        + binary("storage")
        + b"ctorch\nFloatStorage\n"
        + binary("0")
        + b"N\x8a\x08"
        + b"\x7f" * 8
        + b"tQ.",
        "pid, negative": b"("
        + binary("storage")
        + b"ctorch\nFloatStorage\n"
        + binary("0")
        + b"NJ\xff\xff\xff\xfftQ.",
        "extension": b"\x82\x01)R.",
        "build of a function": system + b"}" + binary("__call__") + command + b"sb.",
        "reduce of a number": b"K\x01)R.",
        "reduce with no tuple": b"ctorch._utils\n_rebuild_tensor_v2\nK\x01R.",
        "load in a pickle": b"ctorch\nload\n(" + binary(str(s)) + b"tR.",
        "bytes that are no file": b"ctorch.storage\n_load_from_bytes\n(C\x03abctR.",
        "codecs": b"c_codecs\nencode\n(" + binary("a") + binary("rot13") + b"tR.",
        "set": b"\x8f(" + system + b"K\x01\x90.",
        "frozenset": b"(" + system + b"\x91.",
        "key that is a call": b"}" + system + b"(" + command + b"tRK\x01s.",
    }


@pytest.mark.parametrize("name", raw_pickles(Path("x")))
def test_every_opcode_that_could_act_is_inert(tmp_path: Path, sentinel: Path, name):
    path = tmp_path / "w.pkl"
    path.write_bytes(b"\x80\x04" + raw_pickles(sentinel)[name])
    try:
        value = read_file(path)
    except ValueError as error:
        assert str(error).startswith(f"{path} cannot be imported: ")
    else:
        assert isinstance(value, Inert | dict | type(None)) and not (isinstance(value, dict) and value)
    with pytest.raises(ValueError):
        import_network(path, PLAIN)
    assert not sentinel.exists()
