"""A run stopped at any step and resumed ends with the same weights, bit for bit, as one never stopped."""

import importlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import forked
import pytest
import torch
import yaml
from safetensors.torch import load_file

import dualat
from dualat.config import is_used, load_recipe
from dualat.methods.registry import METHODS
from dualat.training import loop
from dualat.training import step as training_step
from dualat.training.checkpoint import load_state, save_state
from dualat.training.divergence import read_outcome


def same_weights(a: Path, b: Path) -> bool:
    """Every tensor of two runs' models, and of those of their earlier stages, is equal, bit for bit."""
    names = [{str(p.relative_to(run)) for p in run.glob("checkpoints/stage*.safetensors")} for run in (a, b)]
    assert names[0] == names[1]
    for name in ("model.safetensors", *names[0]):
        first, second = load_file(a / name), load_file(b / name)
        if first.keys() != second.keys() or not all(torch.equal(first[k], second[k]) for k in first):
            return False
    return True


def metric_lines(run: Path) -> list[dict]:
    """Lines of metrics.jsonl without timings."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int, number: signal.Signals) -> None:
    """Deliver a signal to this process in the middle of its `steps`-th training step."""
    original, count = loop.train_step, 0

    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        if count == steps:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", counted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signals_write_a_checkpoint_and_resume_is_exact(tiny, tiny_run, tmp_path, monkeypatch, number):
    settings = {**tiny, "output": str(tmp_path / "run")}
    for steps in (5, 7):  # in the middle of stage 1, then in the middle of stage 2
        with monkeypatch.context() as patch:
            stop_after(patch, steps, number)
            with pytest.raises(loop.Stopped, match=number.name):
                dualat.train("digits", settings, resume=True)
    state = load_state(tmp_path / "run" / "checkpoints")
    assert state is not None and (state.stage, state.step) == (2, 4)
    dualat.train("digits", settings, resume=True)
    assert same_weights(tmp_path / "run", tiny_run)
    assert metric_lines(tmp_path / "run") == metric_lines(tiny_run)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (training_step, "average_gradients", 11),  # in a step of stage 2
        (loop, "gradient_penalty", 5),  # after a step, before its line is written
        (loop.Stage, "evaluate", 1),  # after a line, at the end of stage 1
        (loop.Stage, "evaluate", 2),  # at the end of the run
    ],
)
def test_a_process_lost_at_any_point_costs_nothing(tiny, tiny_run, tmp_path, monkeypatch, owner, name, call):
    """The state that is kept owes the step's line and evaluation, if they were not made, and the resumed run makes them."""
    settings = {**tiny, "output": str(tmp_path / "run"), "tracking.log_every": 1}
    whole = dualat.train("digits", {**settings, "output": str(tmp_path / "whole")})
    original, calls = getattr(owner, name), []

    def lost(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            raise loop.LostRank("another process of this run is gone")
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, lost)
        with pytest.raises(loop.LostRank):
            dualat.train("digits", settings)
    dualat.train("digits", settings, resume=True)
    assert len(calls) == call and same_weights(tmp_path / "run", whole) and same_weights(whole, tiny_run)
    assert metric_lines(tmp_path / "run") == metric_lines(whole)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "dat"])
def test_every_other_method_resumes_exactly_too(tiny, tmp_path, monkeypatch, method):
    """Replay buffers, curricula and random numbers of chains included; run by the step, without the final figures."""
    settings = {**tiny, "method": method, "chain.buffer": 40, "chain.steps": 2, "stage1.optimizer.lr": 1e-3}
    config = load_recipe("digits", {"method": method})
    settings = {name: value for name, value in settings.items() if is_used(config, name)}
    monkeypatch.setattr(importlib.import_module("dualat.run.train"), "evaluate_run", lambda *_: [])
    whole = dualat.train("digits", {**settings, "output": str(tmp_path / "whole")})
    parts = {**settings, "output": str(tmp_path / "parts")}
    with monkeypatch.context() as patch:
        stop_after(patch, 5, signal.SIGTERM)
        with pytest.raises(loop.Stopped):
            dualat.train("digits", parts, resume=True)
    assert read_outcome(tmp_path / "parts")["outcome"] == "stopped"
    folder = dualat.train("digits", parts, resume=True)
    assert same_weights(folder, whole) and metric_lines(folder) == metric_lines(whole)


