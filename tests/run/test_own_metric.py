"""A metric of the user's own, in one file outside the package: measured, kept, shown, compared and reported."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

import dualat
from dualat.cli.main import run
from dualat.config import load_recipe
from dualat.data.in_distribution import load_splits
from dualat.evaluation import registry
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.registry import METRICS, register_metric
from dualat.evaluation.settings import EvaluationSettings
from dualat.evaluation.store import update_records
from dualat.results import catalogue
from dualat.results.record import read_records
from dualat.system.plugins import load_plugin

MARGIN = '''"""Margin of the classifier.

    margin = 1/N sum_i ( largest - second largest logit of x_i )
"""

import dualat

SETTINGS = {"scale": 1.0}


@dualat.register_metric(
    "margin",
    "mean margin between the two largest logits",
    uses=("energy_images",),
    settings=SETTINGS,
    values={"logit_margin": dualat.MetricValue("margin of logits", better="more", identity=("scale",))},
)
def margin(context):
    first, second = context.logits(context.settings.energy_images).topk(2, dim=1).values.T
    value = SETTINGS["scale"] * float((first - second).mean())
    return dualat.Record("logit_margin", value, len(first), settings=dict(SETTINGS))
'''
SMALL = EvaluationSettings(energy_images=20)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(catalogue, "_OWN", {})
    before, modules = dict(METRICS), set(sys.modules)
    yield
    METRICS.clear()
    METRICS.update(before)
    for name in set(sys.modules) - modules:
        if name.startswith("dualat_plugin"):
            del sys.modules[name]


@pytest.fixture
def plugin(tmp_path) -> Path:
    path = tmp_path / "my_margin.py"
    path.write_text(MARGIN)
    assert len(MARGIN.splitlines()) <= 40
    return path


@pytest.fixture(scope="module")
def splits(tiny_run):
    return load_splits(load_recipe(str(tiny_run / "config.yaml")).data)


def test_from_python_it_is_measured_like_ours(plugin, tiny_run, splits):
    load_plugin(plugin)
    model = dualat.load(tiny_run)
    (record,) = dualat.evaluate(model, splits, ["margin"], SMALL)
    chosen = splits.test.take(torch.arange(20) * len(splits.test) // 20)
    with torch.no_grad():
        best = model.eval()(chosen.float()).topk(2, dim=1).values
    assert record.value == pytest.approx(float((best[:, 0] - best[:, 1]).mean()), rel=1e-5)
    assert (record.metric, record.n, record.seed) == ("logit_margin", 20, 0)
    assert record.key.startswith("margin:") and record.data.startswith("digits test") and record.seconds > 0


def test_from_the_command_line_it_is_kept_used_again_compared_and_reported(
    plugin, tiny_run, tmp_path, capsys
):
    options = ("--plugin", str(plugin))
    tiny_run = Path(shutil.copytree(tiny_run, tmp_path / "run"))  # it is written to
    wanted = ["evaluate", str(tiny_run), "--metrics", "margin", "--energy-images", "20"]
    assert run([*wanted, *options]) == 0
    assert "margin of logits" in capsys.readouterr().out
    assert [r.n for r in read_records(tiny_run / "evaluation.json") if r.metric == "logit_margin"] == [20]
    assert run([*wanted, f"--plugin={plugin}", "--json"]) == 0
    told = capsys.readouterr()
    assert "already in" in told.err and json.loads(told.out)[0]["metric"] == "logit_margin"
    assert run(["compare", str(tiny_run), "--format", "csv", *options]) == 0
    assert "margin of logits" in capsys.readouterr().out
    assert run(["report", str(tiny_run), "--output", str(tmp_path / "page.html"), *options]) == 0
    assert "margin of logits" in (tmp_path / "page.html").read_text()
    assert run([*wanted, "--eps", "0.1", *options]) == 2
    assert "--eps belongs to robust_accuracy" in capsys.readouterr().err


def test_other_code_or_settings_of_it_are_measured_anew(plugin, tiny_run, splits, tmp_path):
    def key() -> str:
        found = EvaluationContext(dualat.load(tiny_run), splits, SMALL, 0)
        return found.key("margin", METRICS["margin"].uses)

    load_plugin(plugin)
    first = key()
    assert key() == first
    other = tmp_path / "other.py"
    other.write_text(MARGIN + "\n# another\n")
    load_plugin(other)
    second = key()
    METRICS["margin"].settings["scale"] = 2.0
    assert len({first, second, key()}) == 3


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (0.5, "'a number' gave 0.5: give a dualat.Record, or a list of them"),
        ([], r"gave \[\]: give a dualat.Record"),
        (dualat.Record("x", torch.tensor(1.0), 1), "holds what cannot be written .*Tensor"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_record_is_one_sentence(tiny_run, splits, tmp_path, given, match):
    register_metric("number", "a number")(lambda context: given)
    context = EvaluationContext(dualat.load(tiny_run), splits, SMALL, 0)
    with pytest.raises(ValueError, match=match):
        update_records(tmp_path / "e.json", context, "final", ["number"], by_name=True)


def test_its_needs_are_asked_first_and_samples_are_enough_for_one_of_samples(splits):
    from dualat.evaluation.samples import ImageSet

    def refuse(context):
        raise FileNotFoundError("the scale is missing: buy one.")

    @register_metric("weight", "weight", needs=refuse)
    def weight(context):
        raise AssertionError("measured")

    @register_metric("brightness", "mean pixel of samples", of_samples=True)
    def brightness(context):
        return dualat.Record("brightness", float(context.samples.images.float().mean()) / 255, 5)

    given = ImageSet(torch.full((5, 1, 8, 8), 51, dtype=torch.uint8), None, "mine")
    (record,) = dualat.evaluate(None, splits, ["brightness"], samples=given)
    assert record.value == pytest.approx(0.2)
    with pytest.raises(FileNotFoundError, match="buy one"):
        dualat.evaluate(None, splits, ["brightness", "weight"], samples=given)


def test_names_and_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="'energy' is one of dualat's: give yours another name"):
        register_metric("energy", "mine")
    with pytest.raises(ValueError, match="cannot be named 'a:b'"):
        register_metric("a:b", "mine")
    with pytest.raises(ValueError, match="uses 'sides', which is no setting of EvaluationSettings"):
        register_metric("roundness", "mine", uses=("sides",))
    assert set(METRICS) == set(registry._OURS)
