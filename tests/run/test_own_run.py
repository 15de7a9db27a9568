"""Runs on somebody's own network and images: the same loop, files, figures and resume, bit for bit."""

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import dualat
from dualat.cli.main import run as command
from dualat.data.own import own_splits
from dualat.evaluation.registry import METRICS
from dualat.evaluation.settings import EvaluationSettings
from dualat.training.loop import Stage
from dualat.training.signals import Stopped

SHAPE = (1, 6, 6)
FAST = [n for n in METRICS if n not in ("inception", "imagenet_features", "autoattack", "apgd", "throughput")]
SMALL = EvaluationSettings(
    eps=(0.5,),
    steps=2,
    samples=12,
    ood_images=10,
    ood_steps=2,
    counterfactual_images=70,
    counterfactual_eps=(1.0,),
    counterfactual_steps=2,
    energy_images=10,
    sweep_steps=(1, 2),
    sweep_samples=8,
)


class Own(nn.Module):
    """A network with all that may trouble a loop: a `view`, dropout, BatchNorm, a frozen layer, one weight twice."""

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.frozen = nn.Conv2d(1, 3, 3, padding=1).requires_grad_(False)
            self.body = nn.Sequential(nn.BatchNorm2d(3), nn.SiLU(), nn.Dropout(0.2))
            self.last = nn.Linear(108, 3)
        self.again = self.last

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.body(self.frozen(x)).view(len(x), -1))


