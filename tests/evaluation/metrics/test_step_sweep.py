"""The sweep finds the number of steps that reaches the data, from one trajectory, on samples of its own."""

import pytest
import torch
from torch import Tensor, nn

from dualat.data.images import ImageData
from dualat.data.initial import build_initial
from dualat.data.settings import InitialSettings
from dualat.evaluation.frechet import frechet_distance
from dualat.evaluation.judge import Judge
from dualat.evaluation.metrics.step_sweep import step_sweep
from dualat.evaluation.samples import from_model
from dualat.models.model import LoadedModel, ModelDescription, SamplingSettings
from dualat.models.settings import NetworkSettings
from dualat.system.seeds import mix_seed

SHAPE = (1, 6, 6)


def halves(name: str = "halves validation", count: int = 120) -> ImageData:
    """Class 0 bright above, class 1 bright below."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 30, (count, *SHAPE), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % 2
    for i, label in enumerate(labels.tolist()):
        images[i, :, 3 * label : 3 * label + 3] += 200
    return ImageData(images, labels, ("above", "below"), name)


class Template(nn.Module):
    """f(x)[y] = -|x - mean of class y|^2."""

    def __init__(self):
        super().__init__()
        data = halves()
        self.means = nn.Parameter(torch.stack([data.float()[data.labels == y].mean(0) for y in (0, 1)]))

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None] - self.means).square().flatten(2).sum(2)


def model() -> LoadedModel:
    description = ModelDescription(
        network=NetworkSettings(name="wrn-10-1"),
        class_names=["above", "below"],
        shape=SHAPE,
        normalized=False,
        initial=InitialSettings(kind="uniform"),
        sampling=SamplingSettings(steps=9, step_size=0.1),
    )
    return LoadedModel(Template(), description, build_initial(description.initial, SHAPE, None))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUALAT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return Judge(halves("halves train"), steps=40)


def test_more_steps_come_nearer_until_the_data_is_reached(judge):
    record = step_sweep(model(), halves(), judge, [30, 0, 10], count=60, seed=0)
    details = record.details
    assert details["steps"] == [0, 10, 30]
    assert details["frechet_distance"][0] > details["frechet_distance"][1] > details["frechet_distance"][2]
    assert details["sample_class_accuracy"][0] < details["sample_class_accuracy"][2] == 1
    assert record.value == 30 and record.metric == "step_sweep" and record.n == 60
    assert record.split == "validation" and record.settings["reference"] == "halves validation"
    sampling = record.settings["sampling"]
    assert (sampling["step_size"], sampling["schedule"]) == (0.1, "constant") and "steps" not in sampling


def test_one_trajectory_gives_what_drawing_anew_gives_and_its_samples_are_its_own(judge):
    found = step_sweep(model(), halves(), judge, [2, 5], count=501, seed=4).details["frechet_distance"]
    for steps, distance in zip((2, 5), found, strict=True):
        images = from_model(model(), 501, mix_seed("step-sweep", 4), steps=steps).images.float() / 255
        expected = frechet_distance(judge.features(images), judge.features(halves().float()))
        assert distance == pytest.approx(expected, rel=1e-9)
        other = from_model(model(), 501, 4, steps=steps).images.float() / 255
        assert not torch.equal(images, other)


def test_of_equal_distances_the_fewer_steps(judge, monkeypatch):
    from dualat.evaluation.metrics import step_sweep as module

    monkeypatch.setattr(module, "gaussian_distance", lambda *_: 1.0)
    assert step_sweep(model(), halves(), judge, [7, 3, 5], count=10, seed=0).value == 3


@pytest.mark.parametrize(
    ("steps", "count", "name", "match"),
    [
        ([], 10, "halves validation", "one or more numbers"),
        ([3, -1], 10, "halves validation", "0 or more"),
        ([3], 1, "halves validation", "at least 2"),
        ([3], 10, "halves test", "validation split"),
    ],
)
def test_what_cannot_be_swept_is_refused(judge, steps, count, name, match):
    with pytest.raises(ValueError, match=match):
        step_sweep(model(), halves(name), judge, steps, count=count, seed=0)


def test_a_model_without_a_start_is_refused(judge):
    loaded = model()
    loaded.initial = None
    with pytest.raises(ValueError, match="no initial distribution"):
        step_sweep(loaded, halves(), judge, [1], count=10, seed=0)
