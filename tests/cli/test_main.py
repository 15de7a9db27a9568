"""The entry point: terminals that lack characters, Ctrl-C at any time, and too little memory."""

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dualat.cli import main

WITH_COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored, as nohup and & do
import dualat.cli
from dualat.cli import main
sys.path.append(sys.argv[1])
dualat.cli.__path__.append(sys.argv[1])
main.COMMANDS["slow"] = "takes long"
main.main(["slow"])
"""
IMPORTED = "print('ready', flush=True)\nimport time\ntime.sleep(60)\n"
CALLED = "def main(args):\n" + "".join(f" {line}\n" for line in IMPORTED.splitlines())
TURNED = "try:\n import inner\nexcept BaseException:\n raise ImportError('it was interrupted') from None\n"


@pytest.mark.parametrize(
    "text", [IMPORTED, CALLED, TURNED], ids=["imported", "called", "turned into another error"]
)
def test_ctrl_c_is_one_line_while_python_imports_too(tmp_path: Path, text):
    """PyTorch, interrupted while it is imported, aborts the process."""
    (tmp_path / "slow.py").write_text(text)
    (tmp_path / "inner.py").write_text(IMPORTED)
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_COMMAND, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (1, "dualat: interrupted.\n")


@pytest.mark.parametrize(
    "args", [["compare", "--published", "cifar10"], ["recipes", "mine.yaml"]], ids=lambda a: a[0]
)
def test_an_ascii_terminal_is_no_error(args, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("# größer\n", encoding="utf-8")
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own stays
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(SystemExit) as stop:
        main.main(args)
    sys.stdout.flush()
    assert stop.value.code == 0 and b"?" in written.getvalue()


@pytest.mark.parametrize("shape", [(2**50,), (2**62, 2**10)], ids=str)
def test_too_little_memory_is_one_sentence(shape, monkeypatch, capsys):
    monkeypatch.setattr("dualat.cli.recipes.main", lambda args: torch.empty(*shape))
    assert main.run(["recipes"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("dualat: there is not enough memory for this (") and error.count("\n") == 1


def test_other_errors_stay_what_they_are(monkeypatch):
    """They are ours to mend."""

    def fails(args):
        raise RuntimeError("a bug")

    monkeypatch.setattr("dualat.cli.recipes.main", fails)
    with pytest.raises(RuntimeError, match="a bug"):
        main.run(["recipes"])


def test_a_home_that_is_none_is_one_sentence(capsys):
    assert main.run(["data", "prepare", "images", "~no-such-user/pictures"]) == 1
    assert capsys.readouterr().err.startswith("dualat: a path begins with ~, but that user has no home here")
