"""Figures of samples: balanced labels, eight bits, and the right direction."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dualat.data.images import ImageData
from dualat.data.initial import build_initial
from dualat.data.settings import InitialSettings
from dualat.evaluation.judge import Judge
from dualat.evaluation.metrics.generation import generation_records
from dualat.evaluation.reference import read_reference
from dualat.evaluation.samples import ImageSet, from_model
from dualat.models.model import LoadedModel, ModelDescription, SamplingSettings
from dualat.models.settings import NetworkSettings
from dualat.results.record import Record

SHAPE = (1, 6, 6)


def halves(count: int = 120) -> ImageData:
    """Class 0 bright above, class 1 bright below."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 30, (count, *SHAPE), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % 2
    for i, label in enumerate(labels.tolist()):
        images[i, :, 3 * label : 3 * label + 3] += 200
    return ImageData(images, labels, ("above", "below"), "halves")


class Template(nn.Module):
    """f(x)[y] = -|x - mean of class y|^2: its samples are the class means. `swapped` exchanges the classes."""

    def __init__(self, swapped: bool = False):
        super().__init__()
        data = halves()
        means = torch.stack([data.float()[data.labels == y].mean(0) for y in (0, 1)])
        self.means = nn.Parameter(means.flip(0) if swapped else means)

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None] - self.means).square().flatten(2).sum(2)


def model(steps: int = 40, swapped: bool = False) -> LoadedModel:
    description = ModelDescription(
        network=NetworkSettings(name="wrn-10-1"),
        class_names=["above", "below"],
        shape=SHAPE,
        normalized=False,
        initial=InitialSettings(kind="uniform"),
        sampling=SamplingSettings(steps=steps, step_size=0.1),
    )
    return LoadedModel(Template(swapped), description, build_initial(description.initial, SHAPE, None))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUALAT_CACHE", str(Path(tmp_path_factory.mktemp("cache"))))
        return Judge(halves(), steps=40)


def measured(judge: Judge, count: int = 40, samples: ImageSet | None = None, **fields) -> dict[str, Record]:
    samples = samples or from_model(model(**fields), count, seed=0)
    return {r.metric: r for r in generation_records(samples, read_reference(halves()), judge, seed=0)}


def test_records_point_the_right_way(judge):
    found = measured(judge)
    accuracy, distance = found["sample_class_accuracy"], found["frechet_distance"]
    assert {"kernel_distance", "precision", "recall"} < set(found)
    assert accuracy.value == 1 and accuracy.n == distance.n == 40 and accuracy.seed == distance.seed == 0
    assert accuracy.settings["judge"] == "svm-rbf-pixels"
    assert accuracy.settings["sampling"]["steps"] == 40 and accuracy.settings["initial"] == "uniform"
    assert measured(judge, swapped=True)["sample_class_accuracy"].value == 0
    assert measured(judge, steps=0)["frechet_distance"].value > 2 * distance.value


def test_samples_without_labels_have_no_class_accuracy(judge):
    drawn = from_model(model(), 20, seed=0)
    found = measured(judge, samples=ImageSet(drawn.images, None, "foreign"))
    assert "sample_class_accuracy" not in found and found["frechet_distance"].n == 20


def test_foreign_samples_of_other_shapes_or_classes_are_refused(judge):
    wide = ImageSet(torch.zeros(10, 1, 6, 9, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64), "wide")
    with pytest.raises(
        ValueError, match="the judge was trained on images of shape 1x6x6, but these are 1x6x9"
    ):
        measured(judge, samples=wide)
    drawn = from_model(model(), 10, seed=0)
    with pytest.raises(ValueError, match="label 7"):
        measured(judge, samples=ImageSet(drawn.images, torch.full((10,), 7), "foreign"))
