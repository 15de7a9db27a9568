"""Starting up is quick: configuration and help wait for neither torch nor timm."""

import subprocess
import sys
import time
from pathlib import Path


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def test_configuration_imports_neither_torch_nor_timm():
    code = "import sys, dualat.config; print(*sorted({'torch', 'timm'} & set(sys.modules)))"
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "", f"dualat.config imports {result.stdout.strip()}."


def test_help_answers_within_a_second():
    seconds = []
    for _ in range(3):  # the best of three: other work on the machine is not our fault
        start = time.perf_counter()
        result = run(str(Path(sys.executable).with_name("dualat")), "--help")
        seconds.append(time.perf_counter() - start)
        assert result.returncode == 0, result.stderr
        assert "train" in result.stdout
    assert min(seconds) < 1, f"dualat --help took {min(seconds):.2f} s at best."


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
