"""Energies and R1 where both have closed forms: E(x) = a |x - m|^2."""

import pytest
import torch
from torch import Tensor, nn

from dualat.core.energy import marginal_energy
from dualat.core.losses import gradient_penalty
from dualat.data.images import ImageData
from dualat.evaluation.intervals import mean_interval
from dualat.evaluation.logits import gradient_norms, predict_logits
from dualat.evaluation.metrics.energy import histograms, r1_record

SHAPE = (2, 3, 3)


class Bowl(nn.Module):
    """One class: E(x) = a |x - 1/2|^2, grad E = 2 a (x - 1/2)."""

    def __init__(self, a: float = 3.0):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x: Tensor) -> Tensor:
        return -self.a * (x - 0.5).flatten(1).square().sum(1, keepdim=True)


def images(n: int = 30, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def energy_records(model: nn.Module, sets: dict[str, Tensor], bins: int = 40, batch_size: int = 500) -> list:
    found = {name: marginal_energy(predict_logits(model, x, batch_size)) for name, x in sets.items()}
    return histograms(found, bins)


def lengths(x: Tensor) -> Tensor:
    return (x - 0.5).flatten(1).double().norm(dim=1)


def test_energies_and_their_histogram():
    near, far = images() * 0.2 + 0.4, images(20, 1)
    records = energy_records(Bowl(), {"near": near, "far": far}, bins=8)
    assert [r.settings["images"] for r in records] == ["near", "far"] and records[0].metric == "energy"
    for record, x in zip(records, (near, far), strict=True):
        expected = 3 * lengths(x).square()
        assert record.value == pytest.approx(float(expected.mean()), rel=1e-5) and record.n == len(x)
        assert record.ci95 == pytest.approx(mean_interval(expected), rel=1e-4)
        edges = record.details["edges"]
        counts = torch.histogram(expected, torch.tensor(edges, dtype=torch.float64)).hist / len(x)
        # rounding may put the extreme image just outside
        assert record.details["share"] == pytest.approx(counts.tolist(), abs=1.01 / len(x))
        assert sum(record.details["share"]) == pytest.approx(1, abs=1e-4)
        assert len(edges) == 9 and edges == records[0].details["edges"]
    assert records[0].value < records[1].value


def test_shares_fall_into_the_right_bins():
    # |x - 1/2|^2 of grey levels 1/2 + d is 18 d^2: energies 54 d^2
    x = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]).view(-1, 1, 1, 1).expand(-1, *SHAPE) + 0.5
    (record,) = energy_records(
        Bowl(), {"greys": x}, bins=4
    )  # energies 0, .54, 2.16, 4.86, 8.64; bins of 2.16
    assert record.details["edges"] == pytest.approx([0, 2.16, 4.32, 6.48, 8.64], rel=1e-4)
    shares = record.details["share"]
    assert shares[3] == 0.2 and shares[2] == 0.2 and shares[0] + shares[1] == pytest.approx(0.6)
    assert len(energy_records(Bowl(), {"greys": x})[0].details["share"]) == 40


def test_energies_that_are_all_the_same_still_have_a_histogram():
    (record,) = energy_records(Bowl(), {"one": torch.full((1, *SHAPE), 0.5)}, bins=2)
    assert record.value == 0 and record.ci95 is None
    assert record.details == {"edges": [-0.5, 0.0, 0.5], "share": [0.0, 1.0]}


def test_gradients_and_r1_are_the_closed_form_and_the_penalty_of_the_losses():
    x, model = images(), Bowl()
    torch.testing.assert_close(gradient_norms(model, x).double(), 6 * lengths(x), rtol=1e-5, atol=1e-6)
    record = r1_record(model, x)
    assert (record.metric, record.n) == ("r1", 30)
    assert record.value == pytest.approx(float(18 * lengths(x).square().mean()), rel=1e-5)
    assert record.value == pytest.approx(gradient_penalty(model, x).item(), rel=1e-5)
    assert record.ci95[0] < record.value < record.ci95[1]
    assert r1_record(Bowl(6.0), x).value == pytest.approx(4 * record.value, rel=1e-5)


def test_batches_do_not_matter_and_the_model_is_left_as_it_was():
    x, network = images(), nn.Sequential(nn.BatchNorm2d(2), Bowl()).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for size in (1, 7):
        assert r1_record(network, x, size).value == pytest.approx(r1_record(network, x).value, rel=1e-6)
        small, large = (energy_records(network, {"x": x}, 5, b)[0] for b in (size, 500))
        assert small.value == pytest.approx(large.value, rel=1e-6) and small.details == large.details
    assert network.training and all(p.requires_grad and p.grad is None for p in network.parameters())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_image_data_is_taken_and_named():
    data = ImageData((images() * 255).to(torch.uint8), torch.zeros(30).long(), ("one",), "dots")
    record = r1_record(Bowl(), data)
    assert record.settings["images"] == "dots"
    assert record.value == pytest.approx(r1_record(Bowl(), data.float()).value)


def test_the_interval_of_a_mean():
    assert mean_interval(torch.tensor([1.0])) is None
    # std of 0, 2 is sqrt(2): 1 +- 1.96 * sqrt(2) / sqrt(2)
    assert mean_interval(torch.tensor([0.0, 2.0])) == pytest.approx((1 - 1.959964, 1 + 1.959964))


def test_bad_input_is_answered_with_a_sentence():
    with pytest.raises(ValueError, match="at least one set of images and one bin, not 0 and 40"):
        energy_records(Bowl(), {})
    with pytest.raises(ValueError, match="not 1 and 0"):
        energy_records(Bowl(), {"x": images()}, bins=0)
    with pytest.raises(ValueError, match="the set 'noise' holds no images"):
        histograms({"x": torch.zeros(2), "noise": torch.zeros(0)})
    with pytest.raises(ValueError, match="logits of .* images are not finite"):
        energy_records(Bowl(float("nan")), {"x": images()})
    with pytest.raises(ValueError, match="holds no images"):
        r1_record(Bowl(), images(0))
    with pytest.raises(ValueError, match="must be floating-point"):
        r1_record(Bowl(), torch.zeros(2, *SHAPE, dtype=torch.uint8))
