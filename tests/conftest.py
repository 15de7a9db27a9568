"""Settings that make a whole run of both stages take seconds, and what all processes of one run of the tests share."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

os.environ.setdefault("DUALAT_CACHE", str(Path(tempfile.gettempdir()) / "dualat-test-cache"))
# Before torch is imported, here and in the processes that tests start: as many test processes as cores, a thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY = {
    "stage1.steps": 8,
    "stage1.batch_size": 16,
    "stage1.evaluate_every": 8,
    "stage2.steps": 10,
    "stage2.batch_size": 16,
    "stage2.evaluate_every": 5,
    "contrastive.t_max": 4,
    "contrastive.step_size": 0.5,
    "contrastive.window": 16,
    "contrastive.auc_threshold": 0.1,
    "attack.steps": 5,
    "sampling.steps": 2,
    "tracking.checkpoint_every": 3,
    "tracking.log_every": 2,
    "evaluation.samples": 20,
    "evaluation.validation_samples": 20,
    "evaluation.validation_images": 20,
    "evaluation.steps": 2,
    "evaluation.eps": [0.5],
    "device": "cpu",
}


@pytest.fixture(scope="session")
def tiny() -> dict:
    """Dotted overrides of the digits recipe: both stages in a few seconds."""
    return dict(TINY)


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name`, filled by `make(folder)` once for all processes of one run of the tests. Not to be written to."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all workers
    folder, done = shared / name, shared / f"{name}.done"
    with FileLock(shared / f"{name}.lock"):
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of both stages, never stopped."""
    import dualat

    made = made_once(
        tmp_path_factory, "tiny", lambda folder: dualat.train("digits", {**TINY, "output": str(folder)})
    )
    own = (
        tmp_path_factory.mktemp("runs") / "tiny"
    )  # commands write into it, those of other processes elsewhere
    shutil.copytree(made, own)
    return own


@pytest.fixture
def short(monkeypatch):
    """30 steps instead of 100, Square with 100 queries instead of 5,000: here and in pyautoattack alone."""
    import pyautoattack

    found = pyautoattack.AutoAttack._set_version

    def set_version(self, version="standard"):
        found(self, version)
        self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 30
        self.square.n_queries = 100

    monkeypatch.setattr(pyautoattack.AutoAttack, "_set_version", set_version)


@pytest.fixture
def double_by_default():
    """`torch.set_default_dtype(torch.float64)`, as some users have it, for one test."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
