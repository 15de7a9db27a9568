"""Lists of names, positions and checksums in text files."""

import hashlib
import os

import numpy as np
import pytest

from dualat.data import checksums
from dualat.data.checksums import read_sums, verify
from dualat.data.names import read_lines, read_positions, select, write_positions


def test_a_line_means_files_by_the_end_of_their_path_or_their_stem(tmp_path):
    names = ["data/val/a/1.jpg", "data/val/b/1.jpg", "data/val/b/2.tar.png", "data/val/b/x1.jpg"]
    path = tmp_path / "list.txt"
    for lines, expected in [
        ("1.jpg", [0, 1]),
        ("1", [0, 1]),
        ("b/1.jpg", [1]),
        ("val/b/1.jpg\n\n  2.tar  ", [1, 2]),
        ("# 1.jpg\nx1", [3]),
    ]:
        path.write_text(lines)
        assert select(names, [str(path)], [], "x").tolist() == expected
        rest = sorted(set(range(4)) - set(expected))
        assert select(names, [], [str(path)], "x").tolist() == rest
    other = tmp_path / "other.txt"
    other.write_text("a/1.jpg")
    path.write_text("1")
    assert select(names, [str(path)], [str(other)], "x").tolist() == [1]
    assert select(names, [str(other), str(path)], [], "x").tolist() == [0, 1]


def test_positions_say_where_they_begin_to_count(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("3\n1\n3\n")
    assert read_positions([f"one-based:{path}"], 5, "x").tolist() == [0, 2]
    assert read_positions([f"zero-based:{path}"], 5, "x").tolist() == [1, 3]
    assert read_positions([f"zero-based:{path}", f"one-based:{path}"], 5, "x").tolist() == [0, 1, 2, 3]
    write_positions(tmp_path / "ours.txt", np.array([4, 0]))
    assert read_positions([str(tmp_path / "ours.txt")], 5, "x").tolist() == [0, 4]
    for text, entry, message in [
        ("1\n", f"{path}", "counts from 0 or 1"),
        ("0\n", f"one-based:{path}", "names image 0"),
        ("5\n", f"zero-based:{path}", "names image 5, but x has 5 images, counted from 0"),
        ("1\ntwo\n", f"zero-based:{path}", "holds 'two'"),
        ("1.5\n", f"zero-based:{path}", "holds '1.5'"),
        ("9" * 30, f"zero-based:{path}", "a number too large"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_positions([entry], 5, "x")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no text"):
        read_lines(path)
    with pytest.raises(FileNotFoundError, match=r"the list .*none.txt does not exist"):
        read_positions([f"one-based:{tmp_path / 'none.txt'}"], 5, "x")


def digest(content: bytes, algorithm: str) -> str:
    return hashlib.new(algorithm, content).hexdigest()


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_checksums_of_every_length(tmp_path, algorithm):
    (tmp_path / "a b.tar").write_bytes(b"right")
    (tmp_path / "b.tar").write_bytes(b"wrong")
    good = digest(b"right", algorithm)
    lines = f"{good}  a b.tar\n{good.upper()} *b.tar\n{algorithm.upper()} (c.tar) = {good}\n"
    (tmp_path / "sums").write_text(lines)
    found = verify(read_sums(tmp_path / "sums"), tmp_path, tmp_path / "state")
    assert (found.right, found.wrong, found.missing) == (["a b.tar"], ["b.tar"], ["c.tar"])


def test_other_lists_of_checksums_are_refused(tmp_path):
    path = tmp_path / "sums"
    for text in ("hello world\n", "abcdef  file\n", "d41d8cd98f00b204e9800998ecf8427e\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match="must have lines CHECKSUM  NAME"):
            read_sums(path)
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="is empty"):
        read_sums(path)


def test_files_that_were_right_are_not_read_again_after_a_kill(tmp_path, monkeypatch):
    sums = {}
    for i in range(4):
        (tmp_path / f"{i}.bin").write_bytes(bytes([i]) * 100)
        sums[f"{i}.bin"] = digest(bytes([i]) * 100, "sha256")
    read, real = [], hashlib.file_digest

    def killed(handle, algorithm):
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(os.path.basename(handle.name))
        return real(handle, algorithm)

    monkeypatch.setattr(checksums.hashlib, "file_digest", killed)
    with pytest.raises(KeyboardInterrupt):
        verify(sums, tmp_path, tmp_path / "state")
    monkeypatch.setattr(
        checksums.hashlib, "file_digest", lambda h, a: (read.append(os.path.basename(h.name)), real(h, a))[1]
    )
    assert verify(sums, tmp_path, tmp_path / "state").right == list(sums)
    assert read == ["0.bin", "1.bin", "2.bin", "3.bin"]
    (tmp_path / "1.bin").write_bytes(b"changed")
    found = verify(sums, tmp_path, tmp_path / "state")
    assert found.wrong == ["1.bin"] and read[4:] == ["1.bin"]
    (tmp_path / "state").write_text("{damaged")
    assert len(verify(sums, tmp_path, tmp_path / "state").right) == 3
