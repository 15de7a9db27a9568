"""The campaign's cases: broken or odd inputs over all readers, each made from (SEED, CASE) alone.

    python tests/campaign/campaign.py --seed 0 --case 17            one case again; its input stays in ./case-17
    python tests/campaign/campaign.py --seed 0 --first 0 --last 500 a stretch of cases, one JSON line each

An input passes if its reader takes it, or refuses it with one short sentence; within 30 seconds, with less than 2 GB of
memory, and without a write outside its own output folder, another process or a connection.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from verdict import wrong_error

SHARES = {
    **{
        "picture": 1050,
        "folder": 500,
        "shards": 450,
        "index": 100,
        "samples": 650,
        "statistics": 250,
        "array": 400,
        "idx": 300,
        "cifar": 400,
    },
    **{"model": 750, "state": 400, "resume": 50, "foreign": 1000},
    **{
        "recipe": 650,
        "study": 250,
        "records": 450,
        "comparison": 350,
        "report": 250,
        "progress": 150,
        "measured": 100,
    },
    **{"lists": 400, "command": 1070, "process": 30},
}
"""Cases of each reader among 10,000."""
SECONDS, MEMORY = 30, 2 * 2**30
ROOM = 6 * 2**30
"""Address space beyond the libraries' that a case may ask for; a mistake must not take the machine down."""
QUICK_LEAVES_OUT = ("resume", "process")
Maker = Callable[[random.Random, Path], tuple[str, Callable[[], object]]]


def readers_of(seed: int, quick: bool) -> list[str]:
    """Which reader each case is for."""
    names = [n for n, share in SHARES.items() for _ in range(share) if not quick or n not in QUICK_LEAVES_OUT]
    random.Random(seed).shuffle(names)
    return names


def makers() -> dict[str, Maker]:
    """What makes the cases of each reader: the function of its name."""
    import command_lines
    import images_broken
    import models_broken
    import texts_broken

    made: dict[str, Maker] = {}
    for module in (command_lines, images_broken, models_broken, texts_broken):
        made |= {
            n: f
            for n in SHARES
            if getattr(f := getattr(module, n, None), "__module__", "") == module.__name__
        }
    return made


class Denied(Exception):
    """A case was about to write outside the sandbox, or to start something."""