def test_deterministic_kernels_change_nothing_on_a_cpu(tiny, tiny_run, tmp_path):
    """A CPU has them for all that both stages do, and repeats its bits without being told to."""
    folder = dualat.train("digits", {**tiny, "output": str(tmp_path / "run"), "deterministic": True})
    assert same_weights(folder, tiny_run) and metric_lines(folder) == metric_lines(tiny_run)


@pytest.mark.parametrize("place", ["load_run_splits", "evaluate_run"])
def test_a_signal_outside_the_steps_leaves_at_once_and_resume_is_exact(
    tiny, tiny_run, tmp_path, monkeypatch, place
):
    settings = {**tiny, "output": str(tmp_path / "run")}
    train_module = importlib.import_module("dualat.run.train")

    def signalled(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal was ignored")

    with monkeypatch.context() as patch:
        patch.setattr(train_module, place, signalled)
        with pytest.raises(loop.Stopped, match="SIGTERM outside the training steps"):
            dualat.train("digits", settings)
    dualat.train("digits", settings, resume=True)
    assert same_weights(tmp_path / "run", tiny_run)
    assert metric_lines(tmp_path / "run") == metric_lines(tiny_run)


def test_the_seed_matters(tiny, tiny_run, tmp_path):
    other = dualat.train("digits", {**tiny, "output": str(tmp_path / "run"), "seed": 1})
    assert not same_weights(other, tiny_run)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tiny, tiny_run, tmp_path, monkeypatch):
    settings = {**tiny, "output": str(tmp_path / "run")}
    with monkeypatch.context() as patch:
        stop_after(patch, 15, signal.SIGTERM)
        with pytest.raises(loop.Stopped):
            dualat.train("digits", settings)
    folder = tmp_path / "run" / "checkpoints"
    newest, before = json.loads((folder / "latest.json").read_text())["generations"]
    data = bytearray((folder / newest["file"]).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / newest["file"]).write_bytes(data)
    with pytest.warns(UserWarning, match=before["file"]):
        dualat.train("digits", settings, resume=True)
    assert same_weights(tmp_path / "run", tiny_run)


def test_when_all_checkpoints_are_damaged_the_run_says_so(tiny, tmp_path, monkeypatch):
    settings = {**tiny, "output": str(tmp_path / "run")}
    with monkeypatch.context() as patch:
        stop_after(patch, 7, signal.SIGTERM)
        with pytest.raises(loop.Stopped):
            dualat.train("digits", settings)
    for path in (tmp_path / "run" / "checkpoints").glob("state-*"):
        path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="no checkpoint can be read"):
        dualat.train("digits", settings, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.model.popitem(), "do not fit this network: 1 missing"),
        (
            lambda state: state.ema.update({k: torch.zeros(7) for k in list(state.ema)[:1]}),
            "of another shape",
        ),
        (lambda state: state.optimizer["param_groups"].clear(), "another optimiser or method"),
        (
            lambda state: state.optimizer["state"][0].update(momentum_buffer=torch.zeros(3)),
            "another optimiser or method",
        ),
        (lambda state: state.method.clear(), "another optimiser or method"),
        (lambda state: setattr(state, "stage", 9), "is of stage 9, which this run lacks"),
    ],
)
def test_a_whole_state_that_is_not_of_this_run_is_one_sentence(tiny, tiny_run, tmp_path, change, message):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    state = load_state(folder / "checkpoints")
    change(state)
    save_state(folder / "checkpoints", state)
    with pytest.raises(ValueError, match=message) as refused:
        dualat.train("digits", {**tiny, "output": str(folder)}, resume=True)
    assert "\n" not in str(refused.value)


