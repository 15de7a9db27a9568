"""The campaign's cases: broken or odd inputs over all readers, each made from (SEED, CASE) alone.

    python tests/campaign/campaign.py --seed 0 --case 17            one case again; its input stays in ./case-17
    python tests/campaign/campaign.py --seed 0 --first 0 --last 500 a stretch of cases, one JSON line each

An input passes if its reader takes it, or refuses it with one short sentence; within 30 seconds of the processor, with less
than 2 GB of memory, and without a write outside its own output folder, another process or a connection.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from verdict import wrong_error
from watch import Watch, limit_memory, out_of_memory, peak, reset_peak, snapshot, where

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
SECONDS, WAITS, MEMORY = 30, 10, 2 * 2**30
QUICK_LEAVES_OUT = ("resume", "process")
Maker = Callable[[random.Random, Path], tuple[str, Callable[[], object]]]


def readers_of(seed: int, quick: bool) -> list[str]:
    """Which reader each case is for."""
    names = [n for n, share in SHARES.items() for _ in range(share) if not quick or n not in QUICK_LEAVES_OUT]
    random.Random(seed).shuffle(names)
    return names


def makers() -> dict[str, Maker]:
    """What makes the cases of each reader: the function of its name."""
    import arrays_broken
    import command_lines
    import images_broken
    import models_broken
    import texts_broken

    made: dict[str, Maker] = {}
    for module in (arrays_broken, command_lines, images_broken, models_broken, texts_broken):
        made |= {
            n: f
            for n in SHARES
            if getattr(f := getattr(module, n, None), "__module__", "") == module.__name__
        }
    return made


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
        faulthandler.register(signal.SIGPROF, chain=True)  # tells where, then ends the process
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
        signal.setitimer(
            signal.ITIMER_PROF, self.seconds
        )  # of the processor: others may be at work beside it
        faulthandler.dump_traceback_later(WAITS * self.seconds, exit=True)
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
        signal.setitimer(signal.ITIMER_PROF, 0)
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
        documented = [".dualat-index", "report.html", "evaluation.json", "counterfactuals", ".right.json"]
        if any(part in path for part in documented):
            return True
        inside = os.path.relpath(path, self.places["case"] / "out")
        named = re.findall(r"['=]([^'=]*)'", words)
        return any(
            inside == n or inside.startswith(f"{n}/") or n.startswith(f"{inside}/")
            for n in named
            if ".." in n
        )


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
    cases.seconds, cases.memory = 1, 2**27
    return cases


if __name__ == "__main__":
    sys.exit(main())
