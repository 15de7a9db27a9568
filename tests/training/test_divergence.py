"""The divergence monitor: what counts, what is recorded, and what a restart does."""

import json
import math
import shutil

import pytest
import torch

import dualat
from dualat.training import loop
from dualat.training.divergence import Diverged, has_diverged, read_outcome, record_divergence


@pytest.mark.parametrize(
    ("loss", "norm", "diverged"),
    [
        (1.0, 1.0, False),
        (-99.0, 1.0, False),
        (101.0, 1.0, True),
        (-101.0, 1.0, True),
        (math.nan, 1.0, True),
        (math.inf, 1.0, True),
        (1.0, math.nan, True),
        (1.0, math.inf, True),
    ],
)
def test_what_counts_as_divergence(loss, norm, diverged):
    assert has_diverged(loss, norm, 100.0) == diverged


def poison(monkeypatch, at: set[int], times: int) -> list[int]:
    """Make stage 2's batch unusable at these steps, `times` times in all; the steps at which that happened."""
    original, poisoned = loop.Feed.batch, []

    def batch(self, streams, step, seed, energy):
        found = original(self, streams, step, seed, energy)
        if energy and step in at and len(poisoned) < times:
            poisoned.append(step)
            found.robust_images[0, 0, 0, 0] = torch.nan
        return found

    monkeypatch.setattr(loop.Feed, "batch", batch)
    return poisoned


def test_a_run_that_diverges_says_so_in_its_outcome(tiny, tmp_path, monkeypatch):
    poison(monkeypatch, {7}, 9)
    with pytest.raises(Diverged, match="stage 2, step 8"):
        dualat.train("digits", {**tiny, "output": str(tmp_path / "run")})
    outcome = read_outcome(tmp_path / "run")
    assert outcome["outcome"] == "diverged"
    assert [(d["stage"], d["step"]) for d in outcome["divergences"]] == [(2, 8)]


def test_an_exploding_loss_counts_too(tiny, tmp_path):
    with pytest.raises(Diverged, match="beyond stability.limit = 0.001.*stage 1, step 1"):
        dualat.train("digits", {**tiny, "output": str(tmp_path / "run"), "stability.limit": 1e-3})


def test_a_restart_goes_on_from_the_last_checkpoint_with_other_numbers(tiny, tmp_path, monkeypatch):
    poisoned = poison(monkeypatch, {7}, 1)
    seeds, images = [], []
    original = loop.train_step

    def watched(model, method, batch, *rest):
        seeds.append(torch.initial_seed())
        images.append(batch.robust_images.clone())
        assert read_outcome(tmp_path / "run")["outcome"] == "running"  # also after the divergence
        return original(model, method, batch, *rest)

    monkeypatch.setattr(loop, "train_step", watched)
    overrides = {**tiny, "output": str(tmp_path / "run"), "stability.on_divergence": "restart"}
    folder = dualat.train("digits", overrides)
    assert poisoned == [7] and (folder / "model.safetensors").is_file()
    outcome = json.loads((folder / "outcome.json").read_text())
    assert outcome["outcome"] == "finished" and len(outcome["divergences"]) == 1
    # 8 steps of stage 1, 8 of stage 2 until it diverges, then steps 7 to 10 again from the checkpoint at 6
    assert len(seeds) == 8 + 8 + 4 and len(set(seeds)) == len(seeds)
    first, again = images[14], images[16]  # step 7, before it diverged at step 8, and after
    assert not torch.equal(first.sort(dim=0).values, again.sort(dim=0).values)
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [(e["stage"], e["step"]) for e in logged if "loss" in e]
    assert steps == sorted(set(steps))


def test_restarts_are_counted_and_run_out(tiny, tmp_path, monkeypatch):
    poison(monkeypatch, {7}, 99)
    settings = {"stability.on_divergence": "restart", "stability.restarts": 2}
    with pytest.raises(Diverged):
        dualat.train("digits", {**tiny, "output": str(tmp_path / "run"), **settings})
    assert len(read_outcome(tmp_path / "run")["divergences"]) == 3


def test_what_is_said_fits_what_was_tried(tiny, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, {7}, 99)
    with pytest.raises(Diverged) as stopped:
        dualat.train("digits", {**tiny, "output": str(tmp_path / "stop")})
    assert "the last good checkpoint stays in" in str(stopped.value)
    assert "--resume tries again from the last checkpoint with other random numbers, as --stab" in str(
        stopped.value
    )
    settings = {"stability.on_divergence": "restart", "stability.restarts": 2}
    with pytest.raises(
        Diverged, match="2 restarts with other random numbers led no further; a lower"
    ) as gone:
        dualat.train("digits", {**tiny, "output": str(tmp_path / "run"), **settings})
    assert "--resume" not in str(gone.value)
    said = "".join(capsys.readouterr())
    assert "starting again from there, restart 1 of 2" in said and "restart 2 of 2" in said
    with pytest.raises(Diverged, match="no checkpoint was due before; .*--resume tries again from the start"):
        dualat.train("digits", {**tiny, "output": str(tmp_path / "early"), "stability.limit": 1e-3})


def test_a_restart_before_the_first_checkpoint_begins_the_stage_anew(tiny, tmp_path, monkeypatch):
    poisoned = poison(monkeypatch, {1}, 1)
    settings = {"stability.on_divergence": "restart", "stages": "both", "tracking.checkpoint_every": 5}
    folder = dualat.train("digits", {**tiny, "output": str(tmp_path / "run"), **settings})
    assert poisoned == [1] and len(read_outcome(folder)["divergences"]) == 1


@pytest.mark.parametrize(
    "text", ["{", "", "3", "null", '{"outcome": "running"}', '{"outcome": 1, "divergences": 0}', "[" * 3000]
)
def test_a_damaged_outcome_is_one_sentence(tmp_path, text):
    (tmp_path / "outcome.json").write_text(text)
    with pytest.raises(ValueError, match="outcome.json is damaged"):
        read_outcome(tmp_path)


def test_what_is_done_after_a_divergence_may_change_on_resume(tiny, tmp_path, monkeypatch):
    poison(monkeypatch, {7}, 1)
    settings = {**tiny, "output": str(tmp_path / "run")}
    with pytest.raises(Diverged, match="--resume tries again"):
        dualat.train("digits", settings)
    folder = dualat.train("digits", {**settings, "stability.on_divergence": "restart"}, resume=True)
    assert read_outcome(folder)["outcome"] == "finished"


def test_batches_that_cannot_be_divided_are_refused_before_a_run_is_replaced(tiny, tiny_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    with pytest.raises(ValueError, match="equal parts"):
        dualat.train("digits", {**tiny, "output": str(folder), "stage2.accumulate": 3}, overwrite=True)
    assert (folder / "model.safetensors").is_file() and (folder / "evaluation.json").is_file()


def test_all_processes_go_by_what_the_first_one_counts(tmp_path, monkeypatch):
    """Else a network disk that shows outcome.json late gives them other random numbers, or lets some restart alone."""
    assert loop.divergences(tmp_path) == 0
    record_divergence(tmp_path, 1, 8, float("nan"), 1.0)
    assert loop.divergences(tmp_path) == 1
    monkeypatch.setattr(loop, "broadcast_number", lambda own: own + 1)
    assert loop.divergences(tmp_path) == 2
