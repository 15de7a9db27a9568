"""Operations, memory and passes seen on tensors without data, against sums by hand, real tensors, and published speeds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dualat.methods.base import Batch, Method
from dualat.methods.curriculum import Curriculum
from dualat.methods.registry import build_method, method_settings
from dualat.models.batchnorm import set_train_mode
from dualat.models.registry import build_network
from dualat.models.settings import NetworkSettings
from dualat.planning.hardware import HARDWARE, find_hardware, recognise
from dualat.planning.memory import Memory, memory
from dualat.planning.observe import KERNEL_SECONDS, META, Observation, observe, on_gpu
from dualat.planning.step import count_passes, step_cost
from dualat.training.optimizer import build_optimizer
from dualat.training.settings import StageSettings
from dualat.training.step import train_step

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def network(
    name: str, side: int, where: torch.device | str = META, checkpoint_activations: bool = False
) -> nn.Module:
    settings = NetworkSettings(name=name, checkpoint_activations=checkpoint_activations)
    with torch.device(where):
        return build_network(settings, (3, side, side), 10, [0.5] * 3, [0.25] * 3)


def meta(*shape: int, grad: bool = False) -> torch.Tensor:
    return torch.empty(*shape, device=META, requires_grad=grad)


def test_operations_of_a_linear_layer():
    layer = nn.Linear(100, 10, device=META)
    x = meta(7, 100)
    assert observe(lambda: layer(x)).flops == 2 * 7 * 100 * 10
    assert observe(lambda: layer(x).sum().backward()).flops == 2 * (2 * 7 * 100 * 10)  # to the weights too
    x = meta(7, 100, grad=True)
    assert observe(lambda: layer(x).sum().backward()).flops == 3 * (2 * 7 * 100 * 10)  # and to the input


def test_a_depthwise_convolutions_gradient_is_not_counted_once_per_group():
    layer = nn.Conv2d(32, 32, 7, padding=3, groups=32, device=META)
    x = meta(2, 32, 8, 8, grad=True)
    forward = 2 * 2 * 32 * 8 * 8 * 49
    assert observe(lambda: layer(x)).flops == forward
    assert observe(lambda: layer(x).sum().backward()).flops == 3 * forward


@pytest.mark.parametrize(("name", "side"), [("wrn-28-2", 32), ("timm/resnet50", 64)])
def test_operations_are_those_of_real_tensors(name: str, side: int):
    def counted(model: nn.Module, x: torch.Tensor) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(x)
        return counter.get_total_flops()

    bare = network(name, side).eval()
    found = observe(lambda: bare(meta(1, 3, side, side))).flops
    assert found == counted(network(name, side, "cpu"), torch.rand(1, 3, side, side))
    if name == "wrn-28-2":
        record = json.loads((RESULTS / "cpu-2-cores-avx512-bf16.json").read_text())
        assert found == record["forward_gflop_per_image"] * 1e9


def test_bytes_that_a_convolution_keeps_for_its_gradient():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 3, padding=1)).to(META)
    image, hidden, output = (4 * n * 16 * 16 * 4 for n in (3, 8, 5))  # 4 images, float32
    seen = observe(lambda: model(torch.empty(4, 3, 16, 16, device=META)))
    assert seen.left == image + hidden + output  # the first convolution's own output is not kept
    assert seen.peak == image + 2 * hidden  # while the ReLU makes its own of it
    with torch.no_grad():
        seen = observe(lambda: model(torch.empty(4, 3, 16, 16, device=META)))
    assert seen.left == output


def test_memory_on_meta_is_that_of_real_tensors():
    def learn(model: nn.Module, where: str) -> Callable[[], object]:
        def work() -> None:
            x = torch.ones(8, 3, 32, 32, device=where)
            F.cross_entropy(model(x), torch.zeros(8, dtype=torch.int64, device=where)).backward()

        return work

    seen = [observe(learn(network("wrn-10-1", 32, where).train(), where)) for where in ("meta", "cpu")]
    assert seen[0].left == seen[1].left > 0
    assert seen[0].peak == pytest.approx(seen[1].peak, rel=0.02)
    assert seen[0].flops == seen[1].flops


def test_autocast_on_meta_keeps_what_autocast_keeps():
    def kept(where: str) -> Observation:
        model = network("wrn-10-1", 32, where).train()
        for parameter in model.parameters():
            parameter.grad = None
        if where == "meta":
            with on_gpu(torch.bfloat16):
                return observe(lambda: model(torch.ones(8, 3, 32, 32, device=where)))
        with torch.autocast("cpu", torch.bfloat16):
            return observe(lambda: model(torch.ones(8, 3, 32, 32)))

    low = kept("meta")
    assert low.left == pytest.approx(kept("cpu").left, rel=0.02)
    full = observe(lambda: network("wrn-10-1", 32).train()(meta(8, 3, 32, 32)))
    assert 0.4 < low.left / full.left < 0.7


def test_attention_does_not_keep_its_weights():
    model = network("timm/vit_tiny_patch16_224", 256).train()
    plain = observe(lambda: model(meta(4, 3, 256, 256)))
    with on_gpu(torch.float32):
        fused = observe(lambda: model(meta(4, 3, 256, 256)))
    assert plain.left - fused.left == pytest.approx(
        12 * 4 * 3 * 257**2 * 4, rel=0.01
    )  # layers, images, heads, N x N
    assert plain.flops == fused.flops


def test_checkpointing_is_seen():
    at, (plain, again) = made("standard-at"), (False, True)
    passes = count_passes(at, 3, 10)
    costs = {
        flag: step_cost(
            network("wrn-10-1", 32, checkpoint_activations=flag).train(),
            at,
            passes,
            8,
            (3, 32, 32),
            torch.bfloat16,
        )
        for flag in (plain, again)
    }
    assert costs[again].learn.peak < 0.8 * costs[plain].learn.peak
    assert 1.1 < costs[again].learn.flops / costs[plain].learn.flops < 4 / 3


def test_least_time_is_of_arithmetic_or_of_traffic():
    seen = Observation(flops=10**12, parts=[(10**12, 10**6), (0, 10**9), (0, 8)])
    assert seen.least_seconds(1e12, 1e9) == 1 + 1 + KERNEL_SECONDS
    assert seen.least_seconds(1e12, None) == 1


def made(name: str, size: int = 128, **groups: dict[str, Any]) -> Method:
    """A method as published, but for some settings: attacks of 10 steps, T_max 50."""
    return build_method(method_settings({"name": name, **groups}), size)


@pytest.mark.parametrize(
    ("method", "loop", "first", "forward", "learn", "penalty"),
    [
        (made("standard-at"), 10, 0, 0, 1, 0),
        (made("dat"), 10 + 50, 0, 0, 3, 0),  # real, contrastive and adversarial images
        (made("dat", loss={"cross_entropy": 0}), 50, 0, 0, 3, 0),
        (made("dat", loss={"r1": 0.1}), 60, 0, 0, 3, 1),
        (made("jem"), 20, 0, 0, 3, 0),
        (made("jempp"), 10, 10 * 5, 0, 3, 0),
        (made("sada-jem"), 5, 0, 0, 2 * 3, 0),
        (made("robust-jem"), 20 + 10, 0, 0, 3, 0),
        (made("ratio"), 10 + 20, 0, 2, 2, 0),  # the last iterates are judged too
        (made("at-ebm"), 50 + 5, 0, 0, 2, 1),
        (made("egc"), 0, 0, 0, 0, 1),
        (made("eb-jdat", attack={"steps": 5}), 10 + 5, 0, 0, 4, 0),
    ],
    ids=lambda value: value.name if isinstance(value, Method) else "",
)
def test_passes_are_those_counted_by_hand(
    method: Method, loop: int, first: int, forward: int, learn: int, penalty: int
):
    if isinstance(curriculum := getattr(method, "curriculum", None), Curriculum):
        curriculum.steps = curriculum.t_max
    state = torch.random.get_rng_state()
    found = count_passes(method, 3, 10)
    assert (found.loop, found.first, found.forward, found.learn, found.penalty) == (
        loop,
        first,
        forward,
        learn,
        penalty,
    )
    assert found.rounds == (2 if method.name == "sada-jem" else 1)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_steps_operations_are_its_passes():
    dat = made("dat")
    assert dat.curriculum is not None
    dat.curriculum.steps = 50
    model = network("wrn-10-1", 32)
    forward = observe(lambda: model(meta(1, 3, 32, 32))).flops
    first = 2 * 32 * 32 * 3 * 16 * 9  # images of the loss need no gradient: not through the first layer
    cost = step_cost(model, dat, count_passes(dat, 3, 10), 4, (3, 32, 32), torch.float32)
    assert cost.flops() == 60 * 2 * forward + 3 * (3 * forward - first)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_real_training_step_takes_what_was_seen_without_data(parts: int):
    torch.manual_seed(0)
    dat, shape, size = made("dat", 8, contrastive={"t_max": 2}), (3, 32, 32), 8
    assert dat.curriculum is not None
    dat.curriculum.steps = 2
    bare = network("wrn-10-1", 32)
    set_train_mode(bare, True)
    cost = step_cost(bare, dat, count_passes(dat, 3, 10), size // parts, shape, torch.float32)
    model: Any = network("wrn-10-1", 32, "cpu")
    stage = StageSettings(
        method=dat.settings, steps=1, batch_size=size, freeze_batchnorm=True, accumulate=parts
    )
    optimizer = build_optimizer(model, stage.optimizer)

    def step() -> None:
        first, real, starts = (torch.rand(size, *shape) for _ in range(3))
        labels = torch.arange(size)
        train_step(
            model, dat, Batch(first, labels, real, labels, starts), optimizer, 0.1, stage, torch.float32
        )

    seen = observe(step)
    assert seen.flops == size * cost.flops()
    gradients = sum(4 * p.numel() for p in model.parameters()) if parts > 1 else 0  # of the part before
    waiting = (size - size // parts) * cost.image_bytes
    assert seen.peak == pytest.approx(cost.learn.peak + gradients + waiting, rel=0.02)


def test_every_methods_step_can_be_seen():
    for method in (
        made("jempp"),
        made("sada-jem"),
        made("at-ebm", 8),
        made("ratio"),
        made("egc"),
    ):
        passes = count_passes(method, 3, 10)
        cost = step_cost(network("wrn-10-1", 16), method, passes, 2, (3, 16, 16), torch.bfloat16)
        assert (cost.first.flops > 0) == (method.name == "jempp")
        assert (cost.forward.flops > 0) == (method.name == "ratio")
        once = cost.learn.flops * passes.rounds + cost.loop.flops * passes.loop
        assert (
            cost.flops() * 2 == once + cost.first.flops * passes.first + cost.forward.flops * passes.forward
        )


def test_memory_item_by_item():
    at = made("standard-at")
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 10)).to(META)
    weights = (48 * 10 + 10) * 4
    cost = step_cost(model, at, count_passes(at, 3, 10), 4, (3, 4, 4), torch.float32)
    held = memory(model, cost, slots=2, sharpness=True, batch=12, compiled=True, context=1000)
    assert (held.weights, held.gradients, held.optimizer, held.average) == (
        weights,
        weights,
        2 * weights,
        weights,
    )
    assert held.copies == 3 * weights
    assert held.images == 8 * (2 * 48 * 4)  # the batch and its adversarial images
    assert held.activations == cost.learn.peak and held.loop == cost.loop.peak
    assert held.total == held.tensors + held.slack + 1000
    shared = memory(model, cost, slots=0, sharpness=False, batch=4, compiled=False, context=0)
    assert shared.activations == max(cost.learn.peak, cost.loop.peak) and shared.loop == shared.optimizer == 0


def test_the_largest_part_that_fits():
    held = Memory(10, 10, 10, 10, 10, 0, activations=100, loop=0, slack=10, context=50)
    assert held.total == 210
    assert held.largest_part(210, 8) == 8
    assert held.largest_part(209, 8) == 7
    assert held.largest_part(100 + 110 / 8, 8) == 1
    assert held.largest_part(100, 8) == 0


@pytest.mark.parametrize(
    ("name", "batch", "published"),
    [("resnet50", 512, 1218.01), ("wide_resnet50_2", 384, 668.78), ("convnext_base", 128, 338.68)],
)
def test_published_training_speeds_of_an_rtx_3090(name: str, batch: int, published: float):
    """timm's results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv, 224x224: within 15 %."""
    timm = pytest.importorskip("timm")
    with META:
        model = timm.create_model(name).train()
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)

    def learn() -> None:
        labels = torch.zeros(batch, dtype=torch.int64, device=META)
        F.cross_entropy(model(meta(batch, 3, 224, 224)).float(), labels).backward()

    with on_gpu(torch.bfloat16):
        seen = observe(learn)
    device = HARDWARE["rtx3090"]
    seconds = seen.least_seconds(device.peaks["bf16"], device.bandwidth) / device.efficiency
    assert batch / seconds == pytest.approx(published, rel=0.15)
    assert device.memory is not None and seen.peak < device.memory  # it was measured there with this batch


def test_the_committed_benchmark_is_what_the_table_says_of_a_cpu():
    record = json.loads((RESULTS / "cpu-2-cores-avx512-bf16.json").read_text())
    assert HARDWARE["cpu"].peaks == {k: v * 1e9 for k, v in record["matmul_peak_gflops"].items()}
    rows = record["tasks"]["train_step"]
    assert pytest.approx(rows["dualat bf16 eager"]["mfu"], abs=0.01) == HARDWARE["cpu"].efficiency


def test_gpus_by_name():
    assert find_hardware("h100").peaks["bf16"] == 989.4e12
    with pytest.raises(ValueError, match="Did you mean a100"):
        find_hardware("A100")
    known = {"NVIDIA H100 80GB HBM3": "h100", "NVIDIA H100 PCIe": "h100-pcie", "NVIDIA H200": "h200"}
    known |= {"NVIDIA A100-SXM4-40GB": "a100-40", "NVIDIA A100-SXM4-80GB": "a100"}
    known |= {"Tesla V100-SXM2-32GB": "v100", "NVIDIA GeForce RTX 4090": "rtx4090"}
    for told, name in known.items():
        found = recognise(told)
        assert found is not None and found.name == name
    assert recognise("AMD EPYC") is None
