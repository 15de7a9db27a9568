"""Locks between processes. The operating system holds them, so that a process that is killed leaves none behind.

A lock is a file that is there while it is held. Readers need none: every file is written whole (files.py).
"""

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NONE_TO_BE_HAD = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What file systems say that know no locks, network disks among them."""
_HELD: set[int] = set()
"""Open lock files of this process."""


class Held(ValueError):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Inside, no other process that asks for it holds the lock `path`, a file in an existing folder.

    Where the disk knows no locks, a warning says so, and nothing is locked.

    Args:
        what: what is locked, for a message.
        wait: until another process gives it up.

    Raises:
        Held: another process has it, and `wait` is False.
        OSError: the file cannot be made.
    """
    handle = _take(path, what, wait)
    try:
        yield
    finally:
        if handle in _HELD:
            _HELD.discard(handle)
            with suppress(OSError):
                path.unlink()  # before it is given up: who waits for this file sees that it is another one now
            os.close(handle)


def check_free(path: Path, what: str) -> None:
    """Raise Held where another process has the lock now."""
    if fcntl is None or not path.is_file():
        return
    with suppress(OSError), open(path, "rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(_sentence(handle.fileno(), what)) from None


def _take(path: Path, what: str, wait: bool) -> int | None:
    """The open lock file; None where there are no locks."""
    while True:
        handle = os.open(
            path, os.O_RDWR | os.O_CREAT, 0o666
        )  # programs that are started from here do not get it
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "this system has none that dualat knows")
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is(path, handle):
                break
            os.close(handle)  # its holder has given it up and removed the file
        except BlockingIOError:
            text = _sentence(handle, what)
            os.close(handle)
            raise Held(text) from None
        except OSError as error:
            os.close(handle)
            if error.errno not in _NONE_TO_BE_HAD:
                raise
            warnings.warn(
                f"{path.parent} cannot be locked ({error.strerror}): see to it that no other process writes {what}.",
                stacklevel=3,
            )
            return None
    _HELD.add(handle)
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return handle


def _is(path: Path, handle: int) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _sentence(handle: int, what: str) -> str:
    """What is locked, and by whom as far as the file tells."""
    holder = ""
    with suppress(OSError):
        holder = os.pread(handle, 200, 0).decode("utf-8", "replace").strip()
    return f"{what} is in use by {holder or 'another process'}: wait until it has ended."


def _after_fork() -> None:
    """A forked process has the same open files: it closes them, or it would hold the lock beyond its parent's end."""
    while _HELD:
        os.close(_HELD.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
