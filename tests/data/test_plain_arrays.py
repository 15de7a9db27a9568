"""NumPy's files with headers that lie: a sentence, and no memory asked for."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dualat.data.arrays import read_array
from dualat.data.plain_arrays import read_members
from dualat.evaluation.reference import read_reference
from dualat.evaluation.samples import read_samples


def claims(header: str, content: bytes = b"12345678") -> bytes:
    """An .npy file whose header is this text."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def shaped(shape: str, kind: str = "|u1") -> bytes:
    return claims(f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}")


LYING = {
    "8 TiB": shaped("(8796093022208,)"),
    "more than 8 GiB": shaped("(8589934593, 1, 1, 1)"),
    "wide words": shaped("(4000000000,)", "<U9"),
    "less than nothing": shaped("(-1, 4, 4, 3)"),
    "an open bracket": claims("(" * 60),
    "a name": claims("nan"),
    "no header": b"words",
    "nothing": b"",
    "another version": b"\x93NUMPY\x09\x00" + bytes(100),
    "8 TiB in the layout 3.0": shaped("(8796093022208,)").replace(
        b"NUMPY\x01\x00\x76\x00", b"NUMPY\x03\x00\x76\x00\x00\x00"
    ),
    "objects": shaped("(1,)", "|O"),
    "cut off": shaped("(100,)"),
}


def packed(path: Path, name: str, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("name", LYING)
@pytest.mark.parametrize("member", ["arr_0", "mu"])
def test_a_header_that_lies_is_one_sentence_for_every_reader(tmp_path, name, member):
    path = packed(tmp_path / "x.npz", member, LYING[name])
    readers = [read_members, read_array] + [read_samples, read_reference] * (member == "arr_0")
    for read in readers:
        with pytest.raises(ValueError) as refused:
            read(path)
        text = str(refused.value)
        assert text.startswith(str(path)) and text.isprintable() and text.endswith("."), text
        assert len(text) < 300 and "object at" not in text and "Errno" not in text, text
        assert not isinstance(refused.value.__cause__, MemoryError), "memory was asked for"


@pytest.mark.parametrize("place", [5, 22, 26, 30, -20, -4])
def test_damage_anywhere_in_the_archive_is_one_sentence(tmp_path, place):
    stream = io.BytesIO()
    np.savez(stream, arr_0=np.zeros((2, 4, 4, 3), np.uint8))
    content = bytearray(stream.getvalue())
    content[place] ^= 0x20
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    for read in (read_samples, read_array):
        try:
            assert len(read(path)) == 2
        except ValueError as error:
            assert str(error) == f"{path} is damaged or no .npz file: write it anew with numpy.savez."


def test_what_is_whole_is_read_as_it_is(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.ones((2, 2), np.uint8)),
        "c": np.array(3),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        found, names = read_members(tmp_path / "x.npz")
        assert names == list(arrays) and all(np.array_equal(found[k], v) for k, v in arrays.items())
        assert list(read_members(tmp_path / "x.npz", ("b", "z"))[0]) == ["b"]
    np.save(tmp_path / "y.npz", arrays["a"])
    (tmp_path / "y.npz.npy").rename(tmp_path / "y.npz")
    with pytest.raises(ValueError, match="is a single array, and no .npz file: write it anew"):
        read_members(tmp_path / "y.npz")
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(ValueError, match="is an .npz file by its content"):
        read_array(tmp_path / "x.npy")
