"""The catalogue and names of figures: one row is enough for the table, the comparison and the report, and none is needed."""

import io
import json
import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest
from rich.console import Console

import dualat.results
from dualat.evaluation.registry import METRICS
from dualat.results import catalogue
from dualat.results.catalogue import CATALOGUE, MetricValue, describe, described, setting
from dualat.results.compare import FORMATS, compare
from dualat.results.naming import identity, name_of, names
from dualat.results.record import Record, write_records
from dualat.results.report.page import render
from dualat.results.table import table

PGD = {"attack": "pgd", "norm": "Linf", "eps": 8 / 255, "steps": 20}
HIT = {"norm": "L2", "eps": 1.0, "steps": 20, "objective": "energy"}


@pytest.mark.parametrize(
    ("record", "name"),
    [
        (Record("clean_accuracy", 0.9, 10), "clean accuracy"),
        (Record("clean_accuracy", 0.9, 10, split="validation"), "clean accuracy, validation images"),
        (Record("robust_accuracy", 0.5, 10, settings=PGD), "robust accuracy, Linf 8/255, PGD-20"),
        (Record("robust_accuracy", 0.5, 10, settings=PGD | {"norm": "L2", "eps": 0.2}), "robust accuracy, L2 0.2, PGD-20"),
        (Record("robust_accuracy", 0.5, 10, settings={"attack": "autoattack", "norm": "L2", "eps": 1}), "robust accuracy, L2 1, AutoAttack"),
        (Record("fid", 9.0, 10, settings={"features": "inception"}, split="train"), "FID, n 10, against train images"),
        (Record("recall", 0.5, 10, settings={"features": "judge-cnn, 9 steps"}), "recall of samples, judge-cnn, n 10"),
        (Record("ece", 0.1, 10, settings={"bins": 20, "temperature": 1.3, "attack": HIT}), "ECE, temperature fitted, attacked through energy L2 1"),
        (Record("ood_fpr95", 0.1, 10, settings={"score": "s", "source": "/data/svhn", "attack": HIT | {"objective": "s"}}), "OOD FPR95, svhn, score s, attacked L2 1"),
        (Record("energy", -1.0, 10, settings={"images": "train"}, split="train"), "mean energy, train"),
        (Record("throughput", 5.0, 10, settings={"task": "sampling", "steps": 40}, split=""), "images/s, sampling, 40 steps"),
        (Record("of_mine", 5.0, 10, settings={"a": 1}), "of mine"),
    ],
)  # fmt: skip
def test_names_of_figures(record, name):
    assert name_of(record) == name


def test_titles_tell_metric_values_apart():
    titles = [row.title for row in CATALOGUE.values()]
    assert len(set(titles)) == len(titles)
    assert set(METRICS) & set(CATALOGUE) >= {"clean_accuracy", "robust_accuracy", "energy", "throughput"}


def test_more_is_better_for_accuracies_and_less_for_distances():
    for name, row in CATALOGUE.items():
        if name.endswith("accuracy"):
            assert (row.better, row.unit) == ("more", "share")
        if row.unit == "distance":
            assert row.better == "less"


def test_equal_names_are_told_apart_by_what_differs():
    keys = [identity(Record("of_mine", 1.0, 9, settings={"a": a, "b": True})) for a in (1, 2)]
    assert names(keys) == ["of mine, a 1", "of mine, a 2"]
    assert names([keys[0]] * 2) == ["of mine", "of mine (2)"]


@pytest.fixture
def mine(monkeypatch):
    """A metric value of the user's own, described while the test lasts."""
    monkeypatch.setattr(catalogue, "_OWN", {})
    told = (setting("sides", "{} sides"),)
    describe("roundness", MetricValue("roundness", "share", "less", ("sides",), told))


def shown(records: list[Record]) -> str:
    out = io.StringIO()
    Console(file=out, width=100).print(table(records, ""))
    return out.getvalue()


def test_a_described_metric_value_is_named_compared_and_reported(mine, tmp_path):
    for name, value in (("a", 0.5), ("b", 0.25)):
        settings = {"sides": 3, "by": name}
        (tmp_path / name).mkdir()
        records = [Record("roundness", value, 10, settings=settings)]
        write_records(tmp_path / name / "evaluation.json", records)
        assert "roundness, 3 sides" in shown(records) and "<td>roundness, 3 sides</td>" in render(
            tmp_path / name
        )
    result = compare([tmp_path / "a", tmp_path / "b"])
    assert list(result.columns) == ["roundness, 3 sides"] and result.notes == ["by a", "by b"]
    assert [row.cells["roundness, 3 sides"].best for row in result.rows] == [False, True]
    assert json.loads(FORMATS["json"](result))["columns"][0]["better"] == "less"


def test_a_metric_value_without_a_row_works_everywhere_and_loses_no_figure(tmp_path):
    records = [Record("own_value", v, 10, settings={"radius": r}) for r, v in ((1, 0.5), (2, 0.25))]
    write_records(tmp_path / "evaluation.json", records)
    text = shown(records)
    assert "own value, radius 1" in text and "own value, radius 2" in text
    result = compare([tmp_path])
    assert list(result.columns) == ["own value, radius 1", "own value, radius 2"]
    assert render(tmp_path).count("<td>own value</td>") == 2
    assert described("own_value").better == ""


def test_names_of_ours_are_not_given_another_meaning():
    with pytest.raises(ValueError, match="'fid' is one of dualat's: give yours another name"):
        describe("fid", MetricValue("mine"))


def test_nothing_of_results_imports_torch():
    folder = dualat.results
    modules = [m.name for m in pkgutil.walk_packages(folder.__path__, f"{folder.__name__}.")]
    assert {
        f"dualat.results.{name}" for name in ("record", "catalogue", "table", "compare", "report.page")
    } <= set(modules)
    code = f"import sys\nfor name in {modules!r}: __import__(name)\n"
    code += "print(*sorted({'torch', 'timm', 'matplotlib'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stdout.strip() == "", result.stdout + result.stderr
    assert import_module("dualat.results.record").versions()["torch"]
