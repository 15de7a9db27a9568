"""The benchmark measures what it says: the same results, counted operations, ratios to the textbook."""

from functools import partial

import pytest
import torch

from dualat.bench import textbook
from dualat.bench.measure import Timing, interleaved, matmul_peak, ratios
from dualat.bench.run import REFERENCE, bench, operations
from dualat.bench.settings import BenchSettings
from dualat.geometry import ThreatModel
from dualat.models.wide_resnet import WideResNet
from dualat.objectives import lower_energy, raise_cross_entropy
from dualat.pgd import pgd

SMALL = BenchSettings(
    network="wrn-10-1", channels=1, image_size=8, batch_size=8, steps=3, attack_steps=2, repeats=3
)


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


def test_a_benchmark_tells_everything(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    lines: list[str] = []
    result = bench(SMALL, torch.device("cpu"), lines.append)
    assert set(result["tasks"]) == set(SMALL.tasks) and lines
    for task in ("train_step", "sampling", "attack", "classification"):
        rows = result["tasks"][task]
        assert rows[REFERENCE]["times_textbook"] == 1
        assert {"dualat fp32 eager", "dualat fp32 compiled"} < set(rows)
        for row in rows.values():
            assert len(row["repeats"]) == 3 and row["seconds"] > 0 and row["mfu"] > 0
    assert result["largest_difference_from_textbook"]["dualat fp32 compiled"] < 1e-4
    assert 0 < result["data_share_of_train_step"] < 1
    assert result["hardware"]["device"] and result["matmul_peak_gflops"]["fp32"] > 1


def test_operations_are_counted_by_hand():
    settings = BenchSettings(batch_size=4, steps=3, attack_steps=5)
    assert operations("sampling", settings, 10.0) == 4 * 10 * 2 * 3
    assert operations("attack", settings, 10.0) == 4 * 10 * 2 * 5
    assert operations("classification", settings, 10.0) == 4 * 10
    assert operations("train_step", settings, 10.0) == 4 * 10 * (2 * 8 + 9)


def test_contenders_take_turns_and_ratios_are_pair_by_pair():
    order: list[str] = []
    contenders = {name: partial(order.append, name) for name in "ab"}
    timings = interleaved(contenders, 3, torch.device("cpu"))
    assert order == list("aabb" + "ab" + "ba" + "ab")
    assert all(len(t.seconds) == 3 for t in timings.values())
    assert ratios(Timing([2, 8, 9], 0), Timing([1, 2, 3], 0)) == (3, 2, 4)
    assert matmul_peak(torch.float32, torch.device("cpu"), side=64, repeats=1) > 0


@pytest.mark.parametrize(
    "wrong", [{"tasks": ("speed",)}, {"repeats": 2}, {"batch_size": 0}, {"classes": 1}, {"eps": 0.0}]
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValueError):
        BenchSettings(**wrong)
