"""AutoAttack against closed forms (linear models), against pyautoattack alone, and when it is stopped and goes on."""

import logging
import sys

import pyautoattack
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack
from pyautoattack.square import SquareAttack
from safetensors.torch import save
from torch import Tensor, nn

from dualat.core.geometry import ThreatModel
from dualat.data.images import ImageData
from dualat.evaluation.metrics.autoattack import STANDARD, autoattack, choose_attacks, square_fits
from dualat.results.record import Record, outcomes

SIDE = 6
ORDER = {"L2": 2, "Linf": 1}  # dual norms


class Linear(nn.Module):
    """Logits W (x - 1/2)."""

    def __init__(self, classes: int, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, SIDE * SIDE, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) @ self.weight.T


def images(model: nn.Module, count: int, wrong: int = 0, seed: int = 1) -> ImageData:
    """Images near grey, so that the box [0, 1] is far, with the model's answers as labels but for the first `wrong`."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(90, 166, (count, 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        logits = model(x.float() / 255)
    labels = logits.argmax(1)
    labels[:wrong] = (labels[:wrong] + 1) % logits.shape[1]
    return ImageData(x, labels, tuple(map(str, range(logits.shape[1]))), "greys")


def radius(model: Linear, data: ImageData, norm: str) -> Tensor:
    """min_{j != y} (z_y - z_j) / ||w_y - w_j||_dual: the exact distance to another class; negative where wrong."""
    with torch.no_grad():
        z, y = model(data.float()), data.labels
        margin = z.gather(1, y[:, None]) - z
        length = (model.weight[y][:, None] - model.weight).norm(p=ORDER[norm], dim=2)
        return (margin / length).scatter(1, y[:, None], torch.inf).amin(1)


def standing(record: Record) -> Tensor:
    """Per image: did no attack fool the model?"""
    return torch.from_numpy(outcomes(record)).bool()


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("norm", ["L2", "Linf"])
@pytest.mark.parametrize("classes", [2, 3, 5, 12])
def test_a_linear_model_falls_up_to_the_closed_form_radius(classes, norm):
    model = Linear(classes)
    data = images(model, 24, wrong=3)
    reach = radius(model, data, norm)
    eps = float(reach.median())
    record = autoattack(model, data, ThreatModel(norm, eps))
    stood = standing(record)
    assert stood[reach > eps * 1.001].all(), "an image beyond reach was counted as fooled"
    assert not stood[reach < eps * 0.98].any(), "an image within reach still stands"
    assert round(record.value * 24) == int(stood.sum()) and record.n == 24
    assert record.details["after"]["clean"] == 21 / 24 and record.details["projected"] == 0
    s = record.settings
    assert (s["attack"], s["norm"], s["eps"], s["precision"]) == ("autoattack", norm, eps, "fp32")
    assert s["targets"] == min(9, classes - 1) and s["pyautoattack"]
    ran = {2: ["apgd-ce", "fab-t", "square"], 3: ["apgd-ce", "apgd-dlr", "fab-t", "square"]}
    assert s["attacks"] == ran.get(classes, list(STANDARD))
    assert list(s["left_out"]) == ([] if classes > 3 else ["apgd-t"])
    assert list(record.details["after"]) == ["clean", *s["attacks"]]


@pytest.mark.usefixtures("short")
def test_a_thousand_classes():
    model = Linear(1000)
    data = images(model, 6)
    reach = radius(model, data, "Linf")
    eps = float(reach.median()) * 1.01
    record = autoattack(model, data, ThreatModel("Linf", eps))
    assert torch.equal(standing(record), reach > eps)
    assert record.settings["targets"] == 9 and record.settings["left_out"] == {}


class Masked(nn.Module):
    """A small network with logits so large that the cross-entropy's gradient vanishes on many images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(6 * 16, 12)
        )

    def forward(self, x: Tensor) -> Tensor:
        return 3000 * self.layers(x - 0.5)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("norm", "eps"), [("L2", 0.2), ("Linf", 0.03)])
