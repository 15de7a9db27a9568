"""Files that are damaged, foreign, or made to take all memory or all day: each ends in one sentence, soon."""

import io
import pickle
import resource
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_networks import binary, small_weights
from safetensors.torch import save_file

from dualat.models.import_weights.convert import import_network
from dualat.models.import_weights.files import read_file
from dualat.models.import_weights.settings import ImportSettings
from dualat.models.wide_resnet import WideResNet
from dualat.system.pickles.values import StoredTensor

PLAIN = ImportSettings(normalize="none", image_size=8)


def rebuild(*arguments: Any) -> bytes:
    """A pickle of {"w": tensor, "v": tensor}, rebuilt from a storage of six floats with these arguments."""
    stream = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):  # pyright: ignore[reportIncompatibleMethodOverride]
            return ("storage", torch.FloatStorage, "0", "cpu", 6) if obj is Pickler else None

    class Rebuilt:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Pickler, *arguments)

    tensor = Rebuilt()
    Pickler(stream, 2).dump({"w": tensor, "v": tensor})
    return stream.getvalue()


def torch_zip(path: Path, pickled: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key.strip('_')}", content)
    return path


SIX = np.arange(6, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, (2, 3), (3, 1)), [[0, 1, 2], [3, 4, 5]]),
        ((1, (2, 2), (1, 2)), [[1, 3], [2, 4]]),
        ((0, [6], [1]), [0, 1, 2, 3, 4, 5]),
        ((3, (), ()), 3),
        ((0, (0, 5), (5, 1)), []),
    ],
    ids=str,
)
def test_tensors_are_what_torch_makes_of_them(tmp_path: Path, arguments, expected):
    path = torch_zip(tmp_path / "w.pt", rebuild(*arguments, False, OrderedDict()), _0=SIX)
    tensor = read_file(path)["w"]
    assert isinstance(tensor, StoredTensor) and tensor.load().tolist() == expected


@pytest.mark.parametrize(
    "arguments",
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (0, (2, 3), (4, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (-1,), (1,)),
        (0, (1000,), (0,)),
        (0, (2**40, 2**40), (0, 0)),
        (0, (2,), (2**62,)),
        (2**63, (1,), (1,)),
        (0, (2, 3), (1,)),
        (0, (True,), (1,)),
        (0, (1.0,), (1,)),
        (0, "ab", (1, 1)),
        (None, (1,), (1,)),
        (0, (1,) * 40, (1,) * 40),
    ],
    ids=str,
)
def test_tensors_that_reach_beyond_their_storage_are_refused(tmp_path: Path, arguments):
    path = torch_zip(tmp_path / "w.pt", rebuild(*arguments, False, OrderedDict()), _0=SIX)
    with pytest.raises(ValueError, match="cannot be imported: a tensor"):
        read_file(path)


def test_storages_that_are_short_or_missing_are_refused(tmp_path: Path):
    pickled = rebuild(0, (2, 3), (3, 1), False, OrderedDict())
    for storages, message in (
        ({"_0": SIX[:-1]}, "shorter than its pickle says"),
        ({"_1": SIX}, "not in the file"),
    ):
        path = torch_zip(tmp_path / "w.pt", pickled, **storages)
        with pytest.raises(ValueError, match=message):
            read_file(path)["w"].load()


def damaged(path: Path, start: int, content: bytes) -> Path:
    whole = bytearray(path.read_bytes())
    whole[start : start + len(content)] = content
    path.write_bytes(whole)
    return path


