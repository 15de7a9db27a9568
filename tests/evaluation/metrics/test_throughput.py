"""Throughput under a clock that only the model moves, so that every speed is known."""

import time

import pytest
import torch
from torch import Tensor, nn

from dualat.core.geometry import ThreatModel
from dualat.data.images import ImageData
from dualat.evaluation.metrics.throughput import throughput_records
from dualat.system import devices as module
from dualat.system.devices import device_name

SHAPE = (1, 3, 3)


class Worker(nn.Module):
    """A forward pass takes 10 ms an image, backward none; `slow` adds to calls by number."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(9, 2)
        self.now, self.calls, self.slow = 0.0, 0, {}
        self.sizes, self.gradients, self.modes = [], [], []

    def forward(self, x: Tensor) -> Tensor:
        self.now += 0.01 * len(x) + self.slow.get(self.calls, 0.0)
        self.calls += 1
        self.sizes.append(len(x))
        self.gradients.append(x.requires_grad)
        self.modes.append(self.training)
        return self.layer(x.flatten(1))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Worker:
    worker = Worker()
    monkeypatch.setattr(time, "perf_counter", lambda: worker.now)
    return worker


def data(count: int = 12) -> ImageData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator)
    return ImageData(images, torch.arange(count) % 2, ("a", "b"), "dots")


def measure(model: nn.Module, **fields) -> dict:
    given = {
        "threat": ThreatModel("L2", 0.5),
        "attack_steps": 4,
        "sampling_steps": 5,
        "batch_size": 10,
    } | fields
    return {r.settings["task"]: r for r in throughput_records(model, data(), **given)}


def test_speeds_are_known_and_steps_count(model):
    found = measure(model)
    assert list(found) == ["classification", "attack", "sampling"]
    assert found["classification"].value == pytest.approx(100)
    assert found["attack"].value == pytest.approx(25)  # four gradients an image
    assert found["sampling"].value == pytest.approx(20)
    assert all(r.metric == "throughput" and len(r.details["repeats"]) == 3 for r in found.values())
    assert found["classification"].n >= 3 * 150  # 1.5 s each at 100 images/s
    assert measure(model, attack_steps=8)["attack"].value == pytest.approx(12.5)
    assert measure(model, sampling_steps=10)["sampling"].value == pytest.approx(10)
    assert set(model.sizes) == {10} and not any(model.modes)


def test_settings_say_what_was_timed(model):
    found = measure(model, threat=ThreatModel("Linf", 0.2), sampling_step_size=0.3)
    common = {
        "batch_size": 10,
        "precision": "fp32",
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "seconds_each": 1.5,
    }
    assert found["classification"].settings == {"task": "classification", "steps": 0, **common}
    attack = {"task": "attack", "steps": 4, "step_size": pytest.approx(0.125), "norm": "Linf", "eps": 0.2}
    assert found["attack"].settings == {**attack, **common}
    assert found["sampling"].settings == {"task": "sampling", "steps": 5, "step_size": 0.3, **common}
    assert found["sampling"].seed == 0 and found["attack"].seed is None


def test_the_warm_up_is_not_timed_and_the_median_forgives_an_outlier(model):
    model.slow = {0: 1000.0, 1: 5.0}  # the warm-up; the first timed batch
    record = measure(model)["classification"]
    assert record.value == pytest.approx(100)
    assert record.details["repeats"][0] < 3 and record.details["repeats"][1:] == pytest.approx([100, 100])


def test_repeats_seconds_and_batch_size_are_taken(model):
    assert len(measure(model, repeats=5)["attack"].details["repeats"]) == 5
    long, short = measure(model, seconds_each=3.0), measure(model, seconds_each=0.5)
    assert long["classification"].n == pytest.approx(900, abs=31)
    assert short["classification"].n == pytest.approx(150, abs=31)
    assert short["classification"].settings["seconds_each"] == 0.5
    tiny = measure(model, seconds_each=1e-9)["sampling"]
    assert tiny.n == 30 and tiny.value == pytest.approx(20)  # one batch a repeat at the least
    model.sizes.clear()
    large = measure(model, batch_size=30)  # more than there are images
    assert set(model.sizes) == {30} and large["attack"].settings["batch_size"] == 30


def test_classification_takes_no_gradients_and_the_model_is_left_as_it_was(model):
    model.train()
    measure(model, seconds_each=0.01)
    assert not model.gradients[0] and any(model.gradients)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())


def test_on_a_real_clock_speeds_are_positive():
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
    for record in measure(network, seconds_each=0.01).values():
        assert record.value > 0 and min(record.details["repeats"]) > 0


def test_device_names(monkeypatch):
    assert device_name(torch.device("cpu")).strip()
    monkeypatch.setattr(module, "Path", lambda _: (_ for _ in ()).throw(FileNotFoundError()))
    monkeypatch.setattr(module.platform, "processor", lambda: "")
    monkeypatch.setattr(module.platform, "machine", lambda: "arm64")
    assert device_name(torch.device("cpu")) == "arm64"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert device_name(torch.device("cuda:1")) == "GPU 1"
    assert device_name(torch.device("meta")) == "meta"


def test_bad_input_is_answered_with_a_sentence(model):
    for fields in ({"repeats": 2}, {"seconds_each": 0.0}, {"batch_size": 0}, {"sampling_steps": 0}):
        with pytest.raises(ValueError, match="throughput needs 3 repeats or more"):
            measure(model, **fields)
    with pytest.raises(ValueError, match="finite eps and at least 1 step"):
        measure(model, attack_steps=0)
    with pytest.raises(ValueError, match="finite eps"):
        measure(model, threat=ThreatModel())
    with pytest.raises(ValueError, match="dots holds no images"):
        throughput_records(model, data(0), ThreatModel("L2", 0.1), 2, 2)