def test_every_image_fares_as_under_pyautoattack_alone(norm, eps):
    model = Masked().eval()
    data = images(model, 30, wrong=4)
    theirs = pyautoattack.AutoAttack(model, norm=norm, eps=eps, seed=3)
    _, answers = theirs.run_standard_evaluation(data.float(), data.labels, batch_size=12)
    record = autoattack(model, data, ThreatModel(norm, eps), batch_size=12, seed=3)
    assert torch.equal(standing(record), answers == data.labels)
    assert record.seed == 3 and record.details["projected"] == 0
    after = record.details["after"]
    assert 0 < record.value == after["square"] < after["apgd-ce"] < after["clean"] == 26 / 30, after


@pytest.mark.usefixtures("short")
def test_the_model_and_the_callers_surroundings_are_left_as_found(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    model = Masked().train()
    model.layers[0].weight.requires_grad_(False)
    data = images(Masked().eval(), 8)
    flags = [p.requires_grad for p in model.parameters()]

    def tracer(*_):
        return None

    torch.manual_seed(11)
    streams, before = torch.get_rng_state(), sys.gettrace()
    sys.settrace(tracer)
    try:
        autoattack(model, data, ThreatModel("L2", 0.1), attacks=("apgd-ce", "fab-t"))
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert torch.equal(torch.get_rng_state(), streams)
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert not caplog.records and capfd.readouterr() == ("", "")
    assert not logging.getLogger("auto-attack").disabled


class Fused(Linear):
    """A linear model that is killed at its forward pass number `fuse`."""

    fuse = -1

    def forward(self, x: Tensor) -> Tensor:
        self.fuse -= 1
        if self.fuse == 0:
            raise KeyboardInterrupt
        return super().forward(x)


@pytest.mark.usefixtures("short")
def test_a_run_that_was_stopped_goes_on_to_the_same_record(tmp_path):
    model = Fused(4)
    data = images(model, 6, wrong=1)
    threat = ThreatModel("Linf", float(radius(model, data, "Linf").median()))
    options = {"attacks": ("apgd-ce", "fab-t", "square"), "batch_size": 2}
    calls = []
    whole = autoattack(model, data, threat, **options, progress=lambda *call: calls.append(call))
    assert calls[:3] == [("clean", 1, 3), ("clean", 2, 3), ("clean", 3, 3)] and len(calls) > 6
    assert all(1 <= done <= total for _, done, total in calls)

    for stop in range(len(calls)):
        state, seen = tmp_path / f"{stop}", []

        def halt(*call, seen=seen, stop=stop):
            seen.append(call)
            if len(seen) == stop + 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            autoattack(model, data, threat, **options, state=state, progress=halt)
        assert autoattack(model, data, threat, **options, state=state, progress=halt) == whole
        assert seen == calls, "a chunk was repeated or left out"
    assert autoattack(model, data, threat, **options, state=state) == whole  # done: nothing is attacked again

    for fuse in (2, 30, 120, 200):
        state, seen = tmp_path / f"fuse-{fuse}", []
        model.fuse = fuse
        with pytest.raises(KeyboardInterrupt):
            autoattack(model, data, threat, **options, state=state, progress=lambda *c, s=seen: s.append(c))
        record = autoattack(
            model, data, threat, **options, state=state, progress=lambda *c, s=seen: s.append(c)
        )
        assert record == whole and seen == calls


def test_the_state_of_another_evaluation_is_not_used_and_a_damaged_one_made_anew(tmp_path):
    model, state = Linear(5), tmp_path / "state"
    data = images(model, 4)
    threat, options = ThreatModel("L2", 0.01), {"attacks": ("apgd-ce",)}
    own = autoattack(model, data, threat, **options, state=state)
    others = [({"seed": 1}, (model, data, threat)), ({"batch_size": 2}, (model, data, threat))]
    others.append(({"attacks": ("apgd-ce", "fab-t")}, (model, data, threat)))
    for args in [
        (Linear(5, seed=1), data, threat),
        (model, images(model, 4, seed=2), threat),
        (model, images(model, 4, wrong=1), threat),
        (model, data, ThreatModel("L2", 0.02)),
    ]:
        others.append(({}, args))
    for change, args in others:
        alone = autoattack(*args, **(options | change))
        assert autoattack(*args, **(options | change), state=state) == alone
    assert len(list(state.iterdir())) == 1 + len(others)
    for content in (
        b"{}",
        b"",
        save({"fooled": torch.ones(4, dtype=torch.bool)}),
        save({"fooled": torch.ones(3)}),
    ):
        for path in state.rglob("*.safetensors"):
            path.write_bytes(content)
        assert autoattack(model, data, threat, **options, state=state) == own


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_images_outside_the_ball_are_put_back_and_judged_again(norm, monkeypatch):
    model = Linear(2)
    data = images(model, 20, wrong=2)
    step = model.weight.detach()[0] - model.weight.detach()[1]
    step = (step.sign() if norm == "Linf" else step).view(1, 1, SIDE, SIDE)
    sign = lambda y: (2 * y - 1).view(-1, 1, 1, 1)  # noqa: E731
    monkeypatch.setattr(APGDAttack, "perturb", lambda self, x, y: x + 0.1 * sign(y) * step)
    reach = radius(model, data, norm)
    eps = float(reach.median())
    record = autoattack(model, data, ThreatModel(norm, eps), attacks=("apgd-ce",))
    assert record.details["projected"] == 18  # the wrong ones are not attacked
    clear = (reach / eps - 1).abs() > 1e-3
    assert torch.equal(standing(record)[clear], (reach > eps)[clear])


@pytest.mark.usefixtures("short")
def test_a_model_with_one_answer_keeps_it_in_every_ball():
    model = Linear(4)
    model.weight.data.zero_()
    data = images(model, 6, wrong=2)
    for norm in ("L2", "Linf"):
        assert autoattack(model, data, ThreatModel(norm, 0.5)).value == 4 / 6


def test_square_fits_where_it_does_not_fail():
    model = lambda x: torch.stack([x.flatten(1).mean(1), 0.4 * torch.ones(len(x))], 1)  # noqa: E731
    sizes = [(s, s) for s in range(3, 34)] + [
        (8, 28),
        (28, 8),
        (32, 14),
        (14, 32),
        (28, 24),
        (24, 28),
        (32, 2),
    ]
    for height, width in sizes:
        attack = SquareAttack(model, "L2", n_queries=1, eps=0.01, seed=0, device="cpu")
        try:
            attack.perturb(torch.full((2, 1, height, width), 0.5), torch.zeros(2, dtype=torch.long))
            works = True
        except (RuntimeError, ZeroDivisionError):
            works = False
        assert square_fits((1, height, width)) == works, (height, width)
    assert choose_attacks(STANDARD, 10, "L2", (1, 12, 12))[0] == STANDARD[:3]
    assert choose_attacks(STANDARD, 10, "Linf", (1, 12, 12)) == (STANDARD, {})


@pytest.mark.usefixtures("short")
def test_names_of_ensembles():
    model = Linear(4)
    data = images(model, 2)
    for attacks, name in [(("apgd-ce",), "apgd"), (("apgd-dlr",), "custom"), (("apgd-ce", "apgd-t"), "apgd")]:
        settings = autoattack(model, data, ThreatModel("Linf", 0.5), attacks=attacks).settings
        assert (settings["attack"], settings["attacks"]) == (name, list(attacks))
        assert settings["targets"] == (3 if "apgd-t" in attacks else 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"threat": ThreatModel("L2")}, "eps is inf"),
        ({"threat": ThreatModel("L2", 0)}, "eps is 0"),
        ({"attacks": ("agpd-ce",)}, "Did you mean 'apgd-ce'"),
        ({"attacks": ()}, "at least one attack"),
        ({"attacks": ("square", "square")}, "each once"),
        ({"attacks": ("apgd-t", "apgd-dlr")}, "none of the attacks"),
        ({"batch_size": 0}, "needs a batch_size"),
        ({"model": Linear(2).double()}, "not float32"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(36, 1))}, "2 or more"),
    ],
)
def test_what_cannot_be_is_one_sentence(change, sentence):
    arguments = {"model": Linear(2), "data": images(Linear(2), 3), "threat": ThreatModel("L2", 0.1)} | change
    with pytest.raises(ValueError, match=sentence):
        autoattack(**arguments)


def test_logits_that_are_not_finite_stop_it():
    model = Linear(4)
    data = images(model, 3)
    model.weight.data[2, 5] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        autoattack(model, data, ThreatModel("L2", 0.1))
