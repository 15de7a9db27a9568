"""Comparisons: what may share a column, footnotes, best values, published figures, and every format."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dualat.results.compare import FORMATS, compare, published_names


def record(metric: str, value: float, n: int = 400, model: str = "final", **fields) -> dict:
    fields = {"settings": {}, "seed": 0, "split": "test", "ci95": [value - 0.02, value + 0.02]} | fields
    return {"metric": metric, "value": value, "n": n, "model": model, "seconds": 1.0, **fields}


def robust(value: float, steps: int | None = 20, attack: str = "pgd", eps: float = 0.5, n: int = 400, **more):
    settings = {"attack": attack, "norm": "L2", "eps": eps} | ({"steps": steps} if steps else {}) | more
    return record("robust_accuracy", value, n, settings=settings)


@pytest.fixture
def source(tmp_path):
    """Writes a run folder with records; gives its path."""

    def write(name: str, *records: dict, data: str = "") -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "evaluation.json").write_text(json.dumps(records))
        if data:
            (folder / "config.yaml").write_text(f"data:\n  source: {data}\n")
        return folder

    return write


def best(comparison, name: str) -> list[str]:
    return [row.system for row in comparison.rows if name in row.cells and row.cells[name].best]


def test_the_same_figure_shares_a_column_and_its_best_value_is_marked(source):
    a = source("a", record("clean_accuracy", 0.9), robust(0.5), record("ece", 0.1, settings={"bins": 20}))
    b = source("b", record("clean_accuracy", 0.8), robust(0.6), record("ece", 0.2, settings={"bins": 20}))
    result = compare([a, b / "evaluation.json"])
    assert list(result.columns) == ["clean accuracy", "robust accuracy, L2 0.5, PGD-20", "ECE"]
    assert [row.system for row in result.rows] == ["a", "b"] and result.notes == []
    assert best(result, "clean accuracy") == ["a"]
    assert best(result, "robust accuracy, L2 0.5, PGD-20") == ["b"]
    assert best(result, "ECE") == ["a"], "less is better"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (robust(0.5, 20), robust(0.5, 40)),
        (robust(0.5, 20), robust(0.5, 20, eps=1.0)),
        (robust(0.5, 20), robust(0.5, None, "autoattack")),
        (robust(0.5, None, "custom", attacks=["square"]), robust(0.5, None, "custom", attacks=["fab"])),
        (record("fid", 9, 1000), record("fid", 9, 5000)),
        (record("fid", 9, split="train"), record("fid", 9)),
        (record("fid", 9, settings={"reference": "x"}), record("fid", 9, settings={"reference": "y"})),
        (record("frechet_distance", 9, settings={"features": "judge-cnn"}), record("frechet_distance", 9, settings={"features": "efficientnet-lite0"})),
        (record("inception_score", 9, settings={"splits": 10}), record("inception_score", 9, settings={"splits": 1})),
        (record("ece", 0.1, settings={"bins": 20}), record("ece", 0.1, settings={"bins": 15})),
        (record("ece", 0.1, settings={"attack": None}), record("ece", 0.1, settings={"attack": {"norm": "L2", "eps": 1.0, "steps": 5}})),
        (record("ece", 0.1, settings={"temperature": 1.0}), record("ece", 0.1, settings={"temperature": 1.3})),
        (record("ood_auroc", 0.9, settings={"score": "s", "source": "svhn"}), record("ood_auroc", 0.9, settings={"score": "max_softmax", "source": "svhn"})),
        (record("throughput", 5, settings={"task": "sampling", "device": "a"}), record("throughput", 5, settings={"task": "sampling", "device": "b"})),
        (record("counterfactual_validity", 0.5, settings={"norm": "L2", "eps": 1.0}), record("counterfactual_validity", 0.5, settings={"norm": "L2", "eps": 2.0})),
        (record("energy", -1, settings={"images": "train"}), record("energy", -1, settings={"images": "test"})),
        (record("clean_accuracy", 0.9), record("clean_accuracy", 0.9, split="validation")),
        (record("unheard_of", 1, settings={"a": 1}), record("unheard_of", 1, settings={"a": 2})),
    ],
)  # fmt: skip
def test_other_settings_are_another_column(source, one, other):
    result = compare([source("a", one), source("b", other)])
    assert len(result.columns) == 2 and len(set(result.columns)) == 2
    assert not [c for row in result.rows for c in row.cells.values() if c.best]
    assert [len(row.cells) for row in result.rows] == [1, 1]


def test_what_still_differs_in_a_column_is_a_footnote(source):
    a = source("a", robust(0.5, 20, step_size=0.1, n=1000), record("clean_accuracy", 0.9, seed=1))
    b = source("b", robust(0.6, 20, step_size=0.2, n=400), record("clean_accuracy", 0.8, seed=2))
    result = compare([a, b])
    assert len(result.columns) == 2
    assert result.notes == ["step size 0.1, n 1000", "step size 0.2, n 400"]
    assert [row.cells["robust accuracy, L2 0.5, PGD-20"].notes for row in result.rows] == [[1], [2]]
    assert [row.cells["clean accuracy"].notes for row in result.rows] == [[], []], "seeds may differ"


def test_fitted_temperatures_share_a_column_and_are_told(source):
    a, b = (
        source(n, record("ece", 0.1, settings={"bins": 20, "temperature": t}))
        for n, t in (("a", 1.2), ("b", 1.3))
    )
    result = compare([a, b])
    assert list(result.columns) == ["ECE, temperature fitted"]
    assert result.notes == ["temperature 1.2", "temperature 1.3"]


def test_two_seeds_of_one_system_are_two_columns(source):
    a = source("a", record("fid", 9.0, seed=0), record("fid", 8.0, seed=1))
    b = source("b", record("fid", 7.0, seed=0))
    result = compare([a, b])
    assert [sorted(row.cells) for row in result.rows] == [
        ["FID, n 400, seed 0", "FID, n 400, seed 1"],
        ["FID, n 400, seed 0"],
    ]


def test_best_values_are_per_data_set_and_never_alone(source):
    a = source("a", record("clean_accuracy", 0.9), record("r1", 1.0), data="digits")
    b = source("b", record("clean_accuracy", 0.8), record("r1", 2.0), data="cifar10")
    c = source("c", record("clean_accuracy", 0.9), record("r1", 1.0), data="digits")
    result = compare([a, b, c])
    assert best(result, "clean accuracy") == ["a", "c"], "a tie; b is alone in its data set"
    assert "| a | digits |" in FORMATS["markdown"](result)
    assert not [c for row in result.rows for n, c in row.cells.items() if n == "gradient norm R1" and c.best]


def test_models_choose_rows(source):
    a = source("a", record("clean_accuracy", 0.9), record("clean_accuracy", 0.8, model="stage1"))
    b = source("b", record("clean_accuracy", 0.7, model="stage1"))
    result = compare([a, b], models=["final", "stage1"])
    assert [(r.system, r.model) for r in result.rows] == [("a", "final"), ("a", "stage1"), ("b", "stage1")]
    assert "weights" in FORMATS["markdown"](result)
    with pytest.raises(
        ValueError, match="b holds no records of final, samples; it has stage1: choose with --models"
    ):
        compare([a, b])


def test_folders_of_the_same_name_are_told_apart(source):
    a, b = source("x/run", record("clean_accuracy", 0.9)), source("y/run", record("clean_accuracy", 0.8))
    assert [r.system for r in compare([a, b]).rows] == [str(a), str(b)]


def test_figures_choose_columns(source):
    a = source("a", record("clean_accuracy", 0.9), record("fid", 9.0))
    assert list(compare([a], figures=["fid"]).columns) == ["FID, n 400"]
    with pytest.raises(
        ValueError, match="no metric value 'clean_acuracy' here. Did you mean clean_accuracy?"
    ):
        compare([a], figures=["clean_acuracy"])


def test_published_figures_are_the_papers(source):
    assert published_names() == ["cifar10", "cifar100", "imagenet256"]
    rows = {r.system: {k: c.record.value for k, c in r.cells.items()} for r in compare([], "cifar10").rows}
    auto = "robust accuracy, L2 0.5, AutoAttack"
    assert rows["DAT T=40"] == {
        "clean accuracy": 0.9192,
        auto: 0.7575,
        "Inception Score, n 50000": 9.92,
        "FID, n 50000, against train images": 9.12,
    }
    assert rows["RATIO"][auto] == 0.7625 and rows["JEM"]["FID, n 50000, against train images"] == 38.4
    assert rows["EB-JDAT"]["robust accuracy, Linf 8/255, AutoAttack"] == 0.663
    imagenet = {r.system: r for r in compare([], "imagenet256").rows}
    assert imagenet["EGC"].cells["robust accuracy, radius not stated, PGD-5"].record.value == 0.1356
    assert list(imagenet["DiT-XL/2-G"].cells) == ["FID, n 50000, against train images"]
    for name in published_names():
        for row in compare([], name).rows:
            assert row.published and row.source and len(row.notes) == 2
            for cell in row.cells.values():
                assert math.isfinite(cell.record.value)
                assert cell.record.metric in ("fid", "inception_score") or 0 < cell.record.value < 1


def test_published_figures_join_a_column_only_where_nothing_contradicts(source):
    auto = robust(0.7, None, "autoattack", attacks=["apgd-ce"], n=1000)
    near = source(
        "near",
        auto,
        record("fid", 8.0, 50_000, split="train", settings={"features": "inception"}),
        data="cifar10",
    )
    result = compare([near], "cifar10")
    assert (
        len(
            [
                r
                for r in result.rows
                if len([n for n in r.cells if n.startswith("robust accuracy, L2 0.5")]) == 1
            ]
        )
        == 7
    )
    assert len([n for n in result.columns if n.startswith("FID")]) == 1
    assert best(result, "robust accuracy, L2 0.5, AutoAttack") == ["RATIO"]
    far = source("far", robust(0.7, 20), record("fid", 8.0, 1000, split="train"))
    result = compare([far], "cifar10")
    assert len([n for n in result.columns if n.startswith("FID")]) == 2
    assert "robust accuracy, L2 0.5, PGD-20" in result.columns
    assert "robust accuracy, L2 0.5, AutoAttack" in result.columns


HOSTILE = 'a|b & 50% $x_1$ {\\input} #~^ <script> [1] *b* `c` "q" ±\n\x1b[31mred'


@pytest.fixture
def example(source):
    a = source("a", record("clean_accuracy", 0.9123), record(HOSTILE, 1.0), robust(0.5, step_size=0.1))
    b = source(
        "b%_[&]",
        record("clean_accuracy", 0.8),
        record(HOSTILE, float("nan"), ci95=None),
        robust(0.4, step_size=0.2),
    )
    return compare([a, b], "cifar10")


def test_markdown(example):
    text = FORMATS["markdown"](example)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1, "every row has the same cells"
    assert "**0.912 ±0.020**" in table[2] and r"b%\_\[\&\]" in table[3]
    assert "DAT T=40 (published) <sup>" in text and "1. published: AutoAttack (standard), L2, eps 0.5" in text
    assert "<script>" not in text and "\x1b" not in text
    assert "0.9192" in text


def test_latex(example):
    text = FORMATS["latex"](example)
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0]
    ends = [line for line in body.splitlines() if line]
    assert all(line.endswith(" \\\\") for line in ends) and len(ends) == len(example.rows)
    columns = len(re.search(r"begin\{tabular\}\{([lr]+)\}", text)[1])
    assert {len(re.findall(r"(?<!\\)&", line)) for line in ends} == {columns - 1}
    assert "\\textbf{0.912 $\\pm$0.020}" in text and "b\\%\\_{[}\\&{]}" in text
    assert "\\textbackslash{}input" in text and "\\input" not in text and "\x1b" not in text
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")
    for command in ("table", "tabular"):
        assert text.count(f"\\begin{{{command}}}") == text.count(f"\\end{{{command}}}") == 1


def test_csv(example):
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](example))))
    assert len(rows) == len(example.rows) and None not in rows[0]
    assert [float(rows[0]["clean accuracy" + s]) for s in ("", " n", " ci95 low", " ci95 high")] == [
        0.9123, 400, 0.9123 - 0.02, 0.9123 + 0.02
    ]  # fmt: skip
    assert rows[0]["published"] == "no" and rows[-1]["published"] == "yes" and rows[-1]["data"] == "cifar10"
    assert rows[1]["notes"].startswith("step size 0.2") or "step size 0.2" in rows[1]["notes"]
    assert "AutoAttack (standard)" in rows[-1]["notes"]


def test_csv_holds_no_formulas(source):
    assert "\n'=1+1," in FORMATS["csv"](compare([source("=1+1", record("clean_accuracy", 0.9))]))


def test_json(example):
    value = json.loads(FORMATS["json"](example), parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    assert value["rows"][0]["figures"]["clean accuracy"]["ci95"] == [0.9123 - 0.02, 0.9123 + 0.02]
    assert value["columns"][0] == {
        "name": "clean accuracy",
        "better": "more",
        "shared": {"metric": "clean_accuracy"},
    }
    assert value["rows"][-1]["published"] is True


@pytest.mark.parametrize("columns", [50, 80, 400])
def test_table_fits_the_terminal(example, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = FORMATS["table"](example)
    assert max(map(len, text.splitlines())) <= columns and "\x1b" not in text
    for value in ("EB-JDAT", "0.6630", "0.7625*", "38.40", "0.912 ±0.020*", "0.400 ±0.020 ["):
        assert value in text, value


def test_a_wide_table_is_turned_and_cut(source, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    a = source("a", record("clean_accuracy", 0.9), robust(0.5, 20), robust(0.4, 20, eps=1.0))
    text = FORMATS["table"](compare([a]))
    assert "clean accuracy" in text and text.count("┏") == 1
    assert FORMATS["table"](compare([a], "cifar10")).count("┏") == 3


def test_what_is_no_source_is_one_sentence(source, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        compare([tmp_path / "none"])
    (tmp_path / "bare").mkdir()
    with pytest.raises(FileNotFoundError, match="not measured yet: `dualat evaluate .*bare`"):
        compare([tmp_path / "bare"])
    for name in ("model.safetensors", "samples.npz"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(FileNotFoundError, match=f"not measured yet: `dualat evaluate .*{name}`"):
            compare([tmp_path / name])
        record = {"metric": "fid", "value": 3.0, "n": 100, "model": "samples"}
        (tmp_path / f"{name}.evaluation.json").write_text(json.dumps([record]))
        assert compare([tmp_path / name]).rows[0].model == "samples"
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="bad.json is no file of records"):
        compare([tmp_path / "bad.json"])
    with pytest.raises(ValueError, match="empty holds no records of final, samples; it is empty"):
        compare([source("empty")])


def test_comparing_needs_no_torch():
    code = "import sys, dualat.results.compare; print(*sorted({'torch', 'timm', 'rich'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stdout.strip() == "", result.stdout + result.stderr
