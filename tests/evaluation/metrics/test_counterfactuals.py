"""Counterfactual figures where the best image of the ball has a closed form: quadratic and linear logits."""

import pytest
import torch
from torch import Tensor, nn

from dualat.data.images import ImageData
from dualat.evaluation.frechet import frechet_distance
from dualat.evaluation.intervals import mean_interval
from dualat.evaluation.judge import Judge
from dualat.evaluation.metrics.counterfactual import counterfactual_records, counterfactual_targets
from dualat.results.record import wilson_interval

SHAPE = (1, 4, 4)
NAMES = ("a", "b", "c")


class Wells(nn.Module):
    """f(x)[y] = -2 |x - m_y|^2: the best image of a ball is on the straight line to the target's mean."""

    def __init__(self):
        super().__init__()
        means = 0.3 + 0.4 * torch.rand(3, 16, generator=torch.Generator().manual_seed(1))
        self.means = nn.Parameter(means)

    def forward(self, x: Tensor) -> Tensor:
        return -2 * (x.flatten(1)[:, None] - self.means).square().sum(2)


MODEL = Wells()


def images(count: int = 60, seed: int = 0, name: str = "near means") -> ImageData:
    """Images around their class means."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    noise = 0.1 * torch.randn(count, 16, generator=generator)
    x = (MODEL.means.detach()[labels] + noise).clamp(0.05, 0.95).view(-1, *SHAPE)
    return ImageData((x * 255).round().to(torch.uint8), labels, NAMES, name)


class Corner:
    """A judge whose features are three pixels."""

    steps = 1
    features_name = Judge.features_name

    def __init__(self):
        self.train = images(name="training images")
        self.rounded = True

    def features_of(self, data: ImageData) -> Tensor:
        return self.features(data.float())

    def features(self, x: Tensor) -> Tensor:
        self.rounded &= torch.allclose(x * 255, (x * 255).round(), rtol=0, atol=1e-3)
        return x.flatten(1)[:, :3]


def records(**fields) -> dict:
    given = {"data": images(), "judge": None, "eps_list": [0.2], "steps": 10} | fields
    found = counterfactual_records(MODEL, **given)
    return {r.metric.removeprefix("counterfactual_"): r for r in found}


def straight(data: ImageData, eps: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The optimum, eps towards the target's mean, and the targets."""
    x, targets = data.float(), counterfactual_targets(data.labels, 3, seed)
    way = MODEL.means.detach()[targets].view_as(x) - x
    assert way.flatten(1).norm(dim=1).min() > eps
    return x + eps * way / way.flatten(1).norm(dim=1).view(-1, 1, 1, 1), targets


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_targets_are_other_classes_spread_evenly(classes):
    labels = torch.arange(classes * (classes - 1) * 4) % classes
    targets = counterfactual_targets(labels, classes)
    assert (targets != labels).all() and 0 <= int(targets.min()) <= int(targets.max()) < classes
    pairs = torch.bincount(labels * classes + targets, minlength=classes**2).view(classes, classes)
    assert (pairs[~torch.eye(classes, dtype=torch.bool)] == 4).all()  # every pair equally often
    assert torch.equal(counterfactual_targets(labels, classes, 0), targets)
    assert classes == 2 or not torch.equal(counterfactual_targets(labels, classes, 1), targets)


@pytest.mark.parametrize("eps", [0.1, 0.35])
def test_all_figures_are_those_of_the_closed_form(eps):
    data = images()
    best, targets = straight(data, eps)
    chances = torch.softmax(MODEL(best).double(), 1).detach()
    valid, chosen = chances.argmax(1) == targets, chances.gather(1, targets[:, None]).squeeze(1)
    found = records(eps_list=[eps])
    assert list(found) == ["validity", "confidence", "distance"]
    assert found["validity"].value == pytest.approx(float(valid.double().mean()))
    assert found["validity"].ci95 == wilson_interval(int(valid.sum()), 60)
    assert found["confidence"].value == pytest.approx(float(chosen.mean()), abs=1e-4)
    assert found["confidence"].ci95 == pytest.approx(mean_interval(chosen), abs=1e-3)
    assert found["distance"].value == pytest.approx(eps, abs=1e-5)
    for name, values in (("validity", valid.double()), ("confidence", chosen)):
        expected = {n: float(values[targets == c].mean()) for c, n in enumerate(NAMES)}
        assert found[name].details["per_class"] == pytest.approx(expected, abs=1e-4)
    for record in found.values():
        assert record.n == 60 and record.seed == 0
        assert record.settings == {
            "eps": eps,
            "norm": "L2",
            "steps": 10,
            "step_size": pytest.approx(eps / 4),
            "objective": "target logit",
            "images": "near means",
        }


def test_larger_balls_reach_more():
    found = counterfactual_records(MODEL, images(), None, [0.05, 0.2, 0.6], steps=20)
    assert [r.settings["eps"] for r in found[::3]] == [0.05, 0.2, 0.6]
    for first in (0, 1, 2):
        values = [r.value for r in found[first::3]]
        assert values == sorted(values) and values[0] < values[-1]


