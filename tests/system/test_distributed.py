"""Several processes against one: helpers, weights, curriculum, records, a rank that dies, another number of ranks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dualat.system import distributed

STEPS = 25
SETTINGS = {
    "stage1.steps": STEPS,
    "stage1.batch-size": 16,
    "stage1.evaluate-every": STEPS,
    "stage2.steps": STEPS,
    "stage2.batch-size": 16,
    "stage2.evaluate-every": STEPS,
    "contrastive.t-max": 4,
    "contrastive.step-size": 0.5,
    "contrastive.window": 32,
    "contrastive.auc-threshold": 0.1,
    "attack.steps": 5,
    "sampling.steps": 2,
    "tracking.checkpoint-every": 10,
    "tracking.log-every": 1,
    "evaluation.samples": 600,
    "evaluation.validation-samples": 20,
    "evaluation.validation-images": 40,
    "evaluation.steps": 2,
    "evaluation.eps": 0.5,
    "device": "cpu",
    "precision": "fp32",
}


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def command(ranks: int, *args: str, restarts: int = 0) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    launcher += ["--max-restarts", str(restarts)]
    return [sys.executable, *(launcher if ranks > 1 else []), "-m", "dualat", *args]


def train_command(ranks: int, folder: Path, *extra: str, restarts: int = 0) -> list[str]:
    options = [part for key, value in SETTINGS.items() for part in (f"--{key}", str(value))]
    return command(ranks, "train", "digits", *options, "--output", str(folder), *extra, restarts=restarts)


def run(args: list[str]) -> subprocess.CompletedProcess:
    done = subprocess.run(args, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def difference(one: Path, other: Path, name: str = "model.safetensors") -> float:
    a, b = load_file(one / name), load_file(other / name)
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


def curriculum(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["T"], round(line["auroc"], 3)) for line in lines if "T" in line]


def figures(path: Path) -> list[tuple]:
    return [(r["model"], r["metric"], r["value"], r["n"]) for r in json.loads(path.read_text())]


WORK = """
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from dualat.system import distributed as d
from dualat.models.batchnorm import synchronise_batchnorm

