"""A source, a network and a method of the user's own, each in one file outside the package: trained, measured, sampled,
compared and reported, from Python and from the command line."""

import json
import sys
from pathlib import Path

import pytest
import torch

import dualat
from dualat.cli.main import run as command
from dualat.config import load_recipe
from dualat.data.in_distribution import load_images, load_splits
from dualat.data.registry import SOURCES
from dualat.data.settings import DataSettings
from dualat.evaluation.settings import EvaluationSettings
from dualat.methods.registry import METHODS
from dualat.models.registry import NETWORKS, build_network
from dualat.models.settings import NetworkSettings
from dualat.results.compare.side_by_side import compare
from dualat.results.report.page import write_report
from dualat.system.plugins import load_plugin

SOURCE = '''"""Stripes: class k is bright in rows 2k and 2k + 1."""

import torch

import dualat


@dualat.register_source("stripes")
def stripes():
    labels = torch.arange(150) % 3
    images = 0.3 * torch.rand(150, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    for k in range(3):
        images[labels == k, :, 2 * k : 2 * k + 2] += 0.6
    return images, labels
'''
NETWORK = '''"""A small CNN."""

from torch import nn

import dualat


@dualat.register_network("small-cnn")
def small_cnn(shape, classes):
    first = nn.Conv2d(shape[0], 8, 3, padding=1)
    return nn.Sequential(first, nn.BatchNorm2d(8), nn.SiLU(), nn.Flatten(), nn.LazyLinear(classes))
'''.replace("nn.LazyLinear(classes)", "nn.Linear(8 * shape[1] * shape[2], classes)")
METHOD = '''"""A margin: samples must have a higher energy than images, by `gap` at least.

    L = CE( f(x), y ) + mean max( 0, gap - ( E(x-) - E(x) ) ),   x-: steps down the energy from the initial distribution
"""

from torch.nn.functional import cross_entropy, relu

import dualat
from dualat.core.objectives import lower_energy
from dualat.methods.base import Method
from dualat.methods.settings import MethodSettings
from dualat.strict import strict


@strict
class Settings(MethodSettings):
    gap: float = 1.0
    """Least difference of the energies."""
    descent: int = 2
    """Steps down the energy."""


@dualat.register_method("margin", settings=Settings, energy_images=True, starts=True)
class Margin(Method):
    def generate(self, model, batch):
        steps = self.settings.descent
        return {"samples": dualat.pgd(model, batch.starts, lower_energy(), steps=steps, step_size=0.3)}

    def loss_on(self, model, batch, made):
        classes, real, samples = (model(x) for x in (batch.robust_images, batch.energy_images, made["samples"]))
        gap = real.logsumexp(1) - samples.logsumexp(1)
        loss = cross_entropy(classes, batch.robust_labels) + relu(self.settings.gap - gap).mean()
        return loss, {"gap": gap.mean().detach()}
'''
FILES = {"my_source": SOURCE, "my_network": NETWORK, "my_method": METHOD}
OVERRIDES = {
    "data.source": "stripes",
    "network.name": "small-cnn",
    "method": "margin",
    "gap": 2.0,
    "stage1.steps": 6,
    "stage1.batch_size": 16,
    "sampling.steps": 2,
    "evaluation.steps": 2,
    "evaluation.eps": [0.5],
    "evaluation.samples": 12,
    "evaluation.validation_images": 12,
    "device": "cpu",
}


