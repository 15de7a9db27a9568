"""Ranks of which one is gone, late, or started from other weights: two processes joined by gloo, forked from one server that
has imported PyTorch once."""

import importlib
import json
import multiprocessing
import os
import re
import signal
import socket
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import dualat
from dualat.config import load_recipe
from dualat.data.in_distribution import load_splits
from dualat.evaluation import judge as judges
from dualat.system import distributed
from dualat.training import step as training_step

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["dualat.run.train", "dualat.run.evaluation", "sklearn.svm", "timm.layers.norm_act", "pytest"]
)
RUN = {
    "stages": "1",
    "stage1.steps": 5,
    "stage1.batch_size": 8,
    "attack.steps": 5,
    "device": "cpu",
    "precision": "fp32",
    "tracking.trackers": [],
    "tracking.log_every": 1,
}


def one_rank(number: int, port: int, folder: Path, work: Callable[..., None], arguments: tuple) -> None:
    """What a process does; how it failed stands in a file."""
    torch.set_num_threads(1)
    where = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "DUALAT_CACHE": str(folder / f"cache{number}"),
    }
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", **where}
    try:
        work(number, folder, *arguments)
    except BaseException:
        (folder / f"{number}.txt").write_text(traceback.format_exc())
        os._exit(1)
    (folder / f"{number}.txt").write_text("done")
    os._exit(0)  # what NCCL and gloo leave behind is no part of the test


def on_two_ranks(
    folder: Path, work: Callable[..., None], *arguments: Any, until: int | None = None, seconds: float = 60
) -> list[str]:
    """How work(rank, folder, *arguments) ended on both: "done", a traceback, or "" where the process was killed.

    until: end the other one when this one has ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [FORKS.Process(target=one_rank, args=(n, port, folder, work, arguments)) for n in range(2)]
    for process in started:
        process.start()
    try:
        deadline = time.monotonic() + seconds
        for process in started if until is None else [started[until]]:
            process.join(max(0, deadline - time.monotonic()))
            assert process.exitcode is not None, "a rank hangs"
    finally:
        for process in started:
            process.kill()
            process.join()
    files = [folder / f"{number}.txt" for number in range(2)]
    return [file.read_text() if file.is_file() else "" for file in files]


def with_timeout(seconds: float) -> None:
    """Ordinary exchanges give up after this time, whoever sets it."""
    original = dist.init_process_group
    distributed.TIMEOUT = timedelta(seconds=seconds)
    dist.init_process_group = lambda *args, **kwargs: original(
        *args, **{**kwargs, "timeout": timedelta(seconds=seconds)}
    )


def wait_for_the_judge(rank: int, folder: Path, first: str) -> None:
    """Rank 0 takes longer for the judge than an ordinary exchange may, or dies over it."""
    fit = judges.fit

    def slowly(*args: Any) -> None:
        assert rank == 0, "another rank trains a judge of its own"
        if first == "dies":
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(5)
        fit(*args)

    judges.fit = slowly
    with_timeout(3)
    config = load_recipe("digits", {"device": "cpu"})
    evaluate = importlib.import_module("dualat.run.evaluation")
    kept: list[judges.Judge] = []
    made = judges.Judge.__init__

    def init(self: judges.Judge, *args: Any, **kwargs: Any) -> None:
        kept.append(self)
        made(self, *args, **{**kwargs, "steps": 2})

    judges.Judge.__init__ = init
    with distributed.processes():
        evaluate.validation_evaluator(config, load_splits(config.data), folder)
        seen = kept[0].features(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
        one, other = distributed.all_gathered(seen).chunk(2)
        assert torch.equal(one, other)


def test_the_others_wait_for_the_judge_longer_than_for_anything_else(tmp_path: Path):
    assert on_two_ranks(tmp_path, wait_for_the_judge, "is slow") == ["done", "done"]


def test_a_first_rank_that_dies_over_the_judge_ends_the_wait_with_a_sentence(tmp_path: Path):
    first, second = on_two_ranks(tmp_path, wait_for_the_judge, "dies", seconds=30)
    assert not first and "LostRank: another process of this run is gone" in second and "--resume" in second


def train(rank: int, folder: Path, **settings: Any) -> Path:
    """A short run of one stage, without figures."""
    module = importlib.import_module("dualat.run.train")
    importlib.import_module("dualat.run.stages").validation_evaluator = lambda *_: lambda *_: {}
    module.evaluate_run = lambda *_: []
    return dualat.train("digits", {**RUN, "output": str(folder / "run"), **settings})


def train_from_other_weights(rank: int, folder: Path) -> None:
    """The seed decides the weights, so each rank makes its own."""
    loop = importlib.import_module("dualat.training.loop")
    original, seen = loop.Stage.report, []

    def report(self: Any, *args: Any) -> None:
        tensors = [*self.model.parameters(), *self.model.buffers(), *self.ema.average.values()]
        seen.append(torch.cat([t.detach().flatten().double() for t in tensors]))
        original(self, *args)

    loop.Stage.report = report
    with distributed.processes():
        train(rank, folder, seed=rank)
        assert len(seen) == 5 and not torch.equal(seen[0], seen[-1])
        for vector in seen:
            one, other = distributed.all_gathered(vector[None])
            assert torch.equal(one, other)


def test_ranks_that_made_other_weights_train_those_of_the_first(tmp_path: Path):
    assert on_two_ranks(tmp_path, train_from_other_weights) == ["done", "done"]


def lose_the_second(rank: int, folder: Path, how: str) -> None:
    """In its third step rank 1 is killed, or stands still, before gradients are averaged. The exchange of gradients is
    then one that never returns, as NCCL's."""
    original, exchange, calls = training_step.average_gradients, dist.all_reduce, []

    def average_gradients(model: torch.nn.Module) -> None:
        calls.append(1)
        if rank == 1 and len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL) if how == "killed" else time.sleep(1000)
        original(model)

    def all_reduce(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if tensor.numel() > 1000 and len(calls) == 3:
            time.sleep(1000)
        return exchange(tensor, *args, **kwargs)

    training_step.average_gradients, dist.all_reduce = average_gradients, all_reduce
    distributed.STEP_TIMEOUT = timedelta(seconds=2)
    train(rank, folder)


@pytest.mark.parametrize("how", ["killed", "stands still"])
def test_a_lost_rank_is_noticed_before_an_exchange_that_never_returns(tmp_path: Path, how: str):
    first, _ = on_two_ranks(tmp_path, lose_the_second, how, until=0, seconds=30)
    assert re.search("LostRank: another process of this run is gone .*--resume", first)
    listed = json.loads((tmp_path / "run" / "checkpoints" / "latest.json").read_text())["generations"]
    assert [entry["file"] for entry in listed] == ["state-1-00000002.safetensors"]