def test_a_run_is_neither_mixed_nor_overwritten_by_accident(tiny, tiny_run):
    settings = {**tiny, "output": str(tiny_run)}
    with pytest.raises(ValueError, match="already holds a run"):
        dualat.train("digits", settings)
    with pytest.raises(ValueError, match=r"other settings \(seed: there 0, here 3\)"):
        dualat.train("digits", {**settings, "seed": 3}, resume=True)
    with pytest.raises(ValueError, match=r"\(stage1.optimizer.lr: there .*, here 0.5\)"):
        dualat.train("digits", {**settings, "stage1.optimizer.lr": 0.5}, resume=True)
    with pytest.raises(ValueError, match="contradict"):
        dualat.train("digits", settings, resume=True, overwrite=True)


def test_a_run_that_was_moved_and_is_older_than_a_setting_goes_on(tiny, tiny_run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 7, signal.SIGTERM)
        with pytest.raises(loop.Stopped):
            dualat.train("digits", {**tiny, "output": str(tmp_path / "there")})
    (tmp_path / "there").rename(tmp_path / "here")
    config = tmp_path / "here" / "config.yaml"
    values = yaml.safe_load(config.read_text())
    del (
        values["stability"],
        values["evaluation"]["sweep_samples"],
    )  # a whole group, and one setting of another
    config.write_text(yaml.safe_dump(values))
    dualat.train("digits", {**tiny, "output": str(tmp_path / "here")}, resume=True)
    assert same_weights(tmp_path / "here", tiny_run)
    assert yaml.safe_load(config.read_text())["output"] == str(tmp_path / "here")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ten_kills_at_random_moments(tiny, tmp_path, number):
    """Ten kills spread over both stages; each time the same command with --resume goes on."""
    steps = {
        "stage1.steps": 70,
        "stage2.steps": 130,
        "stage1.evaluate_every": 40,
        "stage2.evaluate_every": 40,
        "tracking.checkpoint_every": 7,
        "tracking.log_every": 1,
    }
    arguments = [
        a
        for k, v in {**tiny, **steps}.items()
        for a in (f"--{k}", *(map(str, v) if isinstance(v, list) else [str(v)]))
    ]
    command = ["train", "digits", *arguments, "--output"]
    forked.run([*command, str(tmp_path / "whole")], tmp_path / "errors")

    kills, seen = 0, set()
    dice = random.Random(0)
    while kills < 10:
        process = forked.Command([*command, str(tmp_path / "killed"), "--resume"], tmp_path / "errors")
        wait_for_progress(process, tmp_path / "killed" / "metrics.jsonl", dice.randint(6, 20))
        time.sleep(dice.random() / 20)
        process.send_signal(number)
        assert process.wait() == (-number if number == signal.SIGKILL else 0), process.errors
        assert "Traceback" not in process.errors
        state = load_state(tmp_path / "killed" / "checkpoints")
        seen.add(state.stage if state else 1)
        kills += 1
    assert seen == {1, 2}
    forked.run([*command, str(tmp_path / "killed"), "--resume"], tmp_path / "errors")
    assert same_weights(tmp_path / "killed", tmp_path / "whole")
    assert metric_lines(tmp_path / "killed") == metric_lines(tmp_path / "whole")


def wait_for_progress(process: forked.Command, metrics: Path, lines: int) -> None:
    """Wait until the process has logged `lines` steps more than it found (or is about to end)."""
    began = time.monotonic()
    before = None
    while process.returncode is None and time.monotonic() - began < 120:
        modified = metrics.stat().st_mtime_ns if metrics.exists() else 0
        now = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        if before is None or now < before:
            before = now  # a resumed run first takes back lines after its checkpoint
        if now - before >= lines and modified:
            return
        time.sleep(0.01)
    raise AssertionError(
        f"the run ended or stood still after {time.monotonic() - began:.0f} s: {process.returncode}"
    )
