"""`dualat evaluate`: test images by another list, and samples that start from other pictures."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures_on_disk import jpeg

from dualat.cli.evaluate import records_path
from dualat.cli.main import run
from dualat.config import load_recipe, to_yaml
from dualat.data.in_distribution import load_splits
from dualat.evaluation import judge
from dualat.models.model import load, save_model
from dualat.run.data import write_data
from dualat.run.model import new_model

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


@pytest.fixture
def moved_run(model: Path, tmp_path: Path) -> Path:
    """The model's run, in a folder of its own, with its images in another place than it says."""
    config = load_recipe("imagenet-resnet50", {**CHANGES, "output": "run", "data.source": "images"})
    loaded = load(model)
    loaded.description.data = config.data
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(config))
    save_model(loaded, tmp_path / "run" / "model")
    return tmp_path / "run"


CHANGES = {
    "data.test_list": None,
    "data.image_size": SIZE,
    "data.test_resize": SIZE,
    "network.name": "wrn-10-1",
    "stages": "1",
    "weights": None,
}


def test_the_images_of_a_run_may_have_moved(model: Path, moved_run: Path, capsys, tmp_path):
    clean = "--metrics", "clean_accuracy"
    assert run(["evaluate", str(moved_run), *clean]) == 1
    error = capsys.readouterr().err
    assert "if the images of" in error and "have moved, say by --source" in error and error.count("\n") == 1
    there = measured(capsys, moved_run, *clean, "--source", model.parent / "images")["clean_accuracy"]
    assert there["n"] == 10 and there["data"].startswith(
        "images test, "
    )  # by the run's own settings and name
    shutil.copytree(model.parent / "images", tmp_path / "others")
    (tmp_path / "others" / "train" / "n01" / "train00.JPEG").write_bytes(jpeg(99, height=40, width=40))
    assert run(["evaluate", str(moved_run), *clean, "--source", str(tmp_path / "others")]) == 1
    error = capsys.readouterr().err
    assert "holds other training images than" in error and error.count("\n") == 1


def test_a_run_says_where_its_images_were(model: Path, moved_run: Path, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(model.parent)  # from here the path that it gives is right
    config = load_recipe(str(moved_run / "config.yaml"))
    write_data(moved_run, config, config, load_splits(config.data))
    monkeypatch.chdir(tmp_path)
    assert measured(capsys, moved_run, "--metrics", "clean_accuracy")["clean_accuracy"]["n"] == 10


def test_weights_are_named_alike_from_within_their_folder(model: Path, moved_run: Path, capsys, monkeypatch):
    (moved_run / "checkpoints").mkdir()
    shutil.copy(moved_run / "model.safetensors", moved_run / "checkpoints" / "stage1.safetensors")
    monkeypatch.chdir(moved_run / "checkpoints")
    args = ("--metrics", "clean_accuracy", "--source", model.parent / "images")
    assert measured(capsys, Path("stage1.safetensors"), *args)["clean_accuracy"]["model"] == "stage1"


@pytest.mark.parametrize(("place", "name"), [(".", "pictures"), ("..", "pictures"), ("../inside", "inside")])
def test_records_of_the_working_directory_are_named_by_it(tmp_path, monkeypatch, place, name):
    (tmp_path / "pictures" / "inside").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "pictures" / ("" if place == "." else "inside"))
    assert records_path(Path(place)).name == f"{name}.evaluation.json"


def test_a_damaged_file_of_records_is_kept_and_measured_again(model: Path, capsys, tmp_path):
    path = model.with_name("model.safetensors.evaluation.json")
    path.write_text('[{"metric": "clean')
    found = measured(capsys, model, "--metrics", "clean_accuracy")
    assert json.loads(path.read_text())[0]["value"] == found["clean_accuracy"]["value"]
    damaged = path.with_name(f"{path.name}.damaged")
    assert damaged.read_text() == '[{"metric": "clean'
    damaged.unlink()
    (tmp_path / "notes.json").write_text("my notes")  # named by hand: not ours to move
    assert (
        run(["evaluate", str(model), "--metrics", "clean_accuracy", "--output", str(tmp_path / "notes.json")])
        == 1
    )
    assert (
        "no file of records" in capsys.readouterr().err
        and (tmp_path / "notes.json").read_text() == "my notes"
    )
