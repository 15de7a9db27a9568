"""Locks: one process at a time, nothing left behind by a kill, nothing kept by children."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dualat.system.lock import Held, check_free, locked

HOLD = "import sys, time, pathlib; from dualat.system.lock import locked\nwith locked(pathlib.Path(sys.argv[1]), 'it'):\n print('held', flush=True); time.sleep(60)"


def holder(path: Path, code: str = HOLD) -> subprocess.Popen[str]:
    """Another process that has the lock."""
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_is_first_and_a_kill_leaves_no_lock(tmp_path: Path):
    process = holder(tmp_path / "lock")
    try:
        for ask in (
            locked(tmp_path / "lock", "the run in x").__enter__,
            lambda: check_free(tmp_path / "lock", "the run in x"),
        ):
            with pytest.raises(
                Held,
                match=rf"^the run in x is in use by process {process.pid} on .*: wait until it has ended\.$",
            ):
                ask()
    finally:
        process.kill()
        process.wait()
    check_free(tmp_path / "lock", "it")
    with locked(tmp_path / "lock", "it"):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} ")
    assert not list(tmp_path.iterdir())


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(tmp_path: Path):
    code = (
        "import os, sys, time, pathlib, subprocess; from dualat.system.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 'it'):\n"
        " forked = os.fork()\n"
        " if not forked: time.sleep(60); os._exit(0)\n"
        " started = subprocess.Popen(['sleep', '60'], close_fds=False, stdout=subprocess.DEVNULL)\n"
        " print('held', forked, started.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    children = [int(pid) for pid in process.stdout.readline().split()[1:]]
    try:
        with pytest.raises(Held):
            check_free(tmp_path / "lock", "it")
        process.kill()
        process.wait()
        with locked(tmp_path / "lock", "it"):
            pass
    finally:
        process.kill()
        for pid in children:
            os.kill(pid, signal.SIGKILL)


def test_two_in_one_process_exclude_each_other_and_who_waits_gets_it(tmp_path: Path):
    with (
        locked(tmp_path / "lock", "it"),
        pytest.raises(Held, match=f"process {os.getpid()} "),
        locked(tmp_path / "lock", "it"),
    ):
        pass
    process = holder(tmp_path / "lock", HOLD.replace("sleep(60)", "sleep(0.3)"))
    began = time.monotonic()
    with locked(tmp_path / "lock", "it", wait=True):
        assert 0 < time.monotonic() - began < 10 and (tmp_path / "lock").is_file()
        with pytest.raises(Held):
            check_free(tmp_path / "lock", "it")
    process.wait()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_the_disk_knows_no_locks_a_warning_says_so(tmp_path: Path, monkeypatch, number):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    told = pytest.warns(
        UserWarning, match=r"cannot be locked \(.*\): see to it that no other process writes it"
    )
    with told, locked(tmp_path / "lock", "it"):
        done = True
    assert done
    check_free(tmp_path / "lock", "it")