def test_every_setting_matters():
    base = records()
    confidence = base["confidence"].value
    linf = records(norm="Linf")
    assert linf["distance"].value > 0.5 and linf["confidence"].settings["norm"] == "Linf"
    short = records(steps=2, step_size=0.03)
    assert short["distance"].value == pytest.approx(0.06, abs=1e-4)
    assert records(steps=3, step_size=0.03)["distance"].value == pytest.approx(0.09, abs=1e-4)
    assert short["confidence"].settings["step_size"] == 0.03 and short["confidence"].value < confidence
    other, best = records(seed=1), straight(images(), 0.2, seed=1)
    expected = torch.softmax(MODEL(best[0]).double(), 1).gather(1, best[1][:, None]).mean().detach()
    assert other["confidence"].value == pytest.approx(float(expected), abs=1e-4)
    assert other["confidence"].value != pytest.approx(confidence, abs=1e-6)
    assert other["confidence"].seed == 1


def test_batches_do_not_matter_and_the_model_is_left_as_it_was():
    judge, real = Corner(), images(80, 5, "held out")
    together = records(judge=judge, real=real, least=5)
    for size in (1, 7):
        apart = records(judge=judge, real=real, least=5, batch_size=size)
        for name, record in together.items():
            assert apart[name].value == pytest.approx(record.value, rel=1e-5, abs=1e-7)
    network = nn.Sequential(nn.BatchNorm2d(1), MODEL).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    counterfactual_records(network, images(9), None, [0.1], steps=2)
    assert network.training and all(p.requires_grad and p.grad is None for p in network.parameters())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_the_frechet_distance_is_class_by_class_and_averaged():
    judge, real, data = Corner(), images(90, 5, "held out"), images()
    best, targets = straight(data, 0.2)
    record = records(judge=judge, real=real, least=15)["frechet"]
    assert judge.rounded
    best = (best * 255).round() / 255
    expected = {
        name: frechet_distance(
            best[targets == c].flatten(1)[:, :3], real.float()[real.labels == c].flatten(1)[:, :3]
        )
        for c, name in enumerate(NAMES)
    }
    assert record.details["per_class"] == pytest.approx(expected, abs=1e-3)
    assert record.value == pytest.approx(sum(expected.values()) / 3, abs=1e-3) and record.n == 60
    assert record.settings["real"] == "held out" and record.settings["left_out"] == []
    assert record.settings["features"] == "judge-cnn, 1 steps on training images"
    # images that have reached the target's mean are nearer to that class than images that hardly moved
    near = records(judge=judge, real=real, least=15, eps_list=[0.5])["frechet"]
    far = records(judge=judge, real=real, least=15, eps_list=[0.01])["frechet"]
    assert near.value < far.value


def test_small_classes_are_named_and_left_out():
    judge, real = Corner(), images(90, 5)
    few = real.take(torch.cat([torch.where(real.labels != 1)[0], torch.where(real.labels == 1)[0][:4]]))
    whole = records(judge=judge, real=real, least=15)["frechet"]
    record = records(judge=judge, real=few, least=15)["frechet"]
    assert record.settings["left_out"] == ["b"] and record.settings["least"] == 15
    assert set(record.details["per_class"]) == {"a", "c"} and record.n == 40
    assert record.value == pytest.approx(
        (whole.details["per_class"]["a"] + whole.details["per_class"]["c"]) / 2, abs=1e-4
    )
    assert "frechet" not in records(judge=judge, real=real, least=50)
    assert records(judge=judge, real=few, least=4)["frechet"].settings["left_out"] == []


def test_bad_input_is_answered_with_a_sentence():
    data, judge = images(), Corner()
    with pytest.raises(ValueError, match="near means holds no images"):
        records(data=data.take(torch.arange(0)))
    with pytest.raises(ValueError, match="at least one eps"):
        records(eps_list=[])
    with pytest.raises(ValueError, match="above 0 and finite, not 0"):
        records(eps_list=[0.0])
    with pytest.raises(ValueError, match="finite eps and at least 1 step"):
        records(steps=0)
    with pytest.raises(ValueError, match="pass real"):
        records(judge=judge)
    other = ImageData(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.arange(3), NAMES, "small")
    with pytest.raises(ValueError, match="small and near means must have the same image shape and classes"):
        records(judge=judge, real=other)
    with pytest.raises(ValueError, match="least is 1"):
        records(least=1)
    with pytest.raises(ValueError, match="at least two classes"):
        records(data=ImageData(data.images, data.labels * 0, ("only",), "one"))
    four = ImageData(data.images, data.labels, (*NAMES, "d"), "four")
    with pytest.raises(ValueError, match="label 3 does not exist: this model has the classes 0 to 2"):
        records(data=four)
