"""Checkpoints: whatever of the files is damaged, a run goes on from the newest whole state and says so."""

import json
import warnings
from pathlib import Path

import pytest
import torch

from dualat.training.checkpoint import INDEX, TrainingState, load_state, save_state
from dualat.training.divergence import read_outcome
from dualat.training.tracking import Tracker


def state(step: int, stage: int = 1) -> TrainingState:
    weights = {"w": torch.full((2,), float(step))}
    optimizer = {"state": {0: {"step": 1.0, "momentum": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    return TrainingState(stage, step, weights, weights, step, optimizer, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (3, 6, 9):
        save_state(tmp_path, state(step))
    return tmp_path


def step_of(folder: Path) -> int:
    found = load_state(folder)
    assert found is not None and torch.equal(found.model["w"], torch.full((2,), float(found.step)))
    return found.step


DAMAGE = [
    b"{",
    b"",
    b"[]",
    b"5",
    b"{}",
    b'{"generations": [1]}',
    b'{"generations": []}',
    b"\xff",
    b"[" * 10**5,
    b'{"generations": [{"file": "../x", "sha256": "y"}]}',
]


@pytest.mark.parametrize("content", DAMAGE, ids=lambda c: repr(c[:20]))
def test_a_damaged_list_leads_to_the_newest_whole_state(folder: Path, content):
    """Its advice was to wipe what lay beside it."""
    (folder / INDEX).write_bytes(content)
    with pytest.warns(
        UserWarning, match=r"latest\.json is damaged or missing: resuming from state-1-00000009"
    ):
        assert step_of(folder) == 9
    (folder / "state-1-00000009.safetensors").write_bytes(b"cut")
    with pytest.warns(UserWarning, match="resuming from state-1-00000006"):
        assert step_of(folder) == 6
    save_state(folder, state(12))  # a run that goes on mends the list, and keeps two
    assert [g["file"] for g in json.loads((folder / INDEX).read_text())["generations"]] == [
        "state-1-00000012.safetensors",
        "state-1-00000006.safetensors",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert step_of(folder) == 12


def test_a_list_that_is_gone_loses_nothing(folder: Path):
    """The run began anew, and removed what was there at its first checkpoint."""
    (folder / INDEX).unlink()
    with pytest.warns(UserWarning, match="is damaged or missing"):
        assert step_of(folder) == 9


def test_states_are_newest_by_stage_and_step(folder: Path):
    save_state(folder, state(2, stage=2))
    (folder / INDEX).unlink()
    with pytest.warns(UserWarning, match="state-2-00000002"):
        assert step_of(folder) == 2


def test_a_stranger_among_the_states_is_left_alone(folder: Path):
    (folder / "state-mine.safetensors").write_text("mine")
    save_state(folder, state(12))
    assert (folder / "state-mine.safetensors").read_text() == "mine"
    assert sorted(p.name for p in folder.glob("state-1*")) == [
        f"state-1-{step:08d}.safetensors" for step in (9, 12)
    ]


def test_nothing_whole_is_one_sentence(folder: Path):
    for path in folder.glob("state-*"):
        path.write_bytes(b"cut")
    with pytest.raises(ValueError, match="no checkpoint can be read"):
        load_state(folder)
    for path in folder.iterdir():
        path.unlink()
    assert load_state(folder) is None


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"outcome": "running"}', "\xff", "3"])
def test_a_damaged_outcome_is_one_sentence(tmp_path: Path, content):
    (tmp_path / "outcome.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"outcome\.json is damaged: remove it"):
        read_outcome(tmp_path)


def test_lines_that_are_none_are_dropped_when_a_run_goes_on(tmp_path: Path):
    lines = [
        '{"stage": 1, "step": 2}',
        "5",
        "[]",
        "{}",
        '{"stage": "x", "step": 1}',
        "\xff",
        '{"stage": 1, "st',
    ]
    (tmp_path / "metrics.jsonl").write_bytes("\n".join(lines).encode("latin-1"))
    Tracker(tmp_path, (), {}).rewind(1, 5)
    assert (tmp_path / "metrics.jsonl").read_text() == lines[0] + "\n"
