"""OOD detection: scikit-learn's figures, scores and an attack with closed forms, and that all point the right way."""

import math

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor, nn

from dualat.core.geometry import ThreatModel
from dualat.core.objectives import raise_confidence
from dualat.data.images import ImageData
from dualat.evaluation.metrics.ood import detection_records, ood_records, scores
from dualat.evaluation.outside import noise_images
from dualat.results.record import wilson_interval

SHAPE = (1, 4, 4)  # a shift of all pixels by d has length 4 d


class Wells(nn.Module):
    """f(x)[y] = -a |x - m_y|^2, flat grey m_y: low energy near the means, and undecided between two."""

    def __init__(self, *levels: float, a: float = 2.0):
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels))
        self.a = a

    def forward(self, x: Tensor) -> Tensor:
        return -self.a * (x.flatten(1)[:, None] - self.levels[:, None]).square().sum(2)


def greys(levels, name: str) -> ImageData:
    levels = torch.as_tensor(levels)
    images = levels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE).contiguous()
    return ImageData(images, torch.zeros(len(levels)).long(), ("grey",), name)


INSIDE = greys([40, 45, 51, 55, 60, 195, 200, 204, 210, 215], "means")  # 0.2 and 0.8
OUTSIDE = greys([110, 116, 121, 127, 134, 140, 145], "middle")
BOTH = Wells(0.2, 0.8)


def random_scores(ties: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    inside = torch.randn(230, generator=generator, dtype=torch.float64) + 1
    outside = torch.randn(170, generator=generator, dtype=torch.float64)
    return (inside.mul(3).round(), outside.mul(3).round()) if ties else (inside, outside)


@pytest.mark.parametrize("ties", [False, True])
def test_figures_are_scikit_learns(ties):
    inside, outside = random_scores(ties)
    truth, values = torch.cat([torch.ones(230), torch.zeros(170)]), torch.cat([inside, outside])
    auroc, aupr, fpr95 = detection_records(inside, outside, {})
    assert [r.metric for r in (auroc, aupr, fpr95)] == ["ood_auroc", "ood_aupr", "ood_fpr95"]
    assert auroc.value == pytest.approx(roc_auc_score(truth, values), abs=1e-9)
    assert aupr.value == pytest.approx(average_precision_score(truth, values), abs=1e-9)
    fpr, tpr, _ = roc_curve(truth, values, drop_intermediate=False)
    assert fpr95.value == pytest.approx(fpr[tpr >= 0.95][0], abs=1e-9)
    assert fpr95.ci95 == wilson_interval(round(fpr95.value * 170), 170) and auroc.n == 400
    curve = auroc.details
    assert len(curve["fpr"]) == len(curve["tpr"]) <= 101
    for x, y in zip(curve["fpr"], curve["tpr"], strict=True):
        assert min(abs(fpr + tpr - x - y)) < 0.03  # the curve runs along scikit-learn's
    trapezes = torch.trapezoid(torch.tensor(curve["tpr"]), torch.tensor(curve["fpr"]))
    assert float(trapezes) == pytest.approx(auroc.value, abs=2e-3)
    assert (curve["fpr"][0], curve["tpr"][0], curve["fpr"][-1], curve["tpr"][-1]) == (0, 0, 1, 1)


def test_delongs_interval_is_the_variance_by_hand():
    inside, outside = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0.0, 2.0, 3.0])
    v, w = torch.tensor([1 / 3, 2.5 / 3, 1]), torch.tensor([1, 2 / 3, 1.5 / 3])
    spread = 1.959964 * math.sqrt(v.var() / 3 + w.var() / 3)
    record = detection_records(inside, outside, {})[0]
    assert record.value == pytest.approx(6.5 / 9)
    assert record.ci95 == pytest.approx((6.5 / 9 - spread, min(1, 6.5 / 9 + spread)), abs=1e-5)
    narrow = detection_records(*random_scores(False), {})[0].ci95
    assert narrow[1] - narrow[0] < 0.1


def test_extremes():
    perfect = detection_records(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0]), {})
    assert [r.value for r in perfect] == [1, 1, 0] and perfect[0].ci95 is None
    inverted = detection_records(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0]), {})
    assert inverted[0].value == 0 and inverted[2].value == 1
    same = detection_records(torch.ones(4), torch.ones(6), {})
    assert same[0].value == 0.5 and same[1].value == pytest.approx(0.4) and same[2].value == 1
    assert same[0].details == {"fpr": [0, 1], "tpr": [0, 1]}


