"""The compiled step gives what the eager one gives, is traced once, and leaves the model as it was."""

import copy
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import dualat
from dualat.config import load_recipe
from dualat.core import compiled as fast
from dualat.core.compiled import shared_view
from dualat.core.geometry import ThreatModel
from dualat.core.loop import GradientLoop, pgd
from dualat.core.objectives import lower_energy, raise_confidence, raise_cross_entropy, target_class
from dualat.data.images import ImageData
from dualat.methods.registry import METHODS
from dualat.models.wide_resnet import WideResNet
from dualat.run import stages as run_stages
from dualat.run.model import new_model

SHAPE = (2, 8, 8)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(WideResNet(10, 1, 5, channels=2, activation="silu"))


@pytest.fixture
def quick(monkeypatch):
    """Traced and run as a graph, without the minutes of a C++ compiler."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


def images(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, *SHAPE, generator=generator), torch.arange(count) % 5


def climbing(*given, **settings):
    """A function of what to climb on: a model, or a loop."""
    return lambda on, **more: pgd(on, *given, **settings, **more)


def compiling(model: nn.Module, batch_size: int | None = 12) -> GradientLoop:
    return GradientLoop(model, compile=True, batch_size=batch_size)


def ran_compiled(loop: GradientLoop, graphs: int = 1) -> bool:
    return loop.compiled and len(loop.steps.graphs) == graphs


OBJECTIVES = {
    "joint energy": lower_energy,
    "marginal energy": lambda labels: lower_energy(),
    "cross-entropy": raise_cross_entropy,
    "target class": target_class,
    "confidence": lambda labels: raise_confidence(),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("threat", [None, ThreatModel("L2", 0.5), ThreatModel("Linf", 0.05)])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_twenty_steps_are_the_eager_ones(model, objective, threat):
    x, labels = images()
    run = climbing(x, OBJECTIVES[objective](labels), threat, steps=20, step_size=0.05)
    eager = run(model)
    loop = compiling(model)
    assert not loop.steps.graphs
    torch.testing.assert_close(run(loop), eager, rtol=0, atol=1e-4)
    assert ran_compiled(loop)  # it did run compiled


def test_the_real_compiler_gives_the_eager_result_too():
    torch.manual_seed(
        0
    )  # a network of each kind of layer, once: the C++ compiler takes seconds for every one
    features = (nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(*features, nn.Flatten(), nn.Linear(8, 5)).eval()
    x, labels = images()
    run = climbing(x, lower_energy(labels), steps=20, step_size=0.05)
    eager = run(model)
    loop = compiling(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        torch.testing.assert_close(run(loop), eager, rtol=0, atol=1e-4)
        assert ran_compiled(loop)


@pytest.mark.usefixtures("quick")
def test_momentum_and_schedules_run_compiled_too(model):
    x, labels = images(30)
    x = x.contiguous(memory_format=torch.channels_last)
    run = climbing(x, lower_energy(labels), steps=6, step_size=0.1, schedule="cosine")
    plain, heavy = run(model), run(model, momentum=0.9)
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    loop = compiling(model)
    torch.testing.assert_close(run(loop), plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(run(loop, momentum=0.9), heavy, rtol=0, atol=1e-5)
    torch.testing.assert_close(run(loop, momentum=0.9), heavy, rtol=0, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 2
    assert (plain - heavy).abs().max() > 1e-3


RULES = [
    {"rule": "L2"},
    {"rule": "Linf"},
    {"rule": "gradient"},
    {"rule": "clipped"},
    {"rule": "gradient", "noise": 0.01, "clip": False},
    {"rule": "clipped", "noise": 0.02, "momentum": 0.5, "keep": "best"},
    {"rule": "gradient", "schedule": "exponential", "clip": False},
]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("settings", RULES, ids=str)
@pytest.mark.parametrize("threat", [None, ThreatModel("Linf", 0.1)])
def test_every_rule_noise_and_no_clipping_run_compiled(model, settings, threat):
    x, labels = images()
    run = climbing(x, lower_energy(labels), threat, steps=20, step_size=0.02, **settings)
    seeded = torch.Generator().manual_seed
    eager, loop = run(model, generator=seeded(3)), compiling(model)
    torch.testing.assert_close(run(loop, generator=seeded(3)), eager, rtol=0, atol=1e-4)
    assert ran_compiled(loop)
    assert (eager - x).abs().max() > 1e-3
    run(loop, generator=seeded(3))
    assert ran_compiled(loop)  # nothing new is traced


@pytest.mark.usefixtures("quick")
def test_a_loop_is_nobodys_but_its_owners(model):
    """A table of models by identity lost a wrapper or a copy without a word; what is handed on cannot be lost."""
    x, labels = images()
    run = climbing(x, lower_energy(labels), steps=2, step_size=0.05)
    wrapped = compiling(dualat.JointEnergyModel(copy.deepcopy(model)), batch_size=None)
    torch.testing.assert_close(run(wrapped), run(model), rtol=0, atol=1e-5)
    assert ran_compiled(wrapped) and wrapped.steps.sizes == (len(x),)
    torch.testing.assert_close(
        wrapped.climb(x, lower_energy(labels), steps=2, step_size=0.05), run(wrapped), rtol=0, atol=0
    )
    eager = GradientLoop(model)
    assert torch.equal(run(eager), run(model)) and not eager.compiled


@pytest.mark.usefixtures("quick")
def test_parts_are_made_once_and_compiled_as_the_whole_is(model):
    x, made = images()[0], []
    loop = compiling(model)
    for _ in range(2):
        part = loop.part("scaled", lambda whole: made.append(whole) or dualat.JointEnergyModel(whole))
        pgd(part, x, lower_energy(), steps=1, step_size=0.1)
    assert made == [model] and ran_compiled(part) and not loop.steps.graphs
    assert not GradientLoop(model).part("scaled", dualat.JointEnergyModel).compiled


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("count", [6, 11, 12, 13, 30])
def test_any_number_of_images_and_every_hook(model, count):
    x, labels = images(count)
    seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    run = climbing(
        x,
        raise_cross_entropy(labels),
        ThreatModel("L2", 0.5),
        steps=4,
        step_size=0.3,
        keep="best",
    )
    eager = run(model, callback=lambda *told: seen.append(told))
    half, seen = seen, []
    loop = compiling(model)
    torch.testing.assert_close(run(loop, callback=lambda *told: seen.append(told)), eager, rtol=0, atol=1e-5)
    assert ran_compiled(loop)
    assert [t for t, _, _ in seen] == [0, 1, 2, 3, 4]
    for (_, x, value), (_, other, expected) in zip(seen, half, strict=True):
        torch.testing.assert_close(x, other, rtol=0, atol=1e-5)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("quick")
def test_batches_of_two_sizes_are_compiled_in_their_own(model):
    """Half a batch of contrastive samples costs half a batch: it is not filled up."""
    loop, seen = compiling(model, (12, 6)), []
    forward = loop.steps.view.forward
    loop.steps.view.forward = lambda x: seen.append(len(x)) or forward(x)
    for count, objective in ((12, raise_cross_entropy), (6, lower_energy), (5, lower_energy)):
        x, labels = images(count)
        run = climbing(x, objective(labels), steps=2, step_size=0.1)
        torch.testing.assert_close(run(loop), run(model), rtol=0, atol=1e-5)
    assert ran_compiled(loop, 2) and set(seen) == {12, 6}


@pytest.mark.usefixtures("quick")
def test_few_images_and_foreign_objectives_run_eagerly(model):
    x, labels = images(5)
    loop = compiling(model)
    pgd(loop, x, lower_energy(labels), steps=1, step_size=0.1)
    pgd(loop, images(12)[0], lambda logits: logits[:, 0], steps=1, step_size=0.1)
    assert not loop.steps.graphs and loop.compiled


@pytest.mark.usefixtures("quick")
def test_it_is_traced_once_for_all_steps_radii_labels_modes_and_weights(model):
    x, labels = images()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    loop = compiling(model)
    for i in range(6):
        model.train(i % 2 == 0)
        threat = ThreatModel("L2", 0.1 + i)
        with torch.set_grad_enabled(i % 3 == 0):
            pgd(loop, x, lower_energy(labels.roll(i)), threat, steps=i, step_size=0.1 * (i + 1))
        model(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.usefixtures("quick")
def test_it_follows_the_weights_and_leaves_the_model_as_found(model):
    x, labels = images()
    model.train()
    model[0].conv1.weight.requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    run = climbing(x, lower_energy(labels), steps=3, step_size=0.2)
    loop = compiling(model)
    first = run(loop)
    assert model.training and [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) * 0.3)
    second = run(loop)
    torch.testing.assert_close(second, run(model), rtol=0, atol=1e-4)
    assert (first - second).abs().max() > 1e-2


def test_a_view_shares_storage_and_needs_no_gradient(model):
    view = shared_view(model)
    for own, other in zip(model.state_dict().values(), view.state_dict().values(), strict=True):
        assert own.data_ptr() == other.data_ptr()
    assert not any(p.requires_grad for p in view.parameters())
    assert model.training and not any(m.training for m in view.modules())


def test_a_view_pools_by_a_mean_and_gives_the_same_logits():
    """PyTorch 2.11 compiles the backward pass of its own pooling wrongly in channels-last networks such as ConvNeXt."""
    torch.manual_seed(0)
    pool = nn.AdaptiveAvgPool2d(1)
    network = nn.Sequential(nn.Conv2d(2, 6, 3), pool, nn.Flatten(), nn.Linear(6, 5))
    other = nn.Sequential(nn.AdaptiveAvgPool2d((2, 1)), nn.AdaptiveAvgPool2d((1, 1)))
    x = images()[0]
    for module in (network, other):
        torch.testing.assert_close(shared_view(module)(x), module(x))
    assert not any(isinstance(m, nn.AdaptiveAvgPool2d) for m in shared_view(network).modules())
    assert network[1] is pool
    assert isinstance(shared_view(other)[0], nn.AdaptiveAvgPool2d)  # this one is no plain mean


def test_without_a_compiler_one_warning_and_eager_steps(model, monkeypatch):
    def broken(function, **_):
        def call(*_):
            raise RuntimeError("no C++ compiler\nlong advice")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    x, labels = images()
    eager = pgd(model, x, lower_energy(labels), steps=2, step_size=0.1)
    loop = compiling(model)
    with pytest.warns(UserWarning, match="runs uncompiled.*no C\\+\\+ compiler\\.$"):
        assert torch.equal(pgd(loop, x, lower_energy(labels), steps=2, step_size=0.1), eager)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pgd(loop, x, raise_cross_entropy(labels), steps=2, step_size=0.1)
    assert not loop.compiled


def test_cuda_graphs_are_marked_replayed_and_their_outputs_copied(model, monkeypatch):
    """A stand-in that behaves as CUDA graphs do: each replay writes its outputs where the one before wrote them."""
    events: list[str] = []
    options: list[dict] = []

    def graphs(function, **given):
        options.append(given)
        places: list[torch.Tensor] = []

        def replay(*inputs):
            events.append("replay")
            found = function(*inputs)
            if not places:
                places.extend(torch.empty_like(tensor) for tensor in found)
            for place, tensor in zip(places, found, strict=True):
                place.copy_(tensor)
            return tuple(places)

        return replay

    x, labels = images(24)
    told: list[tuple[torch.Tensor, torch.Tensor]] = []
    run = climbing(
        x,
        raise_cross_entropy(labels),
        ThreatModel("L2", 0.5),
        steps=4,
        step_size=0.2,
        momentum=0.5,
        callback=lambda t, x, value: told.append((x, value)),
    )
    eager = run(model)
    expected, told = told, []
    monkeypatch.setattr(torch, "compile", graphs)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: events.append("mark"))
    monkeypatch.setattr(fast, "replays", lambda kind: True)
    loop = compiling(model)
    torch.testing.assert_close(run(loop), eager, rtol=0, atol=1e-5)
    assert options == [{"dynamic": False, "fullgraph": True, "mode": "reduce-overhead"}]
    trial = 3 * 2  # warmed up, recorded, replayed, on two parts
    assert events == ["mark", "replay"] * (trial + 4 * 2)
    for (x, value), (other, known) in zip(told, expected, strict=True):
        torch.testing.assert_close(x, other, rtol=0, atol=1e-5)
        torch.testing.assert_close(value, known, rtol=1e-4, atol=1e-4)


def test_graphs_are_for_cuda_alone():
    assert fast.replays("cuda") and not any(map(fast.replays, ("cpu", "mps", "xpu")))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("threat", [None, ThreatModel("Linf", 0.05)])
def test_the_compiled_loop_makes_no_tensor_from_the_host(model, threat, monkeypatch):
    """On CUDA that would be a copy that waits for the device; fill kernels do not."""
    x, labels = images()
    loop = compiling(model)
    run = climbing(x, lower_energy(labels), threat, steps=3, step_size=0.05)
    expected = run(loop)
    monkeypatch.setattr(torch, "tensor", lambda *_, **__: pytest.fail("a copy from the host"))
    torch.testing.assert_close(run(loop), expected, rtol=0, atol=0)


@pytest.mark.usefixtures("quick")
def test_a_run_trains_alike_compiled(tiny, tiny_run, tmp_path, monkeypatch):
    ran = []
    original = fast.CompiledSteps.advance
    monkeypatch.setattr(
        fast.CompiledSteps, "advance", lambda self, *a: ran.append(self.failed) or original(self, *a)
    )
    run = dualat.train("digits", {**tiny, "output": str(tmp_path / "run"), "compile": "on"})
    assert ran and not any(ran)
    plain, loaded = dualat.load(tiny_run).state_dict(), dualat.load(run).state_dict()
    for key, value in plain.items():
        torch.testing.assert_close(loaded[key], value, rtol=1e-3, atol=1e-3)


def test_compiling_is_chosen_for_long_runs_alone():
    for recipe, shape, size, expected in (
        ("digits", (1, 8, 8), 1200, False),
        ("cifar10", (3, 32, 32), 49_000, True),
    ):
        config = load_recipe(recipe, {"device": "cpu"})
        data = ImageData(
            torch.zeros(size, *shape, dtype=torch.uint8),
            torch.arange(size) % 10,
            tuple("0123456789"),
            "black",
        )
        data.images[: size // 2] = 255
        model = new_model(config, data, torch.device("cpu"))
        stages = run_stages.stage_plan(config, data)
        chosen = {
            mode: run_stages.worth_compiling(replace(config, compile=mode), model, data, stages)
            for mode in ("auto", "on", "off")
        }
        assert chosen == {"auto": expected, "on": True, "off": False}


def test_compiling_is_refused_where_there_is_nothing_to_compile():
    refused = set()
    for method in METHODS:
        config = load_recipe("digits", {"device": "cpu", "method": method, "compile": "on"})
        data = ImageData(
            torch.arange(64, dtype=torch.uint8).repeat(20).view(20, 1, 8, 8),
            torch.arange(20) % 10,
            tuple("0123456789"),
            "grey",
        )
        model = new_model(config, data, torch.device("cpu"))
        stages = run_stages.stage_plan(config, data)
        try:
            assert run_stages.worth_compiling(config, model, data, stages)
        except ValueError as error:
            text = f"compile is on, but {method} has no gradient loop that can be compiled: leave it at auto."
            assert str(error) == text
            refused.add(method)
            assert not run_stages.worth_compiling(replace(config, compile="auto"), model, data, stages)
    assert refused == {"egc"}


class Pair(nn.Module):
    """Logits and features, as some models give both."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.network(x), x


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_in_other_precisions_and_with_more_outputs_run_compiled_too(model, dtype):
    x, labels = images()
    model = Pair(model.to(dtype))
    run = climbing(x, lower_energy(labels), ThreatModel("L2", 0.5), steps=3, step_size=0.05)
    eager = run(model)
    loop = compiling(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = run(loop)
        assert ran_compiled(loop)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found, eager, rtol=0, atol=1e-9 if dtype == torch.float64 else 5e-3)


@pytest.mark.usefixtures("quick")
def test_the_default_type_changes_nothing(model, double_by_default):
    x, labels = (tensor.float() if tensor.is_floating_point() else tensor for tensor in images())
    run = climbing(x, lower_energy(labels), ThreatModel("L2", 0.5), steps=3, step_size=0.05, momentum=0.5)
    loop = compiling(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = run(loop)
    torch.set_default_dtype(torch.float32)
    loop = compiling(model)
    assert torch.equal(found, run(loop))


@pytest.mark.usefixtures("quick")
def test_what_is_not_finite_is_refused_after_compiled_steps(model):
    x, labels = images()
    with torch.no_grad():
        model[0].fc.weight[labels[0], 0] = float("nan")
    loop = compiling(model)
    with pytest.raises(ValueError, match="not finite"):
        pgd(loop, x, lower_energy(labels), steps=2, step_size=0.05)
