"""Checkpoints: whatever of the files is damaged, a run goes on from the newest whole state and says so."""

import json
import struct
import warnings
from pathlib import Path

import pytest
import torch

from dualat.system.files import sha256
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


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    weights = {"w": weight.detach()}
    save_state(
        tmp_path,
        TrainingState(1, 7, weights, weights, 7, optimizer.state_dict(), {"T": 3}, {"a": 0.5}, {}, {"T": 2}),
    )
    return tmp_path


def rewrite(folder: Path, change) -> None:
    """The state's JSON changed, in a file that is whole and rightly listed."""
    path = next(folder.glob("state-*"))
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    state = json.loads(header["__metadata__"]["state"])
    header["__metadata__"]["state"] = change if isinstance(change, str) else json.dumps(change(state))
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    listed = {"generations": [{"file": path.name, "sha256": sha256(path)}]}
    (folder / "latest.json").write_text(json.dumps(listed))


def test_what_is_saved_is_loaded(trained):
    rewrite(trained, lambda state: state)
    state = load_state(trained)
    assert state is not None and (state.stage, state.step, state.best, state.pending) == (
        1,
        7,
        {"a": 0.5},
        {"T": 2},
    )
    assert type(state.pending["T"]) is int and state.method == {"T": 3}
    assert set(state.optimizer["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


def test_a_state_of_earlier_versions_is_read(trained):
    rewrite(trained, lambda state: {"owed" if k == "pending" else k: v for k, v in state.items()})
    assert load_state(trained).pending == {"T": 2}


@pytest.mark.parametrize(
    "change",
    [
        "[" * 3000,
        "3",
        "{}",
        lambda state: state | {"new": 1},
        lambda state: {k: v for k, v in state.items() if k != "stage"},
        lambda state: state | {"stage": "1"},
        lambda state: state | {"step": -1},
        lambda state: state | {"step": 2**64},
        lambda state: state | {"ema_updates": None},
        lambda state: state | {"best": [1]},
        lambda state: state | {"pending": {"loss": "x"}},
        lambda state: state | {"method": 0},
        lambda state: state | {"optimizer": []},
        lambda state: state | {"optimizer": {"scalars": {"z.step": 1}, "groups": []}},
        lambda state: state | {"optimizer": {"scalars": {}, "groups": [3]}},
    ],
)
def test_wrong_content_is_one_sentence(trained, change):
    rewrite(trained, change)
    with pytest.raises(
        ValueError, match=r"no checkpoint can be read \(.*safetensors is damaged, or no state of a run\)"
    ):
        load_state(trained)
