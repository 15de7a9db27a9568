"""Any module as a model: what it lacks is asked for in one sentence, and what is saved comes back."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dualat
from dualat.data.distributions import InitialDistribution
from dualat.data.images import ImageData
from dualat.data.initial import build_initial
from dualat.data.settings import InitialSettings
from dualat.models.model import LoadedModel
from dualat.models.own import as_model, count_classes

SHAPE = (1, 4, 4)


class Tied(nn.Module):
    """Three classes; two names of one weight, a `view` of its features, and a buffer of whole numbers."""

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(1, 2, 3, padding=1)
            self.norm = nn.BatchNorm2d(2)
            self.last = nn.Linear(32, 3)
        self.again = self.last

    def forward(self, x: Tensor) -> Tensor:
        features = self.norm(self.conv(x)).relu().view(len(x), -1)
        return self.last(features) + self.again(features)


class Grey(InitialDistribution):
    def sample(self, n: int, labels: Tensor | None = None, generator=None) -> Tensor:
        return torch.full((n, *self.shape), 0.5)


def images(count: int = 5) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def toy() -> ImageData:
    return ImageData((images(30) * 255).byte(), torch.arange(30) % 3, ("a", "b", "c"), "toy")


def test_a_saved_module_comes_back_in_another_of_its_kind(tmp_path: Path):
    module, other = Tied(0).eval(), Tied(1)
    path = dualat.save(
        module, tmp_path / "new" / "mine.safetensors", shape=SHAPE, class_names=["a", "b", "c"]
    )
    assert sorted(p.name for p in path.parent.iterdir()) == ["mine.json", "mine.safetensors"]
    model = dualat.load(path, network=other)
    assert model.network is other and not other.training
    assert (model.class_names, model.shape) == (["a", "b", "c"], SHAPE)
    torch.testing.assert_close(model.logits(images()), module(images()))
    assert dualat.save(model, tmp_path / "again") == tmp_path / "again.safetensors"
    assert dualat.load(tmp_path / "again.safetensors", network=Tied(2)).description == model.description


@pytest.mark.parametrize("kind", ["gaussian", "class-gaussian", "uniform", "smooth-noise", "normal"])
def test_its_initial_distribution_comes_back_too(tmp_path: Path, kind):
    initial = build_initial(InitialSettings(kind=kind), SHAPE, toy())
    again = dualat.load(dualat.save(Tied(), tmp_path / "m", shape=SHAPE, initial=initial), network=Tied())
    one, two = (
        start.sample(4, torch.arange(4) % 3, torch.Generator().manual_seed(0))
        for start in (initial, again.initial)
    )
    torch.testing.assert_close(one, two)
    assert again.initial_kind == kind


def test_a_file_that_cannot_build_its_network_says_what_to_pass(tmp_path: Path):
    path = dualat.save(Tied(), tmp_path / "mine", shape=SHAPE)
    with pytest.raises(
        ValueError, match=r"given in Python: pass it, as in dualat\.load\(path, network=my_module\)\.$"
    ):
        dualat.load(path)
    with pytest.raises(ValueError, match="do not fit this network"):
        dualat.load(path, network=nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"says itself what its network is \(\S+\): leave network out\.$"):
        dualat.load("fashion-mnist", network=Tied())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, r"does not tell the shape of its images: pass shape=\(C, H, W\)\.$"),
        ({"shape": SHAPE, "class_names": ["a", "b"]}, "gives 3 logits, but there are 2 classes"),
        ({"shape": (1, 5, 5)}, r"cannot take images of shape \(1, 5, 5\)"),
        ({"shape": SHAPE, "initial": Grey(SHAPE)}, "Grey cannot be kept in a file: leave it out"),
        ({"shape": SHAPE, "initial": images()}, "initial is a tensor of starts"),
        ({"shape": SHAPE, "initial": "gaussian"}, "'gaussian' is fitted to training images"),
        ({"shape": SHAPE, "initial": Grey((1, 5, 5))}, r"initial has images of shape \(1, 5, 5\)"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_nothing_is_written(tmp_path: Path, given, told):
    with pytest.raises(ValueError, match=told):
        dualat.save(Tied(), tmp_path / "mine", **given)
    assert not list(tmp_path.iterdir())


def test_classes_are_counted_and_other_outputs_refused():
    assert count_classes(Tied().train(), SHAPE) == 3
    assert count_classes(nn.Flatten(), SHAPE) == 16
    with pytest.raises(
        ValueError, match=r"must be of shape \(2, K\) with 2 classes or more, not \(2, 1, 4, 4\)"
    ):
        count_classes(nn.Identity(), SHAPE)


def test_a_model_keeps_what_it_has_and_a_module_stays_as_it_is():
    module = Tied().train()
    model = as_model(module, SHAPE)
    assert model.network is module and module.training and model.class_names == ["0", "1", "2"]
    assert as_model(model, SHAPE) is model
    started = as_model(model, SHAPE, initial="gaussian", train=toy())
    assert (
        isinstance(started, LoadedModel)
        and started.initial_kind == "gaussian"
        and model.initial_kind == "none"
    )
    assert as_model(module, SHAPE, initial=Grey(SHAPE)).initial_kind == "Grey"
