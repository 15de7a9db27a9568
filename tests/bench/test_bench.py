"""The benchmark measures what it says: the same results, counted operations, ratios to the textbook."""

import sys
from dataclasses import replace
from functools import partial

import pyautoattack
import pytest
import torch

from dualat.bench import textbook
from dualat.bench.autoattacks import autoattacks
from dualat.bench.contenders import arithmetic, build
from dualat.bench.measure import Timing, interleaved, matmul_peak, ratios
from dualat.bench.others import attack_libraries
from dualat.bench.run import (
    against_libraries,
    bench,
    choose_precisions,
    operations,
    reference_name,
    shares,
)
from dualat.bench.settings import BenchSettings
from dualat.cli.bench import sentences
from dualat.core.geometry import ThreatModel
from dualat.core.loop import pgd
from dualat.core.objectives import lower_energy, raise_cross_entropy
from dualat.models.wide_resnet import WideResNet

SMALL = BenchSettings(
    network="wrn-10-1",
    channels=1,
    image_size=8,
    batch_size=8,
    steps=3,
    attack_steps=2,
    repeats=3,
    precisions=("fp32",),
    autoattack_images=2,
)

FOOLBOX = """
from dualat.bench import textbook
class PyTorchModel:
    def __init__(self, model, bounds, device):
        assert bounds == (0, 1)
        self.model = model
class attacks:
    class L2ProjectedGradientDescentAttack:
        def __init__(self, *, rel_stepsize=0.025, abs_stepsize=None, steps=50, random_start=True):
            assert not random_start
            self.size, self.steps = abs_stepsize, steps
        def __call__(self, model, inputs, criterion, *, epsilons):
            clipped = textbook.attack(model.model, inputs, criterion, epsilons, self.steps, self.size)
            return None, clipped, None
"""
TORCHATTACKS = """
from dualat.bench import textbook
class PGDL2:
    def __init__(self, model, eps=1.0, alpha=0.2, steps=10, random_start=True, eps_for_division=1e-10):
        assert not random_start
        self.settings = model, eps, steps, alpha
    def __call__(self, images, labels):
        model, eps, steps, alpha = self.settings
        return textbook.attack(model, images, labels, eps, steps, alpha)
"""


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """Stand-ins with the signatures of foolbox 3.3 and torchattacks 3.5, which attack as the textbook does."""
    for name, text in (("foolbox", FOOLBOX), ("torchattacks", TORCHATTACKS)):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("foolbox", "torchattacks"):
        sys.modules.pop(name, None)


@pytest.fixture
def model() -> WideResNet:
    torch.manual_seed(0)
    return WideResNet(10, 1, 5, channels=1, activation="silu").eval()


def test_the_textbook_computes_what_the_library_computes(model):
    x, labels = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 5
    ours = pgd(model, x, lower_energy(labels), steps=5, step_size=0.2)
    torch.testing.assert_close(textbook.sample(model, x, labels, 5, 0.2), ours, rtol=0, atol=1e-5)
    ours = pgd(model, x, raise_cross_entropy(labels), ThreatModel("L2", 0.3), steps=5, step_size=0.1)
    torch.testing.assert_close(textbook.attack(model, x, labels, 0.3, 5, 0.1), ours, rtol=0, atol=1e-5)


def test_a_textbook_step_lowers_its_loss(model):
    x, labels = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 5
    trainer = textbook.Trainer(model, steps=2, step_size=0.1, eps=0.1, attack_steps=2)
    trainer.optimizer.param_groups[0]["lr"] = 0.05
    losses = [trainer.step(x, labels, x, labels, x.flip(0)) for _ in range(8)]
    assert losses[-1] < losses[0]