def stripes(count: int = 210, seed: int = 0) -> TensorDataset:
    """Class k is bright in rows 2k and 2k + 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    x = 0.3 * torch.rand(count, *SHAPE, generator=generator)
    for k in range(3):
        x[labels == k, :, 2 * k : 2 * k + 2] += 0.6
    return TensorDataset(x, labels)


def settings(tiny: dict, folder: Path) -> dict:
    return {**tiny, "output": str(folder), "evaluation.samples": 12}


@pytest.fixture(scope="module")
def own_run(tiny, tmp_path_factory) -> Path:
    module = Own()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    folder = tmp_path_factory.mktemp("own") / "run"
    dualat.train("digits", settings(tiny, folder), model=module, data=stripes())
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items()), (
        "the module itself was trained"
    )
    return folder


def test_a_run_has_all_files_and_its_model_loads_into_the_network(own_run: Path):
    assert {p.name for p in own_run.iterdir()} >= {
        "config.yaml",
        "evaluation.json",
        "model.safetensors",
        "samples",
    }
    model = dualat.load(own_run, network=Own(5))
    weights = model.state_dict()
    assert torch.equal(weights["network.frozen.weight"], Own().frozen.weight)
    assert not torch.equal(weights["network.last.weight"], Own().last.weight)
    assert (model.class_names, model.shape, model.initial_kind) == (["0", "1", "2"], SHAPE, "gaussian")
    samples = dualat.sample(model, [0, 1, 2])
    assert samples.shape == (3, *SHAPE)


def test_a_stopped_run_goes_on_bit_for_bit(own_run: Path, tiny, tmp_path: Path, monkeypatch):
    """Killed in stage 2, between two checkpoints, and resumed with a network of other weights."""
    step = Stage.step

    def stopping(self: Stage):
        if (self.number, self.done) == (2, 4):
            self.run.stop.signal = signal.SIGTERM.name
        return step(self)

    given = settings(tiny, tmp_path / "run")
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Stage, "step", stopping)
        dualat.train("digits", given, model=Own(), data=stripes())
    assert not (tmp_path / "run" / "model.safetensors").exists()
    dualat.train("digits", given, model=Own(7), data=stripes(), resume=True)
    one, two = load_file(own_run / "model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_a_run_is_not_resumed_on_other_images_or_in_another_network(own_run: Path, tiny):
    given = settings(tiny, own_run)
    with pytest.raises(ValueError, match=r"own:\w{12} holds other train images .* pass the same as data="):
        dualat.train("digits", given, model=Own(), data=stripes(seed=1), resume=True)
    small = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    with pytest.raises(ValueError, match=r"checkpoints do not fit this network: \d+ missing"):
        dualat.train("digits", given, model=small, data=stripes(), resume=True)


def test_the_command_line_says_that_they_are_given_in_python(own_run: Path, capsys):
    assert command(["train", str(own_run / "config.yaml"), "--output", str(own_run), "--resume"]) == 1
    assert "were given in Python, and only there: pass them, as in dualat.train(" in capsys.readouterr().err
    assert command(["evaluate", str(own_run)]) == 1
    assert "given in Python: pass it, as in dualat.load(path, network=my_module)" in capsys.readouterr().err
    assert command(["plan", str(own_run / "config.yaml")]) == 1
    assert "were given in Python" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "model", "data", "told"),
    [
        ({"network.name": "wrn-10-1"}, Own(), None, r"network\.name is a setting of the recipe's network"),
        ({"data.limit": 5}, None, stripes(), r"data\.limit is a setting of the recipe's images"),
        ({}, Own(), None, r"the model cannot take images of shape \(1, 8, 8\)"),
        (
            {},
            nn.Sequential(nn.Flatten(), nn.Linear(36, 4)),
            stripes(),
            "gives 4 logits, but the data has 3 classes",
        ),
        ({}, nn.Flatten(), stripes(), "no weights to train"),
        (
            {"network.name": "own", "network.activation": "relu"},
            None,
            None,
            r"dualat\.train\(recipe, model=my_module\)",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    tiny, tmp_path, change, model, data, told
):
    with pytest.raises(ValueError, match=told):
        dualat.train("digits", {**settings(tiny, tmp_path / "run"), **change}, model=model, data=data)
    assert not (tmp_path / "run").exists()


def test_a_network_and_images_come_each_by_itself(tiny, tmp_path: Path):
    few = {**settings(tiny, tmp_path / "run"), "stage1.steps": 1, "stage2.steps": 1}
    assert len(dualat.load(dualat.train("digits", few, data=stripes())).class_names) == 3
    whole = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    run = dualat.train("digits", few, model=whole, overwrite=True)
    again = dualat.train("digits", {**few, "weights": str(run), "output": str(tmp_path / "b")}, model=whole)
    assert dualat.load(again, network=whole).shape == (1, 8, 8)


@pytest.mark.parametrize("name", FAST)
def test_every_metric_measures_a_bare_module_or_says_what_it_needs(name):
    module, data = Own().eval(), own_splits(stripes())
    records = dualat.evaluate(module, data, [name], SMALL, initial="gaussian")
    assert records and all(record.n for record in records)
    if name in ("generation", "step_sweep"):
        with pytest.raises(
            ValueError, match=r"no initial distribution .*: pass one, as in initial='uniform'\.$"
        ):
            dualat.evaluate(module, data, [name], SMALL)
    else:
        assert dualat.evaluate(module, data, [name], SMALL)


def test_by_default_all_is_measured_that_a_bare_module_allows():
    module = Own().eval()
    with pytest.warns(UserWarning, match="samples are not measured"):
        records = dualat.evaluate(module, stripes(), settings=SMALL)
    assert {r.metric for r in records} == {"clean_accuracy", "robust_accuracy"}
    records = dualat.evaluate(module, stripes(), settings=SMALL, initial="uniform")
    made = [r for r in records if r.metric == "frechet_distance"]
    assert made and made[0].settings["initial"] == "uniform"


def test_a_runs_own_images_are_split_as_it_split_them(own_run: Path):
    """Recipe digits holds out 24 % for testing, the default is 20 %: images that the run has learned would be among those."""
    record = dualat.evaluate(dualat.load(own_run, network=Own()), stripes(), ["clean_accuracy"])[0]
    assert record.n == 51 and record.n == len(own_splits(stripes(), test_fraction=0.24).test)
