"""Judges of samples: right on real images, fixed by their training images, and never in the way of a run."""

import importlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dualat.config import load_recipe
from dualat.data.images import ImageData
from dualat.data.in_distribution import load_splits
from dualat.data.settings import DataSettings
from dualat.evaluation import judge as module
from dualat.evaluation import reuse
from dualat.evaluation.judge import Judge, JudgeNetwork
from dualat.system.precision import deterministic


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DUALAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def digits():
    return load_splits(DataSettings())


def colours(count: int = 40) -> ImageData:
    """17x17 colour images (too many values for the SVM): reddish, greenish."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 80, (count, 3, 17, 17), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % 2
    for i, label in enumerate(labels.tolist()):
        images[i, label] += 120
    return ImageData(images, labels, ("red", "green"), "colours")


def test_digits_are_judged_by_an_svm_that_is_nearly_always_right(digits):
    judge = Judge(digits.train, steps=1)
    assert judge.name == "svm-rbf-pixels"
    right = judge.predict(digits.test.float()) == digits.test.labels
    assert right.float().mean() > 0.97
    noise = torch.rand(50, *digits.test.shape, generator=torch.Generator().manual_seed(0))
    assert judge.predict(noise).shape == (50,)


def test_larger_images_are_judged_by_the_network():
    data = colours()
    judge = Judge(data, steps=30)
    assert judge.name == "judge-cnn"
    assert torch.equal(judge.predict(data.float()), data.labels)


def test_the_network_is_trained_on_the_device_asked_for(monkeypatch):
    """meta: a device that every PyTorch has and no other code here uses."""
    trained = []
    monkeypatch.setattr(
        module, "fit", lambda network, *_: trained.append(next(network.parameters()).device.type)
    )
    monkeypatch.setattr(reuse, "save_file", lambda *_: None)
    data = colours()
    Judge(data, steps=1, device="meta")
    assert trained == ["meta"]
    with deterministic(True):  # its pooling has no deterministic kernel on GPUs
        Judge(data, steps=1, device="meta")
    assert trained == ["meta", "cpu"]


def test_training_asks_for_the_judge_on_its_own_device(digits, monkeypatch, tmp_path):
    asked = []

    class Asked(Judge):
        def __init__(self, train, steps=None, device="cpu"):
            asked.append(device)
            super().__init__(train, 1)

    evaluation = importlib.import_module("dualat.run.evaluation")
    monkeypatch.setattr(evaluation, "Judge", Asked)
    monkeypatch.setattr(evaluation, "choose_device", lambda name: f"the one named {name}")
    evaluation.validation_evaluator(load_recipe("digits", {"device": "auto"}), digits, tmp_path)
    assert asked == ["the one named auto"]


def test_features_do_not_depend_on_the_other_images():
    data = colours()
    judge = Judge(data, steps=3)
    together = judge.features(data.float())
    assert together.shape == (40, 64) and not together.requires_grad
    torch.testing.assert_close(judge.features(data.float()[7:8]), together[7:8])
    torch.testing.assert_close(judge.features_of(data), together)


def test_the_judge_is_fixed_by_its_images_and_leaves_the_random_state_alone(cache, monkeypatch):
    data = colours()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = Judge(data, steps=3)
    assert torch.equal(torch.rand(3), expected)
    monkeypatch.setenv("DUALAT_CACHE", str(cache / "another"))
    second = Judge(data, steps=3)
    assert torch.equal(first.features(data.float()), second.features(data.float()))


def test_the_cache_is_used_and_keyed_by_images_and_steps(cache, monkeypatch):
    data = colours()
    first = Judge(data, steps=3).features(data.float())
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(module, "fit", lambda *_: pytest.fail("trained again"))
    assert torch.equal(Judge(data, steps=3).features(data.float()), first)
    monkeypatch.undo()
    monkeypatch.setenv("DUALAT_CACHE", str(cache))
    Judge(data, steps=4)
    Judge(data.take(torch.arange(38)), steps=3)
    assert len(list(cache.iterdir())) == 3


def test_a_damaged_or_unwritable_cache_costs_time_not_the_result(cache, tmp_path, monkeypatch):
    data = colours()
    first = Judge(data, steps=3).features(data.float())
    (entry,) = cache.iterdir()
    entry.write_bytes(b"damaged")
    assert torch.equal(Judge(data, steps=3).features(data.float()), first)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DUALAT_CACHE", str(tmp_path / "file" / "below"))  # cannot be made
    assert torch.equal(Judge(data, steps=3).features(data.float()), first)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 15, 40)], ids=str)
def test_the_network_takes_any_size(shape):
    network = JudgeNetwork(shape, 4).eval()
    x = torch.rand(2, *shape)
    assert network(x).shape == (2, 4) and network.body(x).shape == (2, 64)


def test_a_cached_network_that_is_not_finite_is_trained_anew(cache):
    first = Judge(colours(), steps=2).features(colours().float())
    (path,) = cache.glob("judge-*.safetensors")
    tensors = load_file(path)
    tensors["head.bias"][0] = float("nan")
    tensors["body.0.weight"][0] = float("inf")
    save_file(tensors, path)
    assert torch.equal(Judge(colours(), steps=2).features(colours().float()), first)


def test_images_outside_0_1_are_refused():
    data = colours()
    judge = Judge(data, steps=1)
    for judged in (judge.predict, judge.features):
        with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], but go from 0 to "):
            judged(255 * data.float())
        with pytest.raises(ValueError, match="not uint8"):
            judged(data.images)
        assert len(judged(data.float().double())) == len(data)


def test_the_default_type_does_not_change_it(cache, double_by_default):
    data = colours()
    doubled = Judge(data, steps=2).features(data.float())
    for file in cache.iterdir():
        file.unlink()
    torch.set_default_dtype(torch.float32)
    assert torch.equal(doubled, Judge(data, steps=2).features(data.float()))


def test_small_images_of_one_class_are_judged_by_the_network(cache):
    """scikit-learn's words were: the number of classes has to be greater than one."""
    images = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
    judge = Judge(ImageData(images, torch.zeros(8, dtype=torch.int64), ("cat",), "cats"), steps=1)
    assert judge.name == "judge-cnn" and judge.predict(images.float()).tolist() == [0] * 8
