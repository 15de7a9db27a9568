"""Clean and robust accuracy where both have closed forms: a classifier of an image's mean brightness."""

import math

import pytest
import torch
from torch import Tensor, nn

from dualat.core.geometry import ThreatModel
from dualat.data.images import ImageData
from dualat.evaluation.metrics.clean_accuracy import clean_accuracy
from dualat.evaluation.metrics.robust_accuracy import robust_accuracy
from dualat.results.record import wilson_interval

SHAPE = (1, 3, 4)


class Brightness(nn.Module):
    """Class 1 where the mean pixel is above 1/2; the margin is |mean - 1/2|."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.largest = 0

    def forward(self, x: Tensor) -> Tensor:
        self.largest = max(self.largest, len(x))
        mean = self.scale * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-mean, mean], dim=1)


def greys(wrong: int = 0) -> ImageData:
    """Grey images of levels 28 ... 228 with their true labels, but for the first `wrong`."""
    levels = torch.arange(28, 229, 4)
    labels = (levels > 127).long()
    labels[:wrong] = 1 - labels[:wrong]
    images = levels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE).contiguous()
    return ImageData(images, labels, ("dark", "bright"), "greys")


@pytest.mark.parametrize("wrong", [0, 7])
def test_clean_accuracy_counts_right_answers(wrong):
    data = greys(wrong)
    record = clean_accuracy(Brightness(), data)
    assert (record.metric, record.n) == ("clean_accuracy", len(data))
    assert record.value == pytest.approx(1 - wrong / len(data))
    assert record.ci95 == wilson_interval(len(data) - wrong, len(data))


def test_batches_count_all_images_once():
    data, model = greys(5), Brightness()
    for size in (1, 7, 500):
        model.largest = 0
        assert clean_accuracy(model, data, batch_size=size).value == pytest.approx(1 - 5 / len(data))
        assert model.largest == min(size, len(data))


@pytest.mark.parametrize("norm", ["L2", "Linf"])
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.15, 0.31])
def test_robust_accuracy_is_the_share_of_margins_beyond_eps(norm, eps):
    # The mean moves by at most eps (Linf), or eps / sqrt(D) (L2): the worst case is a shift of all pixels alike.
    data = greys(wrong=3)
    margin = (data.float().flatten(1).mean(1) - 0.5).abs()
    reach = eps if norm == "Linf" else eps / math.sqrt(math.prod(SHAPE))
    robust = (margin > reach) & (torch.arange(len(data)) >= 3)
    record = robust_accuracy(Brightness(), data, ThreatModel(norm, eps), steps=5)
    assert round(record.value * record.n) == int(robust.sum())
    assert record.settings["norm"] == norm and record.settings["eps"] == eps
    assert record.settings["steps"] == 5
    if eps:
        assert record.settings["step_size"] == pytest.approx(eps / 2)
    assert record.ci95 == wilson_interval(int(robust.sum()), len(data))


def test_robust_accuracy_falls_with_eps_and_ignores_batch_size():
    data, model = greys(), Brightness()
    values = [
        robust_accuracy(model, data, ThreatModel("Linf", e), steps=3).value for e in (0.0, 0.1, 0.2, 0.5)
    ]
    assert values == sorted(values, reverse=True) and values[0] == 1 and values[-1] == 0
    record = robust_accuracy(model, data, ThreatModel("Linf", 0.1), steps=3, batch_size=7)
    assert record.value == values[1]


class Three(nn.Module):
    """Three classes of one-pixel images. Class 0 is right everywhere but in a narrow valley, on the way to a place with
    a higher cross-entropy where class 0 is right again."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        t = x.flatten(1)[:, 0]
        # t = 0.50: p = (.9, .05, .05); t = 0.55: (.45, .55, 0); t = 0.60: (.36, .32, .32)
        nodes = torch.tensor([0.50, 0.55, 0.60])
        table = torch.tensor([[0.9, 0.05, 0.05], [0.45, 0.549, 0.001], [0.36, 0.32, 0.32]])
        position = ((t - nodes[0]) / 0.05).clamp(0, 2 - 1e-6)
        low = position.detach().floor().long()
        part = (position - low)[:, None]
        return ((1 - part) * table[low] + part * table[low + 1]).log()


def test_an_image_counts_as_robust_only_if_no_iterate_fooled_the_model():
    images = torch.full((2, 1, 1, 1), 128, dtype=torch.uint8)  # 0.502
    data = ImageData(images, torch.zeros(2, dtype=torch.long), ("a", "b", "c"), "valley")
    record = robust_accuracy(Three(), data, ThreatModel("Linf", 0.1), steps=5)  # steps of 0.05
    assert record.value == 0


def test_a_model_in_train_mode_is_left_in_train_mode():
    model = Brightness().train()
    robust_accuracy(model, greys(), ThreatModel("L2", 0.1), steps=2)
    assert model.training and model.scale.requires_grad and model.scale.grad is None


def test_accuracy_is_that_of_the_frozen_network_and_changes_nothing():
    """In train mode BatchNorm would mix images and move its statistics."""
    data = greys()
    network = nn.Sequential(nn.BatchNorm2d(1), Brightness()).train()
    network[0].running_mean.fill_(0.5)  # (x - 0.5) / 1 + 0.5 = x
    network[0].bias.data.fill_(0.5)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    skewed = data.take(
        torch.arange(len(data))[-20:]
    )  # bright images only: normalised by themselves, half are dark
    assert clean_accuracy(network, skewed).value == 1
    assert robust_accuracy(network, skewed, ThreatModel("Linf", 0.001), steps=1).value == 1
    assert network.training and all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