def forget() -> None:
    """What the three files have registered."""
    for registry, name in ((SOURCES, "stripes"), (NETWORKS, "small-cnn"), (METHODS, "margin")):
        registry.pop(name, None)
    for name in [name for name in sys.modules if name.startswith("dualat_plugin")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def forgotten():
    yield
    forget()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plugins")
    for name, text in FILES.items():
        assert len(text.splitlines()) <= 40
        (folder / f"{name}.py").write_text(text)
    return {name: folder / f"{name}.py" for name in FILES}


@pytest.fixture(scope="module")
def plugins(files) -> list[str]:
    """Options of a command line."""
    return [word for path in files.values() for word in ("--plugin", str(path))]


@pytest.fixture(scope="module")
def made(plugins, tmp_path_factory) -> Path:
    """A run made from the command line."""
    folder = tmp_path_factory.mktemp("made") / "run"
    given = [f"--{name.replace('_', '-')}" for name in OVERRIDES]
    options = []
    for option, value in zip(given, OVERRIDES.values(), strict=True):
        options += [option, *map(str, value if isinstance(value, list) else [value])]
    assert command(["train", "digits", *options, "--output", str(folder), *plugins]) == 0
    forget()
    return folder


def test_from_the_command_line(made: Path, plugins: list[str], tmp_path, capsys):
    metrics = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    assert any("gap" in line for line in metrics)
    assert command(["evaluate", str(made), "--metrics", "clean_accuracy", *plugins, "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["metric"] == "clean_accuracy" and record["data"].startswith("stripes test")
    output = tmp_path / "samples.npz"
    assert command(["sample", str(made), "--count", "6", "--output", str(output), *plugins]) == 0
    assert command(["compare", str(made), "--format", "csv", *plugins]) == 0
    told = capsys.readouterr().out
    assert str(made) in told and "stripes test" in told
    page = tmp_path / "page.html"
    assert command(["report", str(made), "--output", str(page), *plugins]) == 0
    assert "small-cnn" in page.read_text() and "margin" in page.read_text()


def test_a_run_is_planned_before_it_is_made(files, plugins, tmp_path, capsys):
    own = ["--data.source", "stripes", "--network.name", "small-cnn", "--method", "margin", *plugins]
    assert command(["train", "digits", *own, "--dry-run"]) == 0
    assert "small-cnn" in capsys.readouterr().out
    assert command(["plan", "digits", *own, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == {"train": 99, "origin": "counted"} and told["stages"]
    assert [need["there"] for need in told["needs"]] == [True]


def test_from_python_it_is_the_same_run(made: Path, files, tmp_path):
    for path in files.values():
        load_plugin(path)
    folder = dualat.train("digits", {**OVERRIDES, "output": str(tmp_path / "run")})
    model, other = dualat.load(folder), dualat.load(made)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    splits = load_splits(load_recipe(str(folder / "config.yaml")).data)
    (record,) = dualat.evaluate(model, splits, ["clean_accuracy"], EvaluationSettings(eps=(0.5,)))
    assert record.n == 36 and record.data.startswith("stripes test")
    samples = dualat.sample(model, [0, 1, 2], generator=torch.Generator().manual_seed(0))
    assert samples.shape == (3, 1, 6, 6)
    rows = compare([folder, made]).rows
    assert len(rows) == 2 and all(row.data.startswith("stripes test, sha256") for row in rows)
    assert "stripes" in write_report(folder, tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("left_out", "name"), [("my_source", "stripes"), ("my_network", "small-cnn"), ("my_method", "margin")]
)
def test_a_run_without_its_file_says_that_the_file_is_needed(made: Path, files, capsys, left_out, name):
    options = [word for key in files if key != left_out for word in ("--plugin", str(files[key]))]
    sentence = "load the file that registers it first (import it, or give --plugin FILE)"
    commands = [
        ["evaluate", str(made), "--metrics", "clean_accuracy"],
        ["train", str(made / "config.yaml"), "--output", str(made.parent / "other")],
    ]
    if left_out != "my_method":  # whose code no model needs
        commands.append(["sample", str(made), "--count", "1", "--output", str(made.parent / "s.png")])
    for wanted in commands:
        assert command([*wanted, *options]) in (1, 2)
        told = capsys.readouterr().err
        assert sentence in told and name in told and told.count("\n") == 1, told


def test_images_of_one_s_own_source_are_split_and_limited_as_any(files):
    load_plugin(files["my_source"])
    splits = load_splits(DataSettings("stripes", test_fraction=0.4, validation_fraction=0.5))
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [45, 45, 60]
    assert splits.train.class_names == ("0", "1", "2") and splits.test.name == "stripes test"
    assert len(load_splits(DataSettings("stripes", limit=10)).train) == 10
    assert torch.equal(
        load_images("stripes", None, (1, 6, 6)).images, load_splits(DataSettings("stripes")).train.images
    )
    assert load_images("stripes", None, (3, 12, 12)).shape == (3, 12, 12)
    with pytest.raises(ValueError, match="root and download do nothing for stripes"):
        DataSettings("stripes", root="data")
    with pytest.raises(ValueError, match="image_size is for folders and shards"):
        DataSettings("stripes", image_size=8)


def test_a_source_may_give_what_train_takes_and_nothing_else(monkeypatch):
    digits = load_splits(DataSettings())
    monkeypatch.setitem(SOURCES, "mine", SOURCES["digits"])
    for given in (digits, {"train": (digits.train.images, digits.train.labels)}):
        SOURCES.pop("mine")
        dualat.register_source("mine")(lambda given=given: given)
        splits = load_splits(DataSettings("mine"))
        assert (len(splits.test) == len(digits.test)) == (given is digits)
    dualat.register_source("mine")(lambda: 5)
    with pytest.raises(ValueError, match="mine train is int, but must be a Dataset"):
        load_splits(DataSettings("mine"))


def test_a_network_must_be_one_and_fit_the_data(files, tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "mine", lambda shape, classes: 5)
    with pytest.raises(ValueError, match=r"the network 'mine' gave 5: give a torch.nn.Module"):
        build_network(NetworkSettings("mine"), (1, 8, 8), 10)
    load_plugin(files["my_network"])
    monkeypatch.setitem(NETWORKS, "mine", lambda shape, classes: NETWORKS["small-cnn"](shape, 7))  # type: ignore[operator]
    with pytest.raises(ValueError, match="the network gives 7 logits, but the data has 10 classes"):
        dualat.train("digits", {"network.name": "mine", "output": str(tmp_path / "run")})
    with pytest.raises(ValueError, match="activation chooses that of a wide ResNet"):
        NetworkSettings("mine", activation="silu")


@pytest.mark.parametrize("register", [dualat.register_source, dualat.register_network])
def test_names_that_cannot_be_are_refused(register):
    taken = "cifar10" if register is dualat.register_source else "wrn-28-10"
    with pytest.raises(ValueError, match=f"'{taken}' is one of dualat's: give yours another name"):
        register(taken)
    with pytest.raises(ValueError, match=r"cannot be named 'a/b': take letters, digits, - and _ alone"):
        register("a/b")
