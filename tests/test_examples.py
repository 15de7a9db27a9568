"""The examples run as a reader would run them."""

import os
import re
import runpy
import subprocess
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


@pytest.mark.slow
def test_own_folder_then_use_the_model(tmp_path, run_example):
    printed = run_example("own_folder.py", str(tmp_path), "--steps", "3")
    assert "30 samples of the classes 0, 1, 2" in printed
    assert (tmp_path / "run" / "samples" / "mine.png").is_file()

    printed = run_example("use_a_model.py", str(tmp_path / "run"))
    assert "under attack" in printed and "counterfactuals" in printed
    assert (tmp_path / "run" / "samples" / "use_a_model.png").is_file()


def test_own_model_and_data(tmp_path, run_example):
    printed = run_example("own_model_and_data.py", "--output", str(tmp_path / "run"), "--steps", "3")
    assert "clean_accuracy" in printed and "frechet_distance" in printed and "10 samples" in printed
    assert "saved, loaded and sampled again: (2, 1, 8, 8)" in printed
    assert (tmp_path / "run" / "mine.safetensors").is_file()


def test_examples_stay_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert len(lengths) == 5 and max(lengths.values()) <= 60, lengths


def test_the_slurm_script_gives_processes_the_time_that_slurm_gives(tmp_path):
    """Run with stand-ins for SLURM's commands and torchrun, which writes down how it was started."""
    programs = {
        "srun": 'exec "$@"',
        "scontrol": 'if [ "$1" = show ]; then echo first; echo second; else echo "$@" >>requeued; fi',
        "torchrun": 'echo "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT $@" >started; mkdir -p runs/digits/checkpoints; sleep 0.05; '
        "touch runs/digits/checkpoints/latest.json; exit 1",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "x",
        "SLURM_NNODES": "2",
        "SLURM_JOB_ID": "7",
    }
    script = EXAMPLES / "slurm.sh"
    command = ["bash", str(script), "digits", "--seed", "1"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    patience, options = (tmp_path / "started").read_text().split(maxsplit=1)
    signalled = re.search(r"^#SBATCH --signal=TERM@(\d+)$", script.read_text(), re.MULTILINE)
    assert signalled is not None and 60 <= int(patience) < int(signalled[1])
    assert "--nnodes 2" in options and "--rdzv-endpoint first:29500" in options
    assert options.endswith("-m dualat train digits --output runs/digits --resume --seed 1\n")
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