def test_scores_are_the_closed_forms():
    model, data = Wells(0.5), greys([0, 51, 128, 255], "greys")
    distance = (data.float().flatten(1) - 0.5).double().norm(dim=1)
    torch.testing.assert_close(scores(model, data, "s"), -2 * distance.square(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scores(model, data, "gradient_norm"), -4 * distance, rtol=1e-5, atol=1e-6)
    chances = torch.softmax(BOTH(data.float()).double(), 1).amax(1)
    torch.testing.assert_close(scores(BOTH, data, "max_softmax"), chances.detach())


@pytest.mark.parametrize("score", ["s", "max_softmax", "gradient_norm"])
def test_every_score_points_the_right_way(score):
    data = INSIDE
    if score == "gradient_norm":  # exactly in the middle the energy is flat too: take the slopes
        outside = greys([90, 95, 100, 155, 160], "slopes")
    else:
        outside = OUTSIDE
    auroc, aupr, fpr95 = ood_records(BOTH, data, outside, score_names=[score])
    assert (auroc.value, aupr.value, fpr95.value) == (1, 1, 0)
    assert auroc.settings == {
        "score": score,
        "source": outside.name,
        "attack": None,
        "inside": "means",
        "inside_images": 10,
        "outside_images": len(outside),
    }
    backwards = ood_records(BOTH, outside, data, score_names=[score])
    assert backwards[0].value == 0 and backwards[2].value == 1


def auroc(attack: ThreatModel | None = None, score: str = "s", **fields) -> float:
    """Of images on both sides of the only mean, 1/2: inside at distances up to 2, outside beyond."""
    inside = greys(list(range(128, 256, 2)), "up")
    outside = greys(list(range(0, 60, 2)), "down")
    model = Wells(0.5)
    (first, *_) = ood_records(model, inside, outside, score_names=[score], attack=attack, **fields)
    return first.value


def closed_form(reach: float, power: int = 1) -> float:
    """AUROC of the same images where the attack brings outside ones nearer to 1/2 by `reach`."""
    inside = (torch.arange(128, 256, 2) / 255 - 0.5).double() * 4
    outside = ((0.5 - torch.arange(0, 60, 2) / 255).double() * 4 - reach).abs()
    return float((outside[:, None] > inside).double().mean())


@pytest.mark.parametrize("score", ["s", "gradient_norm"])
@pytest.mark.parametrize("eps", [0.0, 0.3, 0.7, 1.0])
def test_the_adaptive_attack_walks_eps_towards_the_mean(score, eps):
    attacked = auroc(ThreatModel("L2", eps), score)
    assert attacked == pytest.approx(closed_form(eps), abs=2e-3)  # a tie may fall either way
    assert attacked < auroc(score=score) or eps == 0


def test_every_setting_of_the_attack_matters():
    one = ThreatModel("L2", 1.0)
    # Linf 0.1 moves all 16 pixels by 0.1: length 0.4
    assert auroc(ThreatModel("Linf", 0.1)) == pytest.approx(closed_form(0.4), abs=2e-3)
    assert auroc(one, steps=3, step_size=0.1) == pytest.approx(closed_form(0.3), abs=2e-3)
    assert auroc(one, steps=5, step_size=0.1) == pytest.approx(closed_form(0.5), abs=2e-3)
    assert len({closed_form(reach) for reach in (0, 0.3, 0.4, 0.5, 1.0)}) == 5
    (record, *_) = ood_records(BOTH, INSIDE, OUTSIDE, attack=one, score_names=["gradient_norm"])
    assert record.settings["attack"] == {
        "norm": "L2",
        "eps": 1.0,
        "steps": 20,
        "step_size": pytest.approx(0.1),  # as published
        "objective": "s",
    }


def test_the_softmax_score_is_attacked_by_its_own_confidence():
    before, after = (
        ood_records(BOTH, INSIDE, OUTSIDE, score_names=["max_softmax"], attack=attack)[0]
        for attack in (None, ThreatModel("L2", 1.6))
    )
    assert before.value == 1 and after.value < 0.5
    assert after.settings["attack"]["objective"] == "max_softmax"
    # Just beyond a mean. Farther out confidence rises still, past every inside image's; s rises the other way, until
    # only the two inside images that are at their means (51 and 204) are above.
    names = ("max_softmax", "s")
    found = ood_records(BOTH, INSIDE, greys([205], "edge"), score_names=names, attack=ThreatModel("L2", 0.2))
    assert [r.value for r in found[::3]] == pytest.approx([0, 0.2])


def test_raise_confidence_is_the_log_odds_of_the_largest_probability():
    logits = torch.tensor([[math.log(1.0), math.log(2.0), math.log(5.0)], [0.0, 0.0, 0.0], [90.0, 0.0, 0.0]])
    odds = raise_confidence()(logits)
    assert odds.tolist() == pytest.approx([math.log(5 / 3), -math.log(2), 90 - math.log(2)])
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(raise_confidence()(logits).sum(), logits)
    expected = [[-1 / 3, -2 / 3, 1], [1, -0.5, -0.5], [1, -0.5, -0.5]]  # neither ties nor certainty stop it
    torch.testing.assert_close(gradient, torch.tensor(expected))


def test_batches_do_not_matter_and_known_scores_are_used():
    attack, names = ThreatModel("L2", 0.5), ("s", "max_softmax", "gradient_norm")
    together = ood_records(BOTH, INSIDE, OUTSIDE, score_names=names, attack=attack)
    for size in (1, 3):
        apart = ood_records(BOTH, INSIDE, OUTSIDE, score_names=names, attack=attack, batch_size=size)
        assert [r.value for r in apart] == [r.value for r in together]
    known = {name: scores(BOTH, INSIDE, name) for name in names}
    again = ood_records(BOTH, INSIDE, OUTSIDE, score_names=names, attack=attack, inside_scores=known)
    assert [r.value for r in again] == [r.value for r in together]
    lowest = {"s": torch.full((10,), -1e9)}
    assert ood_records(BOTH, INSIDE, OUTSIDE, score_names=["s"], inside_scores=lowest)[0].value == 0


def test_the_model_is_left_as_it_was():
    network = nn.Sequential(nn.BatchNorm2d(1), Wells(0.2, 0.8)).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    ood_records(network, INSIDE, OUTSIDE, score_names=("s", "gradient_norm"), attack=ThreatModel("L2", 0.1))
    assert network.training and all(p.requires_grad and p.grad is None for p in network.parameters())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize(("kind", "spread"), [("uniform", 1 / math.sqrt(12)), ("normal", 0.24)])
def test_noise_has_its_distribution_and_its_seed(kind, spread):
    noise = noise_images(kind, (3, 20, 20), 50, seed=1)
    assert noise.images.shape == (50, 3, 20, 20) and noise.name == f"{kind} noise"
    assert float(noise.float().mean()) == pytest.approx(0.5, abs=0.01)
    assert float(noise.float().std()) == pytest.approx(spread, abs=0.01)
    assert torch.equal(noise.images, noise_images(kind, (3, 20, 20), 50, seed=1).images)
    assert not torch.equal(noise.images, noise_images(kind, (3, 20, 20), 50, seed=2).images)


def test_bad_input_is_answered_with_a_sentence():
    with pytest.raises(ValueError, match="one of s, max_softmax, gradient_norm. Did you mean 'max_softmax'"):
        ood_records(BOTH, INSIDE, OUTSIDE, score_names=["softmax_max"])
    with pytest.raises(ValueError, match="score is 'x'"):
        scores(BOTH, INSIDE, "x")
    with pytest.raises(ValueError, match="name at least one"):
        ood_records(BOTH, INSIDE, OUTSIDE, score_names=[])
    with pytest.raises(
        ValueError, match=r"uniform noise has images of shape \(3, 4, 4\), but means of \(1, 4, 4\)"
    ):
        ood_records(BOTH, INSIDE, noise_images("uniform", (3, 4, 4), 2, 0))
    none = INSIDE.take(torch.arange(0), "nothing")
    for sets in ((none, OUTSIDE), (INSIDE, none)):
        with pytest.raises(ValueError, match="nothing holds no images"):
            ood_records(BOTH, *sets)
    with pytest.raises(ValueError, match="step_size belongs to the attack"):
        ood_records(BOTH, INSIDE, OUTSIDE, step_size=0.1)
    with pytest.raises(ValueError, match="step_size above 0"):
        ood_records(BOTH, INSIDE, OUTSIDE, attack=ThreatModel("L2", 1.0), step_size=0.0)
    with pytest.raises(ValueError, match="an attack needs a finite eps"):
        ood_records(BOTH, INSIDE, OUTSIDE, attack=ThreatModel())
    with pytest.raises(ValueError, match="one per image of means"):
        ood_records(BOTH, INSIDE, OUTSIDE, inside_scores={"s": torch.zeros(3)})
    with pytest.raises(ValueError, match="not all finite"):
        detection_records(torch.tensor([math.nan]), torch.zeros(2), {})
    with pytest.raises(ValueError, match="at least one image inside"):
        detection_records(torch.zeros(0), torch.zeros(2), {})
    with pytest.raises(ValueError, match="noise is 'pink'"):
        noise_images("pink", SHAPE, 2, 0)
    with pytest.raises(ValueError, match="number of noise images is 0"):
        noise_images("uniform", SHAPE, 0, 0)