with d.processes():
    r = d.rank()
    assert d.world_size() == 2 and d.is_first() == (r == 0)
    assert d.share(6) == slice(3 * r, 3 * r + 3)
    try:
        d.share(5)
        raise SystemExit("5 images were divided")
    except ValueError as error:
        assert "batch_size is 5" in str(error)
    assert list(d.mine(range(5))) == [[0, 2, 4], [1, 3]][r]
    assert d.total(r + 1) == 3 and d.mean_over_ranks({"a": r, "b": 4.0}) == {"a": 0.5, "b": 4.0}
    assert d.all_gathered(torch.tensor([r, 10 + r])).tolist() == [0, 10, 1, 11]
    here = torch.full((2, 3, 4, 4), float(r)).to(memory_format=torch.channels_last), torch.tensor(5 + r)
    here[0][1, 2, 3, 0] = 7.0 - 10 * r
    strides = here[0].stride()
    d.broadcast(here)
    expected = torch.zeros(2, 3, 4, 4)
    expected[1, 2, 3, 0] = 7
    assert torch.equal(here[0], expected) and here[0].stride() == strides and here[1] == 5
    assert d.broadcast_number(10 + r) == 10
    d.BUCKET = 5  # several buckets
    linear = nn.Linear(3, 2)
    for p in linear.parameters():
        p.grad = torch.full_like(p, float(r))
    d.average_gradients(linear)
    assert all(bool((p.grad == 0.5).all()) for p in linear.parameters())

    torch.manual_seed(0)
    x, target = torch.randn(8, 3, 4, 4), torch.randn(8, 3, 4, 4)
    plain, synced = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    for norm in (plain, synced):
        nn.init.constant_(norm.weight, 1.5)
    synchronise_batchnorm(synced)
    mine = d.share(8)
    ((plain(x) - target) ** 2).mean().backward()
    ((synced(x[mine]) - target[mine]) ** 2).mean().backward()
    d.average_gradients(synced)
    close = lambda a, b: torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    close(synced.weight.grad, plain.weight.grad)
    close(synced.bias.grad, plain.bias.grad)
    close(synced.running_mean, plain.running_mean)
    close(synced.running_var, plain.running_var)
    assert synced.num_batches_tracked == 1 and list(synced.state_dict()) == list(plain.state_dict())
    close(synced.eval()(x), plain.eval()(x))

    # timm's BatchNorm with its activation; and a kind that is refused
    pair = BatchNormAct2d(3, act_layer=nn.SiLU), BatchNormAct2d(3, act_layer=nn.SiLU)
    synchronise_batchnorm(pair[1])
    close(pair[1](x[mine]), pair[0](x)[mine])
    close(pair[1].running_var, pair[0].running_var)
    close(pair[1].eval()(x), pair[0].eval()(x))
    try:
        synchronise_batchnorm(nn.Sequential(nn.BatchNorm1d(2)))
        raise SystemExit("BatchNorm1d was taken")
    except ValueError as error:
        assert "BatchNorm1d cannot share" in str(error)

    # R1, whose gradient in the weights is a second derivative
    twins = []
    for part in (slice(None), mine):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(16, 2))
        if part is mine:
            synchronise_batchnorm(net)
        start = x[part].clone().requires_grad_()
        (slope,) = torch.autograd.grad(net(start).logsumexp(1).sum(), start, create_graph=True)
        slope.flatten(1).square().sum(1).mean().backward()
        if part is mine:
            d.average_gradients(net)
        twins.append(net)
    for one, two in zip(*(net.parameters() for net in twins), strict=True):
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-4, atol=1e-6)
"""


def test_helpers_on_two_ranks(tmp_path: Path):
    script = tmp_path / "work.py"
    script.write_text(WORK)
    run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            str(script),
        ]
    )


def test_helpers_on_one_rank_do_nothing():
    tensor = torch.arange(3.0)
    assert distributed.world_size() == 1 and distributed.rank() == 0 and distributed.is_first()
    assert distributed.share(7) == slice(0, 7) and list(distributed.mine([1, 2])) == [1, 2]
    assert distributed.all_gathered(tensor) is tensor and distributed.all_reduced(tensor) is tensor
    assert distributed.mean_over_ranks({"a": 2.0}) == {"a": 2.0} and distributed.total(3) == 3


def test_only_errors_of_the_engine_become_lost_ranks(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(distributed.LostRank, match="--resume"), distributed.lost_ranks():
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    with pytest.raises(RuntimeError, match="out of memory") as caught, distributed.lost_ranks():
        raise RuntimeError("CUDA out of memory")
    assert not isinstance(caught.value, distributed.LostRank)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A machine with two GPUs and a process of two; what is given to set_device is listed."""
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    return taken


