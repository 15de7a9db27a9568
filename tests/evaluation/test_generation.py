"""Figures of samples: balanced labels, eight bits, and the right direction."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dualat.data.images import ImageData
from dualat.data.initial import build_initial
from dualat.data.settings import InitialSettings
from dualat.evaluation.generation import balanced_samples, generation_records
from dualat.evaluation.judge import Judge
from dualat.load import LoadedModel, ModelDescription, SamplingDefaults
from dualat.models.settings import NetworkSettings

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
        sampling=SamplingDefaults(steps=steps, step_size=0.1),
    )
    return LoadedModel(Template(swapped), description, build_initial(description.initial, SHAPE, None))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUALAT_CACHE", str(Path(tmp_path_factory.mktemp("cache"))))
        return Judge(halves(), steps=40)


def test_samples_are_balanced_seeded_and_of_eight_bits():
    images, labels = balanced_samples(model(), 7, seed=1)
    assert labels.tolist() == [0, 1, 0, 1, 0, 1, 0] and images.shape == (7, *SHAPE)
    torch.testing.assert_close(images * 255, (images * 255).round(), rtol=0, atol=1e-4)
    assert torch.equal(images, balanced_samples(model(), 7, seed=1)[0])
    assert not torch.equal(images, balanced_samples(model(), 7, seed=2)[0])


def test_records_point_the_right_way(judge):
    accuracy, distance = generation_records(model(), halves(), judge, 40, seed=0)
    assert (accuracy.metric, distance.metric) == ("sample_class_accuracy", "frechet_distance")
    assert accuracy.value == 1 and accuracy.n == distance.n == 40 and accuracy.seed == distance.seed == 0
    assert accuracy.settings["judge"] == "svm-rbf-pixels"
    assert accuracy.settings["sampling"]["steps"] == 40 and accuracy.settings["initial"] == "uniform"
    wrong, _ = generation_records(model(swapped=True), halves(), judge, 40, seed=0)
    assert wrong.value == 0
    _, noise = generation_records(model(steps=0), halves(), judge, 40, seed=0)
    assert noise.value > 2 * distance.value


def test_no_steps_measure_the_starting_points_and_the_record_says_so(judge):
    loaded = model()
    images, _ = balanced_samples(loaded, 10, 3, steps=0)
    starts = loaded.initial.sample(10, None, torch.Generator().manual_seed(3))
    torch.testing.assert_close(images, (starts * 255).round() / 255)
    for record in generation_records(loaded, halves(), judge, 10, 0, steps=0):
        assert record.settings["sampling"] == {"steps": 0, "step_size": 0.1}
        assert record.settings["initial"] == "uniform"
