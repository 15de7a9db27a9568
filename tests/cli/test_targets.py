"""`dualat evaluate`: test images by another list, and samples that start from other pictures."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures_on_disk import jpeg

from dualat.cli.main import run
from dualat.config import load_recipe
from dualat.data.in_distribution import load_splits
from dualat.evaluation import judge
from dualat.models.model import save_model
from dualat.run.train import new_model

SIZE = 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fresh weights for a folder of two classes with 4 of 10 validation images listed; starts are 3 white pictures."""
    root = tmp_path_factory.mktemp("targets")
    listed = []
    for k, name in enumerate(("n01", "n02")):
        for split, count in (("train", 6), ("val", 5)):
            (root / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                (root / "images" / split / name / f"{split}{k}{i}.JPEG").write_bytes(
                    jpeg(40 * k + i + (20 if split == "val" else 0), height=40, width=40)
                )
                listed += [f"{name}/{split}{k}{i}.JPEG"] if split == "val" and i < 2 else []
    (root / "list.txt").write_text("\n".join(listed) + "\n")
    np.save(root / "white.npy", np.full((3, SIZE, SIZE, 3), 255, np.uint8))
    np.save(root / "black.npy", np.zeros((3, SIZE, SIZE, 3), np.uint8))
    changes = {
        "data.source": str(root / "images"),
        "data.test_list": str(root / "list.txt"),
        "data.image_size": SIZE,
        "data.test_resize": SIZE,
        "network.name": "wrn-10-1",
        "initial.kind": "images",
        "initial.source": str(root / "white.npy"),
        "stages": "1",
        "weights": None,
    }
    config = load_recipe("imagenet-resnet50", changes)
    save_model(new_model(config, load_splits(config.data).train, torch.device("cpu")), root / "model")
    return root / "model.safetensors"


def measured(capsys: pytest.CaptureFixture[str], model: Path, *args: object) -> dict[str, dict]:
    """Records by metric."""
    code = run(["evaluate", str(model), *map(str, args), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return {r["metric"]: r for r in json.loads(captured.out)}


def test_another_list_of_test_images_or_none(model: Path, capsys, tmp_path):
    clean = "--metrics", "clean_accuracy"
    assert measured(capsys, model, *clean)["clean_accuracy"]["n"] == 4
    assert measured(capsys, model, *clean, "--test-list", "all")["clean_accuracy"]["n"] == 10
    (tmp_path / "one.txt").write_text("n02/val13.JPEG\n")
    assert measured(capsys, model, *clean, "--test-list", tmp_path / "one.txt")["clean_accuracy"]["n"] == 1
    for name, count in (("", 4), (".all", 10), (".one", 1)):  # each has its own file
        records = json.loads(model.with_name(f"model.safetensors.evaluation{name}.json").read_text())
        assert [r["n"] for r in records] == [count]


def test_samples_start_from_other_pictures(model: Path, capsys, monkeypatch, tmp_path):
    seen: list[float] = []
    short = partial(judge.fit, steps=5)  # what the judge thinks of the samples is not what is tested here
    monkeypatch.setattr(judge, "fit", lambda network, train, steps: short(network, train))
    monkeypatch.setenv("DUALAT_CACHE", str(tmp_path))  # its judges are kept apart from well trained ones
    monkeypatch.setattr(
        "dualat.evaluation.samples.descend", lambda m, x, *rest: seen.append(float(x.mean())) or x
    )
    args = ("--metrics", "generation", "--samples", 4)
    first = measured(capsys, model, *args)
    other = measured(capsys, model, *args, "--initial-images", model.parent / "black.npy")
    assert seen == [1.0, 0.0]
    assert first["frechet_distance"]["key"] != other["frechet_distance"]["key"]


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["--initial-include", "a.txt"], 2, "lists of --initial-images: give it too"),
        (["--initial-images", "nowhere.npy"], 1, "nowhere.npy"),
        (["--source", "digits", "--test-list", "all"], 2, "digits has its own test images"),
        (["--test-list", "nowhere.txt"], 1, "nowhere.txt"),
    ],
)
def test_what_cannot_be_is_one_sentence(model: Path, capsys, args, code, expected):
    assert run(["evaluate", str(model), "--metrics", "clean_accuracy", *args]) == code
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