def test_each_process_takes_its_own_gpu_where_gpus_are_meant(gpus, monkeypatch):
    assert not distributed.takes_gpu("cpu") and not gpus
    assert distributed.takes_gpu("auto") and distributed.takes_gpu("cuda")
    assert gpus == [torch.device("cuda:1")] * 2
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # one on each machine
    assert distributed.takes_gpu("cuda:1") and gpus[2:] == [torch.device("cuda:1")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not distributed.takes_gpu("auto") and len(gpus) == 3


def test_a_gpu_that_cannot_be_taken_is_one_sentence(gpus, monkeypatch):
    with pytest.raises(ValueError, match="device is cuda:0, which 2 processes .* cannot share"):
        distributed.takes_gpu("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="3 processes and 2 GPUs"):
        distributed.takes_gpu("auto")
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(ValueError, match="use torchrun"):
        distributed.takes_gpu("cuda")
    assert not gpus


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("auto", "cpu:gloo,cuda:nccl")])
def test_nccl_joins_the_processes_where_they_compute_on_gpus(gpus, monkeypatch, device, backend):
    joined = []

    def join(chosen: str, **kwargs: object) -> None:
        joined.append((chosen, kwargs["timeout"]))
        raise RuntimeError("far enough")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "rendezvous", lambda _: iter([(torch.distributed.HashStore(), 1, 2)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", join)
    with pytest.raises(RuntimeError, match="far enough"), distributed.processes(device):
        pass
    assert joined == [(backend, distributed.TIMEOUT)] and len(gpus) == (device == "auto")


def test_what_nccl_has_begun_is_ended_where_there_is_nccl(monkeypatch):
    ended = []

    class Group:
        def _get_backend(self, device: torch.device) -> "Group":
            assert device.type == "cuda"
            return self

        def abort(self) -> None:
            ended.append("nccl")

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed.distributed_c10d, "_get_default_group", Group)
    monkeypatch.setattr(torch.distributed, "get_backend_config", lambda: "cpu:gloo,cuda:gloo")
    distributed.abandon_gpus()
    assert not ended
    monkeypatch.setattr(torch.distributed, "get_backend_config", lambda: "cpu:gloo,cuda:nccl")
    distributed.abandon_gpus()
    assert ended == ["nccl"]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process."""
    folder = tmp_path_factory.mktemp("one") / "run"
    run(train_command(1, folder))
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run on two."""
    folder = tmp_path_factory.mktemp("two") / "run"
    run(train_command(2, folder))
    return folder


@pytest.mark.slow
def test_two_ranks_train_what_one_does(one: Path, two: Path):
    """50 steps: 25 with BatchNorm in train mode, 25 of both losses with it frozen."""
    assert difference(one, two, "checkpoints/stage1.safetensors") < 1e-5
    assert difference(one, two) < 1e-5
    assert curriculum(one) == curriculum(two) and curriculum(one)[-1][0] > 0


@pytest.mark.slow
def test_two_ranks_measure_exactly_what_one_does(one: Path, tmp_path: Path):
    metrics = ["--metrics", "clean_accuracy", "robust_accuracy", "generation", "calibration"]
    for ranks in (1, 2):
        output = str(tmp_path / f"{ranks}.json")
        run(command(ranks, "evaluate", str(one), *metrics, "--output", output))
    assert figures(tmp_path / "1.json") == figures(tmp_path / "2.json")
    assert len(figures(tmp_path / "1.json")) > 5


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run_with_a_checkpoint_and_a_resume_goes_on(one: Path, tmp_path: Path):
    """Killed on two ranks in stage 2, ended by one, compared with the run that never stopped."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        train_command(2, folder),
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    metrics, deadline = folder / "metrics.jsonl", time.monotonic() + 300
    while not (metrics.is_file() and '"stage": 2, "step": 3' in metrics.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(second_rank(process.pid), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "another process of this run is gone" in errors or "stopped by SIGTERM" in errors
    listed = json.loads((folder / "checkpoints" / "latest.json").read_text())["generations"][0]["file"]
    assert listed.startswith("state-2-")
    run(train_command(1, folder, "--resume"))
    assert difference(one, folder) < 1e-5 and curriculum(one) == curriculum(folder)


@pytest.mark.slow
def test_torchrun_restarts_a_run_and_one_rank_becomes_two(one: Path, tmp_path: Path):
    """Stopped by a signal on one rank, gone on with on two, one of which is killed and restarted by torchrun."""
    folder = tmp_path / "run"
    process = subprocess.Popen(train_command(1, folder), env=environment(), stderr=subprocess.DEVNULL)
    metrics, deadline = folder / "metrics.jsonl", time.monotonic() + 300
    while not (metrics.is_file() and '"stage": 1, "step": 6' in metrics.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0
    again = subprocess.Popen(
        train_command(2, folder, "--resume", restarts=1),
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    while '"stage": 2, "step": 5' not in metrics.read_text():
        assert again.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(second_rank(again.pid), signal.SIGKILL)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors[-3000:]
    assert difference(one, folder) < 1e-5 and curriculum(one) == curriculum(folder)


def second_rank(launcher: int) -> int:
    """Process id of torchrun's worker with RANK=1."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            variables = (entry / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if parent == launcher and b"RANK=1" in variables:
            return int(entry.name)
    raise AssertionError("torchrun has no second worker")


@pytest.mark.slow
def test_what_several_processes_cannot_do_is_one_sentence(tmp_path: Path):
    done = subprocess.run(
        command(2, "train", "digits", "--method", "jem", "--output", str(tmp_path / "a")),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0 and "method jem keeps a replay buffer" in done.stderr
    done = subprocess.run(
        train_command(2, tmp_path / "b", "--stage1.batch-size", "15"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0 and "batch_size is 15" in done.stderr
