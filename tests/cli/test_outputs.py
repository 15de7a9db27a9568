"""What commands write: never over somebody's pictures, never into a run, never bytes of another kind than the name says; and
a wrong place is told before any work."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dualat
from dualat.cli.main import run
from dualat.data.grids import save_picture
from dualat.evaluation.samples import read_samples
from dualat.models.model import save_model

FEW = ("--count", "4", "--steps", "1")


@pytest.fixture
def refused(capsys, monkeypatch):
    """The one sentence of a command that is refused; no model is loaded and no image is drawn for it."""

    def call(*args: object, code: int = 2) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.Module, "load_state_dict", None)
            assert run([str(a) for a in args]) == code
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.endswith(".\n") and error.startswith("dualat: ")
        return error

    return call


def sample(model: object, output: Path, *args: str) -> int:
    return run(["sample", str(model), "--output", str(output), *FEW, *args])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_older_samples_stay_unless_they_are_replaced(refused, tmp_path, tiny_run, capsys):
    """The next evaluation scored both."""
    folder = tmp_path / "d"
    assert sample(tiny_run, folder) == 0 and len(names(folder)) == 4
    assert sample(tiny_run, folder / "deep", "--count", "2") == 0
    again = ("sample", tiny_run, "--output", folder, *FEW)
    assert "holds pictures" in refused(*again, "--overwrite"), "those of deep/ would be scored too"
    for path in (folder / "deep").iterdir():
        path.unlink()
    (folder / "notes.txt").write_text("mine")
    capsys.readouterr()
    text = refused(*again)
    assert "4 samples" in text and "--overwrite" in text
    assert sample(tiny_run, folder, "--overwrite", "--classes", "3", "--count", "2") == 0
    assert names(folder) == ["00000-class3.png", "00001-class3.png", "deep", "notes.txt"]


@pytest.mark.parametrize(
    "name", ["photo.png", "00000.png", "00000-class3.jpg", "x00000-class3.png", "0-class3.png"]
)
def test_somebodys_pictures_are_never_replaced(refused, tmp_path, name):
    Image.new("L", (8, 8)).save(tmp_path / name)
    text = refused("sample", "fashion-mnist", "--output", tmp_path, "--overwrite")
    assert name in text and names(tmp_path) == [name]


def test_places_that_are_no_folder_for_samples(refused, tmp_path, tiny_run, monkeypatch):
    work = tmp_path / "a" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    (work / "file").write_text("x")
    (work / "dir.png").mkdir()
    for output, expected in (
        ("", "--output is empty"),
        (" ", "--output is empty"),
        (".", "the folder that you are in"),
        ("..", "the folder that you are in"),
        (tiny_run, "a run"),
        (tiny_run / "checkpoints", "a run"),
        (tiny_run / "tensorboard", "a run"),
        ("file", "file is a file"),
        ("file/x", "file is a file"),
        ("file/x.png", "file is a file"),
        ("dir.png", "that is a folder"),
        ("x.gif", "must end in .png or .npz"),
    ):
        assert expected in refused("sample", "fashion-mnist", "--output", output, "--overwrite"), output
    assert names(work) == ["dir.png", "file"]


def test_images_without_a_class_asked_for_are_written_without_labels(tmp_path, tiny_run, capsys):
    """What the model sees in them would be scored as what was asked for."""
    for model, args in ((tiny_run, ["--unconditional"]), (marginal(tiny_run, tmp_path), [])):
        for output in (tmp_path / f"d{len(args)}", tmp_path / f"{len(args)}.npz"):
            capsys.readouterr()
            assert sample(model, output, *args, "--json") == 0
            told = json.loads(capsys.readouterr().out)
            assert told["labels"] is None and len(told["seen"]) == 4
            assert read_samples(output).of_classes(tuple("0123456789"), "digits").labels is None
        assert names(tmp_path / f"d{len(args)}")[0] == "00000-unconditional.png"
        assert sample(model, tmp_path / f"d{len(args)}", *args, "--overwrite") == 0


def marginal(tiny_run: Path, folder: Path) -> Path:
    """The same weights as a model of the images alone."""
    model = dualat.load(tiny_run)
    model.description.sampling.energy = "marginal"
    save_model(model, folder / "marginal")
    return folder / "marginal.safetensors"


def test_an_option_for_several_values_without_any_is_bad_usage(refused, tmp_path):
    picture = tmp_path / "x.png"
    Image.new("L", (8, 8)).save(picture)
    for args in (
        ("sample", "fashion-mnist", "--classes"),
        ("sample", "fashion-mnist", "--classes", "--count", 3),
        ("counterfactual", "fashion-mnist", picture, "--classes"),
        ("evaluate", "fashion-mnist", "--metrics"),
        ("evaluate", "fashion-mnist", "--metrics", "ood", "--ood-sources"),
    ):
        name = next(a for a in reversed(args) if str(a).startswith("--") and a != "--count")
        assert f"{name} is given without a value" in refused(*args)


def test_a_strip_is_png_and_says_so_before_any_work(refused, tmp_path):
    picture = tmp_path / "x.png"
    Image.new("L", (28, 28)).save(picture)
    before = picture.read_bytes()
    for output, expected in (
        ("s.gif", "must end in .png"),
        ("s", "must end in .png"),
        ("", "--output is empty"),
        (tmp_path, "is a folder"),
        (picture, "is what the command reads"),
        (tmp_path / "." / "x.png", "is what the command reads"),
    ):
        assert expected in refused("counterfactual", "fashion-mnist", picture, "--output", output)
    assert picture.read_bytes() == before and names(tmp_path) == ["x.png"]
    with pytest.raises(ValueError, match=r"s.gif must end in .png"):
        save_picture(Image.new("L", (8, 8)), tmp_path / "s.gif")
    save_picture(Image.new("L", (8, 8)), tmp_path / "S.PNG")


def test_other_commands_write_where_a_file_can_be(refused, tmp_path, tiny_run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "list.txt").write_text("1\n")
    np.savez(tmp_path / "s.npz", arr_0=np.full((9, 8, 8, 1), 7, np.uint8))
    exclusions = ("data", "prepare", "exclusions", "--one-based", "list.txt", "--output")
    for args, expected in (
        (("report", tiny_run, "--output", "x.gif"), "must end in .html or .htm"),
        (("report", tiny_run, "--output", ""), "--output is empty"),
        (("report", tiny_run, "--output", tiny_run), "is a folder"),
        (("import-weights", "list.txt", "--output", ""), "--output is empty"),
        (("import-weights", "list.txt", "--output", "file/x.safetensors"), "file is a file"),
        ((*exclusions, ""), "--output is empty"),
        ((*exclusions, tmp_path), "is a folder"),
        ((*exclusions, "list.txt"), "what the command reads"),
        ((*exclusions, "file/x"), "file is a file"),
        (("data", "prepare", "images", tmp_path, "--output", "."), "is a folder"),
        (("compare", tiny_run, "--output", ""), "--output is empty"),
        (("compare", tiny_run, "--output", "x.gif"), "must end in .md, .csv, .tex, .json or .txt"),
        (
            ("compare", tiny_run / "evaluation.json", "--output", tiny_run / "evaluation.json"),
            "what the command reads",
        ),
        (("evaluate", "s.npz", "--source", "digits", "--output", ""), "--output is empty"),
        (("evaluate", "s.npz", "--source", "digits", "--output", tmp_path), "is a folder"),
        (("evaluate", "s.npz", "--source", "digits", "--output", "s.npz"), "what the command reads"),
        (("bench", "--output", tmp_path), "is a folder"),
    ):
        assert expected in refused(*args), args
    assert names(tmp_path) == ["file", "list.txt", "s.npz"] and (tmp_path / "list.txt").read_text() == "1\n"


def test_weights_are_not_written_over_what_they_are_read_from(refused, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"weights")
    args = (
        "import-weights",
        tmp_path / "x.safetensors",
        "--output",
        tmp_path / "x.safetensors",
        "--overwrite",
    )
    assert "is what the command reads" in refused(*args)
