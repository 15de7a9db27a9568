"""The examples run as a reader would run them."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run_example(monkeypatch, capsys):
    """Run an example as `python examples/NAME ARGUMENTS` does, in this process; gives what it prints."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLES / name), *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_own_folder_then_use_the_model(tmp_path, run_example):
    printed = run_example("own_folder.py", str(tmp_path), "--steps", "3")
    assert "30 samples of the classes 0, 1, 2" in printed
    assert (tmp_path / "run" / "samples" / "mine.png").is_file()

    printed = run_example("use_a_model.py", str(tmp_path / "run"))
    assert "under attack" in printed and "counterfactuals" in printed
    assert (tmp_path / "run" / "samples" / "use_a_model.png").is_file()


def test_examples_stay_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert len(lengths) == 4 and max(lengths.values()) <= 60, lengths
