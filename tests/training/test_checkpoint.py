"""A state file with its right checksum and wrong content: one sentence, whatever is wrong in it."""

import json
import struct
from pathlib import Path

import pytest
import torch

from dualat.system.files import sha256
from dualat.training.checkpoint import TrainingState, load_state, save_state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
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


def test_what_is_saved_is_loaded(folder):
    rewrite(folder, lambda state: state)
    state = load_state(folder)
    assert state is not None and (state.stage, state.step, state.best, state.owed) == (
        1,
        7,
        {"a": 0.5},
        {"T": 2},
    )
    assert type(state.owed["T"]) is int and state.method == {"T": 3}
    assert set(state.optimizer["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


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
        lambda state: state | {"ema_updates": None},
        lambda state: state | {"best": [1]},
        lambda state: state | {"owed": {"loss": "x"}},
        lambda state: state | {"method": 0},
        lambda state: state | {"optimizer": []},
        lambda state: state | {"optimizer": {"scalars": {"z.step": 1}, "groups": []}},
        lambda state: state | {"optimizer": {"scalars": {}, "groups": [3]}},
    ],
)
def test_wrong_content_is_one_sentence(folder, change):
    rewrite(folder, change)
    with pytest.raises(
        ValueError, match=r"no checkpoint can be read \(.*safetensors is damaged, or no state of a run\)"
    ):
        load_state(folder)


def test_a_name_that_no_file_can_have_is_one_sentence(folder):
    (folder / "latest.json").write_text(json.dumps({"generations": [{"file": "x" * 300, "sha256": "0"}]}))
    with pytest.raises(ValueError, match="no checkpoint can be read") as refused:
        load_state(folder)
    assert "Errno" not in str(refused.value)
