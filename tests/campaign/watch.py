"""What a case does beside reading: files, processes, connections, memory."""

import contextlib
import os
import resource
import sys
from pathlib import Path
from typing import Any

ROOM = 9 * 2**30
"""Address space beyond the libraries' that a case may ask for; a mistake must not take the machine down."""


class Denied(Exception):
    """A case was about to write outside the sandbox, or to start something."""


class Watch:
    """Python's own word of what is written where, and of processes and connections, by its audit hook. What is not inside
    the sandbox is not done: the campaign may run as a user who could."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.allowed: tuple[str, ...] = ()
        self.on = False
        sys.dont_write_bytecode = (
            True  # an import within a case would write beside the package: Python's doing, not the case's
        )
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
                self.note("writes", path)
        elif event in (
            "os.mkdir",
            "os.remove",
            "os.rmdir",
            "os.truncate",
            "os.symlink",
            "os.link",
            "os.chmod",
            "os.rename",
        ):
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                self.note(event, path)
        elif event in (
            "subprocess.Popen",
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "socket.connect",
            "socket.getaddrinfo",
        ):
            self.events.append(f"{event} {arguments[:2]}")
            raise Denied(self.events[-1])

    def note(self, what: str, path: Any) -> None:
        if isinstance(path, int):  # opened already
            return
        with contextlib.suppress(TypeError, ValueError):
            whole = os.path.realpath(os.fsdecode(path))
            if not f"{whole}/".startswith(self.allowed) and (what, whole) != ("writes", os.devnull):
                self.events.append(f"{what} {whole}")
                raise Denied(self.events[-1])


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file below a folder, with what changes when it is written."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(root, name)
            state = os.lstat(path)
            found[path] = (state.st_size, 0 if name in folders else state.st_mtime_ns, state.st_ino)
    return found


def peak() -> int:
    """Most memory since `reset_peak`, in bytes; of the whole process where the system does not say."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as handle:
        return 1024 * int(next(line for line in handle if line.startswith("VmHWM")).split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def reset_peak() -> int:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as handle:
        handle.write("5")
    return peak()


def out_of_memory(error: BaseException | None) -> str | None:
    """Whether an error comes from a lack of memory: a machine with more of it would have swapped or killed."""
    while error is not None:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            return f"asks for more than {ROOM / 2**30:.0f} GiB"
        error = error.__cause__ or error.__context__
    return None


def where(error: BaseException) -> str:
    """The last line of the package that an error went through."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if "dualat" in path and "tests" not in path:
            place = f"{path.rpartition('/dualat/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def limit_memory() -> None:
    with open("/proc/self/status") as handle:
        size = 1024 * int(next(line for line in handle if line.startswith("VmSize")).split()[1])
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