@pytest.mark.usefixtures("short", "libraries")
def test_a_benchmark_tells_everything(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    lines: list[str] = []
    result = bench(SMALL, torch.device("cpu"), lines.append)
    assert set(result["tasks"]) == set(SMALL.tasks) - {"data", "logging"} and lines
    for task in ("train_step", "sampling", "attack", "classification"):
        rows = result["tasks"][task]
        assert result["references"][task] == "textbook fp32" and rows["textbook fp32"]["times_reference"] == 1
        assert {"dualat fp32 eager", "dualat fp32 compiled"} < set(rows)
        for row in rows.values():
            assert len(row["repeats"]) == 3 and row["seconds"] > 0 and row["mfu"] > 0
    assert {"foolbox fp32", "torchattacks fp32"} < set(result["tasks"]["attack"])
    assert result["attack_against_libraries"]["foolbox fp32"]["by"].startswith("dualat fp32 ")
    assert set(result["tasks"]["autoattack"]) == {"pyautoattack fp32", "dualat fp32"}
    assert set(result["autoattack_robust_accuracy"].values()) == {1.0}
    assert result["largest_difference_from_textbook"]["dualat fp32 compiled"] < 1e-4
    compared = result["largest_difference_of_compiled_from_eager"]
    assert compared["steps"] == 20 and 0 < compared["fp32 silu"] < 1e-4 and result["fell_back_to_eager"] == []
    assert {"fp32", "fp32 rounding"} < set(compared)
    costs = result["costs"]
    assert costs["logging"]["every"] == 10 and costs["data"]["every"] == 1
    assert costs["logging"]["seconds"] == costs["logging"]["seconds_each"] / 10 > 0
    assert 0 < result["data_share_of_train_step"] < 1 and 0 < result["logging_share_of_train_step"] < 1
    assert result["hardware"]["device"] and result["matmul_peak_gflops"]["fp32"] > 1
    said = "\n".join(sentences(result))
    assert "times as fast as torchattacks fp32" in said and "after 20 steps" in said and "logging" in said


def test_shares_are_of_the_fastest_step_of_ours_with_both_on_top():
    rows = {"data": {"seconds": 1.0}, "logging": {"seconds": 4.0}}
    steps = {"textbook fp32": {"seconds": 1.0}, "dualat a": {"seconds": 15.0}, "dualat b": {"seconds": 20.0}}
    found = shares(rows, {"train_step": steps})
    assert (found["data_share_of_train_step"], found["logging_share_of_train_step"]) == (0.05, 0.2)
    assert shares(rows, {}) == {"costs": rows}


def test_libraries_are_compared_at_equal_precision():
    timings = {
        "textbook fp32": Timing([1], 0),
        "foolbox fp32": Timing([6, 9, 6], 0),
        "foolbox bf16": Timing([2, 2, 2], 0),
        "dualat fp32 eager": Timing([4, 4, 4], 0),
        "dualat fp32 compiled": Timing([3, 3, 3], 0),
        "dualat bf16 eager": Timing([1, 1, 1], 0),
        "dualat bf16 compiled": Timing([2, 2, 2], 0),
    }
    assert against_libraries(timings) == {
        "foolbox fp32": {"by": "dualat fp32 compiled", "times": 2, "times_spread": [2, 3]},
        "foolbox bf16": {"by": "dualat bf16 eager", "times": 2, "times_spread": [2, 2]},
    }


@pytest.mark.usefixtures("libraries")
def test_every_library_makes_the_same_attack():
    settings = replace(SMALL, attack_steps=5)
    model, inputs = build(settings, torch.device("cpu"))
    expected = textbook.attack(model, inputs.images, inputs.labels, 0.5, 5, 0.25)
    found = attack_libraries(model, inputs, settings, ["fp32", "bf16"])
    assert list(found) == ["foolbox fp32", "foolbox bf16", "torchattacks fp32", "torchattacks bf16"]
    for name, works in found.items():
        images = works["attack"]()
        if "fp32" in name:
            torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
        else:  # autocast did run
            assert 1e-6 < (images - expected).abs().max() < 0.5  # type: ignore[operator]


@pytest.mark.usefixtures("short")
def test_both_autoattacks_run_the_same_attacks_with_the_same_targets(monkeypatch):
    ran: list[tuple[str, int]] = []
    targeted = pyautoattack.autopgd_base.APGDAttack_targeted
    original = targeted.perturb

    def perturb(self, x, y, *args, **kwargs):
        ran.append((self.loss, self.n_target_classes))
        return original(self, x, y, *args, **kwargs)

    monkeypatch.setattr(targeted, "perturb", perturb)
    settings = replace(SMALL, classes=5, autoattack_attacks=("apgd-t", "square"), autoattack_images=3)
    works = autoattacks(*build(settings, torch.device("cpu")), settings)
    assert [works[name]["autoattack"]() for name in ("pyautoattack fp32", "dualat fp32")] == [1.0, 1.0]
    assert len(ran) == 2 and len(set(ran)) == 1 and ran[0][1] == 4


def test_precisions_follow_the_hardware(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    assert choose_precisions(["auto"], cuda) == ["fp32", "tf32", "bf16"]
    assert choose_precisions(["bf16", "tf32"], cuda) == ["tf32", "bf16"]
    assert reference_name(cuda) == "textbook default" and reference_name(cpu) == "textbook fp32"
    assert choose_precisions(["bf16"], cpu) == ["bf16"] and "fp32" in choose_precisions(["auto"], cpu)
    with pytest.raises(ValueError, match="tf32, which .* lacks"):
        choose_precisions(["tf32"], cpu)
    found = torch.backends.cudnn.allow_tf32
    with arithmetic("fp32", cuda):
        assert not torch.backends.cudnn.allow_tf32
    with arithmetic("bf16", cuda):
        assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == found


def test_operations_are_counted_by_hand():
    settings = BenchSettings(batch_size=4, steps=3, attack_steps=5)
    assert operations("sampling", settings, 10.0) == 4 * 10 * 2 * 3
    assert operations("attack", settings, 10.0) == 4 * 10 * 2 * 5
    assert operations("classification", settings, 10.0) == 4 * 10
    assert operations("train_step", settings, 10.0) == 4 * 10 * (2 * 8 + 9)
    assert operations("autoattack", settings, 10.0) is None


def test_contenders_take_turns_and_ratios_are_pair_by_pair():
    order: list[str] = []
    contenders = {name: partial(order.append, name) for name in "ab"}
    timings = interleaved(contenders, 3, torch.device("cpu"))
    assert order == list("aabb" + "ab" + "ba" + "ab")
    assert all(len(t.seconds) == 3 for t in timings.values())
    assert ratios(Timing([2, 8, 9], 0), Timing([1, 2, 3], 0)) == (3, 2, 4)
    assert matmul_peak(torch.float32, torch.device("cpu"), side=64, repeats=1) > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"tasks": ("speed",)},
        {"tasks": ()},
        {"precisions": ("fp16",)},
        {"autoattack_images": 0},
        {"repeats": 2},
        {"batch_size": 0},
        {"classes": 1},
        {"eps": 0.0},
    ],
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValueError):
        BenchSettings(**wrong)
