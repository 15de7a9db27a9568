"""Files are written whole beside their place and put there by one rename: what that must not replace."""

import os

import pytest

from dualat.system.files import write_text


def test_a_pipe_or_a_device_is_never_replaced(tmp_path):
    # as root, --output /dev/null put an ordinary file in the place of the device
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="cannot write .*pipe: it is a device or a pipe, not a file"):
        write_text(tmp_path / "pipe", "x")
    assert not (tmp_path / "pipe").is_file() and os.listdir(tmp_path) == ["pipe"]


def test_a_link_stays_a_link_and_its_file_is_written(tmp_path):
    # /dev/stdout is a link
    (tmp_path / "far").mkdir()
    (tmp_path / "link.json").symlink_to("far/real.json")
    for text in ("one", "two"):
        write_text(tmp_path / "link.json", text)
        assert (tmp_path / "link.json").is_symlink() and (tmp_path / "far" / "real.json").read_text() == text
    assert os.listdir(tmp_path / "far") == ["real.json"]
