"""What can go wrong while training: a loss that is no number, a full disk, unwritable trackers."""

import errno
import json

import pytest
import torch

import dualat
from dualat.training import checkpoint, loop
from dualat.training import step as training_step
from dualat.training.checkpoint import load_state
from dualat.training.divergence import Diverged


def test_a_non_finite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(tiny, tmp_path, monkeypatch):
    original = loop.Feed.batch

    def poisoned(self, streams, step, seed, energy):
        batch = original(self, streams, step, seed, energy)
        if energy and step == 7:
            batch.robust_images[0, 0, 0, 0] = torch.nan
        return batch

    monkeypatch.setattr(loop.Feed, "batch", poisoned)
    with pytest.raises(Diverged, match="stage 2, step 8"):
        dualat.train("digits", {**tiny, "output": str(tmp_path / "run")})
    state = load_state(tmp_path / "run" / "checkpoints")
    assert state is not None and (state.stage, state.step) == (2, 6)
    assert all(torch.isfinite(v).all() for v in state.model.values())
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_full_disk_is_one_sentence_and_keeps_the_older_checkpoint(tiny, tmp_path, monkeypatch):
    original, count = checkpoint.save_file, 0

    def full(*args, **kwargs):
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(*args, **kwargs)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="cannot write .*state.*No space left on device"):
        dualat.train("digits", {**tiny, "output": str(tmp_path / "run")})
    state = load_state(tmp_path / "run" / "checkpoints")
    assert state is not None and (state.stage, state.step) == (1, 6)
    assert not list((tmp_path / "run" / "checkpoints").glob("*.partial"))


def test_a_lost_process_frees_the_gpus_before_their_memory_is_read(tiny, tmp_path, monkeypatch):
    """Behind an exchange by NCCL that never ends, the copy of the weights to the CPU would wait for ever."""
    done, save = [], loop.save_state

    def saved(*args):
        done.append("saved")
        save(*args)

    def lost(model):
        raise loop.LostRank("another process of this run is gone")

    monkeypatch.setattr(loop, "save_state", saved)
    monkeypatch.setattr(loop, "abandon_gpus", lambda: done.append("freed"))
    monkeypatch.setattr(training_step, "average_gradients", lost)
    with pytest.raises(loop.LostRank):
        dualat.train("digits", {**tiny, "output": str(tmp_path / "run")})
    assert done == ["freed", "saved"]


def test_processes_that_find_different_checkpoints_say_so(tmp_path, monkeypatch):
    """As where a network disk shows the newest one to some machines only."""
    state = checkpoint.TrainingState(1, 20, {}, {}, 0, {"state": {}, "param_groups": []}, {})
    checkpoint.save_state(tmp_path, state)
    monkeypatch.setattr(checkpoint, "all_gathered", lambda own: torch.cat([own, torch.tensor([[1, 10]])]))
    with pytest.raises(ValueError, match=r"stage 1 step 10, stage 1 step 20.*--resume"):
        load_state(tmp_path)
    monkeypatch.setattr(checkpoint, "all_gathered", lambda own: torch.cat([own, own]))
    found = load_state(tmp_path)
    assert found is not None and found.step == 20


def test_an_unknown_tracker_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="nosuchtracker"):
        dualat.train(
            "digits", {**tiny, "output": str(tmp_path / "run"), "tracking.trackers": ["nosuchtracker"]}
        )


def test_a_finished_run_is_complete(tiny_run):
    for name in (
        "config.yaml",
        "metrics.jsonl",
        "model.safetensors",
        "model.json",
        "evaluation.json",
        "samples/final.png",
        "checkpoints/stage1.safetensors",
        "checkpoints/best-robust.safetensors",
        "checkpoints/best-generation.safetensors",
        "checkpoints/latest.json",
    ):
        assert (tiny_run / name).stat().st_size > 0, name
    assert list((tiny_run / "tensorboard").glob("events*"))
    last = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    logged = {key for line in last if line["stage"] == 2 for key in line}
    assert {"loss", "loss_ce", "loss_energy", "auroc", "T", "r1", "lr", "images_per_second"} <= logged


def test_stage_2_starts_from_given_weights(tiny, tiny_run, tmp_path):
    weights = str(tiny_run / "checkpoints" / "stage1.safetensors")
    settings = {k: v for k, v in tiny.items() if not k.startswith("stage1.")}
    second = dualat.train(
        "digits", {**settings, "output": str(tmp_path / "run"), "stages": "2", "weights": weights}
    )
    given, trained = dualat.load(weights), dualat.load(second)
    for name, buffer in trained.named_buffers():
        if "running" in name:
            assert torch.equal(buffer, given.get_buffer(name)), "frozen BatchNorm statistics moved"
    assert not torch.equal(trained.network.network.fc.weight, given.network.network.fc.weight)


def test_a_finite_loss_with_an_undefined_gradient_changes_no_weight(tiny, tmp_path, monkeypatch):
    def zero_with_nan_gradient(real, contrastive):
        return (real.sum() * 0).sqrt()  # 0, whose derivative is 0 * inf

    monkeypatch.setattr("dualat.methods.dat.energy_bce", zero_with_nan_gradient)
    with pytest.raises(Diverged, match="stage 2, step 1"):
        dualat.train("digits", {**tiny, "output": str(tmp_path / "run")})
    state = load_state(tmp_path / "run" / "checkpoints")
    assert state is not None and all(torch.isfinite(v).all() for v in state.model.values())


ZEROS = (
    *(
        "attack.eps",
        "attack.steps",
        "contrastive.t_max",
        "contrastive.auc_threshold",
        "loss.cross_entropy",
        "loss.r1",
    ),
    *(
        "robust_augment.pad",
        "robust_augment.cutout",
        "energy_augment.pad",
        "sampling.steps",
        "sampling.momentum",
    ),
    *(
        "sampling.noise",
        "sampling.start_noise",
        "stability.restarts",
        "stage1.ema_decay",
        "stage2.ema_decay",
        "seed",
    ),
    *("stage1.optimizer.momentum", "stage1.optimizer.weight_decay", "stage2.optimizer.warmup_steps"),
)
"""Settings of dat that take 0."""


def test_every_zero_and_the_largest_seed_train_and_are_evaluated(tiny, tmp_path):
    """What the settings let through, nothing later refuses: a seed of 2^64 trained, and failed at the first evaluation."""
    settings = {**tiny, **dict.fromkeys(ZEROS, 0), "seed": 2**63 - 1, "attack.random_start": True}
    settings |= {"robust_augment.kind": "strong", "energy_augment.kind": "basic"}
    settings |= {f"stage{s}.{name}": 2 for s in "12" for name in ("steps", "evaluate_every")}
    folder = dualat.train("digits", {**settings, "output": str(tmp_path / "run")})
    assert 2**63 - 1 in {r["seed"] for r in json.loads((folder / "evaluation.json").read_text())}
