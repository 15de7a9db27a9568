"""Calibration: ECE by hand, torchmetrics' value, and the temperature with a closed form."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from dualat.evaluation.metrics.calibration import calibration, fit_temperature


def confident(confidence: float, right: int, n: int) -> tuple[Tensor, Tensor]:
    """Two-class logits that say class 0 with this confidence, of which `right` of n are right."""
    logits = torch.tensor([math.log(confidence / (1 - confidence)), 0.0]).repeat(n, 1)
    return logits, (torch.arange(n) >= right).long()


def join(*groups: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return torch.cat([logits for logits, _ in groups]), torch.cat([labels for _, labels in groups])


def noisy(n: int = 1000, classes: int = 7, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(n, classes, generator=generator)
    drawn = torch.multinomial(torch.softmax(logits / 1.7, 1), 1, generator=generator)
    return logits, drawn.squeeze(1)


def test_a_constant_confidence_has_a_known_ece():
    record = calibration(*confident(0.77, 60, 100))
    assert (record.metric, record.n) == ("ece", 100)
    assert record.value == pytest.approx(0.17, abs=1e-6)
    assert record.settings == {"bins": 20, "temperature": 1.0, "attack": None}
    bins = [b for b, share in enumerate(record.details["share"]) if share]
    assert bins == [15] and record.details["share"][15] == 1  # [0.75, 0.80)
    assert record.details["confidence"][15] == pytest.approx(0.77, abs=1e-5)
    assert record.details["accuracy"][15] == 0.6
    assert record.details["confidence"][0] is None and record.details["accuracy"][3] is None
    assert all(len(curve) == 20 for curve in record.details.values())


def test_perfect_calibration_is_zero_and_certainty_falls_into_the_last_bin():
    assert calibration(*confident(0.8, 80, 100)).value == pytest.approx(0, abs=1e-6)
    record = calibration(torch.tensor([[900.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1]))
    assert record.value == pytest.approx(0.25) and record.details["share"][-1] == 1


def test_bins_and_temperature_matter():
    logits, labels = join(confident(0.9, 50, 100), confident(0.6, 100, 100))
    assert calibration(logits, labels).value == pytest.approx(0.4, abs=1e-6)
    one = calibration(logits, labels, bins=1)
    assert one.value == pytest.approx(0, abs=1e-6)  # on average as confident as accurate
    assert one.settings["bins"] == 1 and len(one.details["share"]) == 1
    cooled = calibration(*confident(0.9, 75, 100), temperature=2.0)  # odds 9 become 3
    assert cooled.value == pytest.approx(0, abs=1e-6) and cooled.settings["temperature"] == 2.0
    attack = {"norm": "L2", "eps": 0.5}
    assert calibration(logits, labels, attack=attack).settings["attack"] == attack


@pytest.mark.parametrize("bins", [1, 15, 20])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_ece_is_torchmetrics(bins, temperature):
    logits, labels = noisy()
    probabilities = torch.softmax(logits.double() / temperature, 1)
    expected = multiclass_calibration_error(probabilities, labels, num_classes=7, n_bins=bins, norm="l1")
    value = calibration(logits, labels, bins, temperature).value
    assert value == pytest.approx(float(expected), abs=1e-6)


def test_the_interval_holds_the_value_and_narrows_with_more_images():
    widths = []
    for n in (100, 10_000):
        record = calibration(*noisy(n))
        low, high = record.ci95
        assert 0 <= low <= record.value <= high <= 1
        assert record.ci95 == calibration(*noisy(n)).ci95 and record.seed == 0
        widths.append(high - low)
    assert widths[1] < widths[0] / 3
    # one bin, so that ECE = |0.9 - share of hits|: its interval is that of a mean, 0.4 +- 1.96 * 0.5 / sqrt(400)
    low, high = calibration(*confident(0.9, 200, 400)).ci95
    assert (low, high) == pytest.approx((0.4 - 0.049, 0.4 + 0.049), abs=0.012)


@pytest.mark.parametrize(("confidence", "right"), [(0.95, 70), (0.6, 90), (0.75, 75)])
def test_the_temperature_makes_a_constant_confidence_the_accuracy(confidence, right):
    logits, labels = confident(confidence, right, 100)
    expected = math.log(confidence / (1 - confidence)) / math.log(right / (100 - right))
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(expected, rel=1e-5)
    assert calibration(logits, labels, temperature=temperature).value == pytest.approx(0, abs=1e-5)


def test_the_temperature_minimises_the_cross_entropy_and_recovers_the_true_one():
    logits, labels = noisy(20_000)
    best = fit_temperature(logits, labels)
    assert best == pytest.approx(1.7, rel=0.03)  # what the labels were drawn with
    losses = [float(F.cross_entropy(logits.double() / (best * f), labels)) for f in (0.99, 1.0, 1.01)]
    assert losses[1] < min(losses[0], losses[2])


def test_without_a_mistake_the_temperature_stays_finite():
    assert fit_temperature(*confident(0.9, 5, 5)) == pytest.approx(1e-3, rel=1e-3)
    assert fit_temperature(*confident(0.9, 0, 5)) == pytest.approx(1e3, rel=1e-3)


def test_bad_input_is_answered_with_a_sentence():
    logits, labels = noisy(10)
    for call in (calibration, fit_temperature):
        with pytest.raises(ValueError, match="at least one image"):
            call(logits[:0], labels[:0])
        with pytest.raises(ValueError, match=r"N labels, not \(10, 7\) and \(9,\)"):
            call(logits, labels[:9])
        with pytest.raises(ValueError, match="label 7 does not exist"):
            call(logits, labels.clone().fill_(7))
        with pytest.raises(ValueError, match="diverged"):
            call(logits * math.nan, labels)
    for fields in ({"bins": 0}, {"temperature": 0.0}, {"temperature": -1.0}, {"temperature": math.inf}):
        with pytest.raises(ValueError, match="bins must be 1 or more and temperature above 0"):
            calibration(logits, labels, **fields)
