"""Records as a table: what a run ends with fits a terminal of 80 columns, a row a figure."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from dualat.results.record import Record, proportion
from dualat.results.table import cell, table


def ending(model: str, features: str = "judge-cnn, seed 0") -> list[Record]:
    """What a training run records of one model."""
    attack: dict = {"attack": "pgd", "norm": "L2", "steps": 20}
    of_samples: dict = {"settings": {"features": features}, "model": model}
    return [
        proportion("clean_accuracy", 427, 431, model=model),
        *(
            proportion("robust_accuracy", h, 431, settings=attack | {"eps": e}, model=model)
            for h, e in ((412, 0.25), (0, 4.0))
        ),
        proportion("sample_class_accuracy", 486, 500, settings={"judge": "svm"}, model=model),
        Record("frechet_distance", 326.69, 500, (293.9, 359.5), **of_samples),
        Record("kernel_distance", 14886.4, 500, (12762.9, 17009.9), **of_samples),
        Record("recall", 0.042, 431, **of_samples),
    ]


OF_MODELS = ("clean_accuracy", "robust_accuracy")
"""Figures that nothing but a model has: what samples start from has the others."""


def shown(records: list[Record], width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(table(records, "runs/digits: held-out images"))
    return [line.strip() for line in out.getvalue().splitlines() if line.strip()]


def test_three_models_fit_into_80_columns_with_a_line_per_figure():
    of_start = [
        replace(r, value=0.1, ci95=(0.08, 0.12)) for r in ending("start") if r.metric not in OF_MODELS
    ]
    lines = shown([*ending("final"), *of_start, *ending("stage1")])
    assert len(lines) == 2 + 1 + 7 + 1  # title and header, rule, figures, caption
    assert " ".join(lines[4].split()) == "robust, L2 0.25, PGD-20 0.956 .932-.972 0.956 .932-.972 431"
    assert (
        " ".join(lines[6].split()) == "sample class accuracy 0.972 .954-.983 0.100 ±0.020 0.972 .954-.983 500"
    )
    assert "judge-cnn" not in "".join(lines[:-1]) and "features of judge-cnn" in lines[-1]


def test_samples_judged_by_several_networks_say_by_which():
    lines = shown([*ending("final"), *ending("final", "efficientnet, 1 MB")], width=120)
    names = [line for line in lines if line.startswith("Frechet distance, ")]
    assert [line.split(",")[1].split()[0] for line in names] == ["judge-cnn", "efficientnet"]
    assert "features of" not in lines[-1]


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (0.87, (0.838, 0.902), "0.870 ±0.032"),
        (0.988, (0.974, 0.994), "0.988 .974-.994"),
        (0.042, None, "0.042"),
        (89.5, (82.12, 96.88), "89.50 ±7.38"),
        (-12.5, None, "-12.50"),
        (326.69, (293.9, 359.5), "326.7 ±32.8"),
        (14886.4, (12762.9, 17009.9), "14886 ±2124"),
    ],
)
def test_cells_have_three_digits_or_more(value, interval, text):
    assert cell(Record("x", value, 10, interval)) == text


@pytest.mark.parametrize("name", ["[bold]x", "[/b]", "data[0]", "[red]", "\\[x"])
def test_names_are_shown_as_they_are(name):
    # [/b] was rich's MarkupError, and [red] was gone
    out = io.StringIO()
    records = [Record("ood_auroc", 0.5, 10, settings={"source": name, "score": "s"}, model=name)]
    Console(file=out, width=200).print(table(records, name))
    lines = out.getvalue().splitlines()
    assert lines[0].strip() == name and out.getvalue().count(name) == 3  # title, model, row


@pytest.mark.parametrize(
    ("metric", "settings"),
    [
        ("robust_accuracy", {}),
        ("robust_accuracy", {"norm": "L2", "eps": "x", "steps": 3}),
        ("ood_auroc", {"source": "x", "score": "s", "attack": 3}),
        ("ood_new", {"source": "x", "score": "s"}),
        ("ece", {"attack": {"norm": "L2"}}),
        ("counterfactual_validity", {"norm": "L2", "eps": [1]}),
        ("energy", {}),
        ("throughput", {"task": "sampling"}),
    ],
)
def test_a_record_that_lacks_settings_has_a_row_all_the_same(metric, settings):
    assert any("0.500" in line for line in shown([Record(metric, 0.5, 10, settings=settings)]))