def test_a_wrong_checksum_is_refused(tmp_path: Path):
    torch.save(small_weights(), tmp_path / "w.pt")
    place = (tmp_path / "w.pt").stat().st_size // 2
    with pytest.raises(ValueError, match="checksum is wrong: fetch it again"):
        import_network(damaged(tmp_path / "w.pt", place, b"damage"), PLAIN)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS: fetch it by `git lfs pull`"),
        (b"PK\x03\x04", "cannot be imported"),
        (b"\x80\x02}q\x00.", "no state dict"),
        (b"hello, this is text", "cannot be imported"),
        (b"\x00" * 600, "cannot be imported"),
        (b"(" * 2000, "holds no weights: fetch"),
        (b"0" * 2000 + b".", "damaged"),
        (b"\x80\x02" + b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b".", "damaged"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_other_files_are_refused_in_a_sentence(tmp_path: Path, content, message):
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        import_network(path, PLAIN)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_files_with_other_things_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="there is no file .*nowhere"):
        read_file(tmp_path / "nowhere.pt")
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="not one of torch"):
        read_file(tmp_path / "w.npz")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "w.pt"))
    with pytest.raises(ValueError, match="TorchScript"):
        read_file(tmp_path / "w.pt")
    torch.save(WideResNet(10, 1, 2, 1), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"an object of dualat\.models\.wide_resnet\.WideResNet"):
        import_network(tmp_path / "w.pt", PLAIN)
    save_file({"w": torch.zeros(2)}, tmp_path / "w.safetensors", metadata={"dualat": "{}"})
    with pytest.raises(ValueError, match="model of dualat already"):
        read_file(tmp_path / "w.safetensors")
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"N0" * 10_000_000 + b"N.")  # a bomb
    with pytest.raises(ValueError, match="larger together than the file"):
        read_file(tmp_path / "w.pt")


def nested(depth: int) -> bytes:
    """A torch file in a torch file, and so on."""
    inner = b"N." if depth == 0 else nested(depth - 1) + b"."
    return b"ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(inner)) + inner + b"tR"


def copies(pieces: bytes) -> bytes:
    """One large value, memo 0, and 20,000 calls that copy it."""
    return b"B" + struct.pack("<I", 10**6) + b"x" * 10**6 + b"q\x00" + pieces * 20_000 + b"."


U1 = b"cnumpy\ndtype\n(" + binary("u1") + b"tR"
BOMBS: dict[str, Callable[[], bytes]] = {
    "deep tuple as key": lambda: b"})" + b"\x85" * 1_000_000 + b"K\x01s.",
    "deep list": lambda: b"]" * 1_000_000 + b"a" * 999_999 + b".",
    "copies of a text": lambda: (
        binary("x" * 10**6)
        + b"q\x00"
        + (b"c_codecs\nencode\n(h\x00" + binary("latin1") + b"tR") * 20_000
        + b"."
    ),
    "copies of an array": lambda: copies(
        b"cnumpy.core.numeric\n_frombuffer\n(h\x00" + U1 + b"(J" + struct.pack("<i", 10**6) + b"ttR"
    ),
    "numbers that collide": lambda: (
        b"}("
        + b"".join(b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(200_000))
        + b"u."
    ),
    "endless opcodes": lambda: b"N0" * 3_000_000 + b"N.",
    "files in files": lambda: nested(6) + b".",
    "memo of no number": lambda: b"NpZ\n.",
    "memo beyond reason": lambda: b"Np99999999999999999999\n.",
    "one storage, many weights": lambda: many_weights(),
}


def many_weights() -> bytes:
    """3,000 tensors of 4 MB that share one storage, named as those of a network."""
    stream = io.BytesIO()
    flat = torch.zeros(2**20)
    state = {f"block1.layer.{i}.conv1.weight": flat.view(1024, 1024, 1, 1) for i in range(999)}
    torch.save(state, stream)
    return stream.getvalue()


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_soon_and_small(tmp_path: Path, name):
    path = tmp_path / "w.pkl"
    path.write_bytes(BOMBS[name]())
    start, used = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError) as caught:
        import_network(path, PLAIN)
    assert str(caught.value).startswith(f"{path} cannot be imported: ")
    assert time.process_time() - start < 60
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used) / 2**20  # GiB
    assert grown < 5, f"{name} took {grown:.1f} GiB"
