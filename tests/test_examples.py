"""The examples run as a reader would run them."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_example(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_folder_then_use_the_model(tmp_path):
    printed = run_example("own_folder.py", str(tmp_path), "--steps", "3")
    assert "30 samples of the classes 0, 1, 2" in printed
    assert (tmp_path / "run" / "samples" / "mine.png").is_file()

    printed = run_example("use_a_model.py", str(tmp_path / "run"))
    assert "under attack" in printed and "counterfactuals" in printed
    assert (tmp_path / "run" / "samples" / "use_a_model.png").is_file()


def test_examples_stay_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert len(lengths) == 4 and max(lengths.values()) <= 60, lengths
