"""Trackers: what is logged stands in metrics.jsonl and in TensorBoard's files, and what cannot be started says why."""

import json
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dualat.training.tracking import Tracker


def test_figures_are_in_both_files(tmp_path):
    tracker = Tracker(tmp_path, ("tensorboard",), {"seed": 0, "method": "dat"})
    tracker.log(1, 10, {"loss": 0.5})
    tracker.log(1, 20, {"loss": 0.25})
    tracker.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"stage": 1, "step": 10, "loss": 0.5}, {"stage": 1, "step": 20, "loss": 0.25}]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("stage1/loss")] == [(10, 0.5), (20, 0.25)]


def test_no_tracker_leaves_one_file(tmp_path):
    tracker = Tracker(tmp_path, (), {})
    tracker.log(1, 10, {"loss": 0.5})
    tracker.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_other_trackers_need_the_extra_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ValueError, match=r"tracking.trackers is wandb, .* 'dualat\[trackers\]'"):
        Tracker(tmp_path, ("tensorboard", "wandb"), {})
    assert not list(tmp_path.iterdir())


def test_a_resumed_run_leaves_out_lines_that_are_none(tmp_path):
    whole = json.dumps({"stage": 1, "step": 10, "loss": 0.5})
    damaged = [
        '{"stage": 1}',
        "3",
        "[1]",
        '{"stage": "x", "step": 1}',
        '{"stage": 1, "step": [2]}',
        "[" * 3000,
        '{"st',
    ]
    later = json.dumps({"stage": 1, "step": 20, "loss": 0.1})
    lines = "\n".join([whole, *damaged, later]).encode() + b"\n\xff\xfe{\n" + whole.encode()
    (tmp_path / "metrics.jsonl").write_bytes(lines)
    Tracker(tmp_path, (), {}).rewind(1, 10)
    assert (tmp_path / "metrics.jsonl").read_text() == f"{whole}\n{whole}\n"