class Watch:
    """Python's own word of what is written where, and of processes and connections, by its audit hook. What is not inside
    the sandbox is not done: the campaign may run as a user who could."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.allowed: tuple[str, ...] = ()
        self.on = False
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


class Cases:
    """Runs cases in a sandbox: HOME, the cache and the working folder lie inside it."""

    def __init__(self, root: Path, seed: int, names: list[str], makers: dict[str, Maker]):
        self.root, self.seed, self.names, self.makers = root, seed, names, makers
        self.seconds, self.memory = SECONDS, MEMORY
        self.places = {name: root / name for name in ("home", "cache", "tmp", "case")}
        for place in self.places.values():
            place.mkdir(parents=True, exist_ok=True)
        os.environ |= {
            "HOME": str(root / "home"),
            "DUALAT_CACHE": str(root / "cache"),
            "TMPDIR": str(root / "tmp"),
        }
        os.environ |= {
            "XDG_CACHE_HOME": str(root / "cache"),
            "MPLCONFIGDIR": str(root / "cache"),
            "HF_HUB_OFFLINE": "1",
        }
        tempfile.tempdir = None
        os.chdir(root / "home")
        self.watch = Watch()
        warnings.simplefilter("always")
        warnings.showwarning = lambda *_, **__: None

    def make(self, case: int, place: Path) -> tuple[str, Callable[[], object]]:
        """Write a case's input below place/in; words for it, and what reads it."""
        for name in ("in", "out"):
            (place / name).mkdir(parents=True)
        return self.makers[self.names[case]](random.Random(f"{self.seed}/{case}"), place / "in")

    def attempt(self, case: int) -> dict[str, Any]:
        """Run a case; a JSON object with what came of it."""
        place, name = self.places["case"], self.names[case]
        shutil.rmtree(place, ignore_errors=True)
        words, read = self.make(case, place)
        before = snapshot(self.root)
        result: dict[str, Any] = {"case": case, "reader": name, "input": words}
        problem, told = None, ""
        faulthandler.dump_traceback_later(self.seconds, exit=True)
        began, least = time.monotonic(), reset_peak()
        with self.listening(name != "process"):
            try:
                outcome = read()
                problem = outcome if isinstance(outcome, str) and name in ("command", "process") else None
            except Exception as error:
                told, problem = f"{type(error).__name__}: {error}"[:1000], wrong_error(error, place)
                problem = problem or out_of_memory(error)
                if problem:
                    problem += f" ({where(error)})"
        result |= {"seconds": round(time.monotonic() - began, 3), "memory": peak() - least, "told": told}
        faulthandler.cancel_dump_traceback_later()
        if result["memory"] > self.memory:
            problem = problem or f"{result['memory'] / 2**30:.1f} GiB of memory"
        problem = next(iter(self.watch.events), None) or problem or self.touched(before, words)
        result["outcome"] = "failed" if problem else "refused" if told else "taken"
        return result | ({"problem": problem} if problem else {})

    @contextlib.contextmanager
    def listening(self, on: bool) -> Iterator[None]:
        self.watch.events.clear()
        self.watch.allowed = tuple(f"{self.root / name}/" for name in ("cache", "case", "tmp"))
        self.watch.on = on
        try:
            yield
        finally:
            self.watch.on = False

    def touched(self, before: dict[str, tuple[int, int, int]], words: str) -> str | None:
        """A file that was written outside the output folder and the cache, or left half written; None where there is none."""
        after, out = snapshot(self.root), str(self.places["case"] / "out")
        changed = [path for path in {**before, **after} if before.get(path) != after.get(path)]
        for path in changed:
            if path in after and path.endswith(".partial"):
                return f"left {path}"
            inside = path.startswith((out, str(self.places["cache"])))
            if not inside and not self.may_change(path, words):
                return f"touched {path}"
        return None

    def may_change(self, path: str, words: str) -> bool:
        """Files beside a command's input that its help names, and those that the command line names itself."""
        name = os.path.basename(path)
        documented = (".dualat-index", "report.html", "evaluation.json", "counterfactuals", ".right.json")
        if any(part in path for part in documented) or self.names_run(path, words):
            return True
        return f"/{name}'" in words or f"'{name}'" in words

    def names_run(self, path: str, words: str) -> bool:
        return ("/in/run/" in path and "'--output', '../in/run'" in words) or (
            "/in/" in path and "=../in/" in words
        )


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


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, kind in (("seed", int), ("case", int), ("first", int), ("last", int), ("only", str)):
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--quick", action="store_true", help="leave out the readers that take long")
    parser.add_argument("--self-test", action="store_true", help="run the cases whose outcome is known")
    arguments = parser.parse_args()
    seed, here = arguments.seed or 0, Path.cwd()
    lines = os.fdopen(os.dup(1), "w")  # what the cases print does not get between the lines
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as root:
        cases = sandbox(Path(root).resolve(), seed, arguments.quick, arguments.self_test)
        with contextlib.suppress(OSError, StopIteration):
            limit_memory()
        numbers = range(arguments.first or 0, arguments.last or len(cases.names))
        if arguments.case is not None:
            numbers = [arguments.case]
            shutil.rmtree(here / f"case-{arguments.case}", ignore_errors=True)
            cases.make(arguments.case, here / f"case-{arguments.case}")
        for case in numbers:
            if arguments.only and cases.names[case] not in arguments.only.split(","):
                continue
            print(json.dumps({"case": case, "reader": cases.names[case]}), file=lines, flush=True)
            print(json.dumps(cases.attempt(case)), file=lines, flush=True)
        os.chdir(here)
    return 0


def sandbox(root: Path, seed: int, quick: bool, self_test: bool) -> Cases:
    """The campaign's cases, or those whose outcome is known, with limits that they reach soon."""
    import known

    if not self_test:
        return Cases(root, seed, readers_of(seed, quick), makers())
    cases = Cases(root, seed, list(known.CASES), {name: known.maker(name) for name in known.CASES})
    cases.seconds, cases.memory = 10, 2**27
    return cases


if __name__ == "__main__":
    sys.exit(main())
