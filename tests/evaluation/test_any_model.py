"""Whatever measures a model takes any module whose logits are plain, and refuses one that gives none."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dualat.core.energy import marginal_energy
from dualat.core.geometry import ThreatModel
from dualat.data.images import ImageData
from dualat.evaluation.attack import under_attack
from dualat.evaluation.logits import predict_logits
from dualat.evaluation.metrics.autoattack import autoattack
from dualat.evaluation.metrics.clean_accuracy import clean_accuracy
from dualat.evaluation.metrics.counterfactual import counterfactual_records
from dualat.evaluation.metrics.energy import histograms, r1_record
from dualat.evaluation.metrics.ood import ood_records
from dualat.evaluation.metrics.robust_accuracy import robust_accuracy
from dualat.evaluation.metrics.throughput import throughput_records
from dualat.results.record import Record

SHAPE = (1, 6, 6)
BALL = ThreatModel("L2", 0.3)


class Bright(nn.Module):
    """Class 1 where the mean pixel is above 1/2; no parameters, no buffers. Its logits are wrapped by `wrap`."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], object]):
        super().__init__()
        self.wrap = wrap

    def forward(self, x: Tensor) -> object:
        mean = 4 * (x.flatten(1).mean(1) - 0.5)
        return self.wrap(torch.stack([-mean, mean], dim=1), x)


WRAPS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "tuple": lambda logits, x: (logits, x),
    "list": lambda logits, x: [logits],
    "dict": lambda logits, x: {"logits": logits, "features": x.flatten(1)},
}


def greys(name: str = "greys") -> ImageData:
    levels = torch.arange(20, 240, 11)
    images = levels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE).contiguous()
    return ImageData(images, (levels > 127).long(), ("dark", "bright"), name)


MEASURES: dict[str, Callable[[nn.Module], list[Record]]] = {
    "clean_accuracy": lambda model: [clean_accuracy(model, greys())],
    "robust_accuracy": lambda model: [robust_accuracy(model, greys(), BALL, 3)],
    "autoattack": lambda model: [autoattack(model, greys(), BALL, attacks=("apgd-ce",))],
    "energy": lambda model: histograms({"x": marginal_energy(under_attack(model, greys(), BALL, 2).logits)}),
    "r1": lambda model: [r1_record(model, greys())],
    "ood": lambda model: ood_records(
        model, greys(), greys("others"), score_names=("s", "gradient_norm"), attack=BALL, steps=2
    ),
    "counterfactual": lambda model: counterfactual_records(model, greys(), None, [0.3], steps=2),
    "throughput": lambda model: throughput_records(
        model, greys(), BALL, 2, 2, batch_size=4, seconds_each=1e-3
    ),
}


def told(records: list[Record]) -> list[tuple]:
    return [
        (r.metric, None if r.metric == "throughput" else r.value, r.n if r.metric != "throughput" else 0)
        for r in records
    ]


@pytest.mark.parametrize("name", MEASURES)
def test_models_without_parameters_that_give_more_than_logits(name, short):
    expected = told(MEASURES[name](Bright(lambda logits, x: logits)))
    for wrap in WRAPS.values():
        assert told(MEASURES[name](Bright(wrap))) == expected


@pytest.mark.parametrize("name", MEASURES)
def test_a_model_whose_logits_are_not_plain_is_one_sentence(name):
    model = Bright(lambda logits, x: (logits, x.flatten(1)))
    with pytest.raises(ValueError, match=r"gives a tuple of tensors .*: wrap it in a module that gives"):
        MEASURES[name](model)


@pytest.mark.parametrize("name", MEASURES)
def test_a_model_that_is_not_finite_is_one_sentence(name):
    model = Bright(lambda logits, x: logits * torch.tensor([1.0, torch.nan]))
    with pytest.raises(ValueError, match=r"logits of \d+ of \d+ images are not finite"):
        MEASURES[name](model)


def test_images_are_brought_to_a_model_in_double_precision():
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).double()
    expected = network(greys().float().double()).float()
    torch.testing.assert_close(predict_logits(network, greys()), expected.detach())
    assert robust_accuracy(network, greys(), BALL, 2).settings["precision"] == "fp64"
