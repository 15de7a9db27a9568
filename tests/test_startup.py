"""Starting up is quick: configuration and help wait for neither torch nor timm."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def test_configuration_imports_neither_torch_nor_timm():
    code = "import sys, dualat.config; print(*sorted({'torch', 'timm'} & set(sys.modules)))"
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "", f"dualat.config imports {result.stdout.strip()}."


SLOW = {"torch", "timm", "numpy", "PIL", "rich"}
"""What no help waits for."""


@pytest.mark.parametrize(
    ("args", "without"),
    [
        ([], {"tyro", "pydantic", "yaml", "importlib.metadata"}),
        (["--help"], {"tyro", "pydantic", "yaml", "importlib.metadata"}),
        (["train", "--help"], {"tyro"}),
        (["plan"], {"tyro"}),
        (["recipes"], set()),
        (["sample", "--help"], set()),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_help_imports_nothing_that_it_can_do_without(args: list[str], without: set[str]):
    code = (
        "import contextlib, io, sys\n"
        "from dualat.cli.main import run\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    run({args})\n"
        f"print(*sorted({SLOW | without} & set(sys.modules)))"
    )
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    found = result.stdout.split()
    assert not found, f"dualat {' '.join(args)} imports {found}."


def test_help_takes_half_a_second_of_a_core():
    """Processor time, not the clock's: other work on the machine is not our fault."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = run(str(Path(sys.executable).with_name("dualat")), "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert result.returncode == 0, result.stderr
        assert "train" in result.stdout
    assert min(seconds) < 0.5, f"dualat --help took {min(seconds):.2f} s at best."


def test_public_names_are_what_they_say_whatever_was_imported_before():
    code = (
        "import importlib, dualat\n"
        "for module in sorted(set(dualat._HOME.values())): importlib.import_module(f'dualat.{module}')\n"
        "print(*[n for n in dualat.__all__ if n != '__version__' and not callable(getattr(dualat, n))])"
    )
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""


def test_a_reader_that_has_had_enough_is_no_error():
    command = f"{sys.executable} -m dualat import-weights --help"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"], capture_output=True, text=True, timeout=60
    )
    assert not done.stderr
