"""`dualat import-weights`: what it writes loads with the same logits; what it refuses is one sentence."""

import json
from pathlib import Path

import pytest
import torch
from foreign_networks import DeepMind, settled, small_weights

import dualat
from dualat.cli.main import run
from dualat.models.import_weights.settings import STATISTICS
from dualat.models.model import save_model
from dualat.models.wide_resnet import WideResNet


@pytest.fixture
def command(capsys):
    """Run `dualat import-weights`; gives exit code, standard output and error output."""

    def call(*args: object) -> tuple[int, str, str]:
        code = run(["import-weights", *(str(a) for a in args)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return code, captured.out, captured.err

    return call


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A classifier of grey 8x8 pictures in 10 classes, as somebody else might save it."""
    state = settled(WideResNet(10, 1, 10, 1)).state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "their.pt")
    return tmp_path / "their.pt"


def test_what_is_written_loads_with_the_same_logits(tmp_path: Path, command):
    theirs = settled(DeepMind(10, 1, 4, [0.4, 0.5, 0.6], [0.2, 0.2, 0.3]))
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    code, out, err = command(tmp_path / "w.pt", "--output", tmp_path / "model.safetensors")
    assert code == 0 and not err and "DeepMind" in out and "wrn-10-1" in out
    model = dualat.load(tmp_path)
    x = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(model.logits(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert model.class_names == ["0", "1", "2", "3"] and model.shape == (3, 32, 32)
    assert model.description.network.layout == "deepmind" and model.initial is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors", "w.pt"]
    assert json.loads((tmp_path / "model.json").read_text())["network"]["activation"] == "silu"


def test_facts_as_json(tmp_path: Path, command, digits):
    args = (
        digits,
        "--output",
        tmp_path / "m.safetensors",
        "--normalize",
        "half",
        "--image-size",
        8,
        "--json",
    )
    facts = json.loads(command(*args)[1])
    assert facts["network"]["name"] == "wrn-10-1" and facts["part"] == "state_dict"
    assert facts["classes"] == 10 and facts["shape"] == [1, 8, 8] and facts["parameters"] > 70_000
    mean = dualat.load(tmp_path / "m.safetensors").state_dict()["network.mean"]
    assert mean.flatten().tolist() == [0.5]


def test_data_initial_distribution_and_sampling_travel_with_the_model(tmp_path: Path, command, digits):
    output = tmp_path / "m.safetensors"
    args = (
        "--data.source",
        "digits",
        "--initial.kind",
        "gaussian",
        "--initial.rank",
        5,
        "--sampling.steps",
        3,
    )
    assert command(digits, "--output", output, "--normalize", "none", *args)[0] == 0
    model = dualat.load(output)
    assert model.description.data is not None and model.description.data.source == "digits"
    assert model.initial is not None and model.sampling.steps == 3 and model.shape == (1, 8, 8)
    assert dualat.sample(model, [3, 7]).shape == (2, 1, 8, 8)


def test_a_recipe_says_the_same_in_one_word(tmp_path: Path, command, digits):
    output = tmp_path / "m.safetensors"
    assert command(digits, "--recipe", "digits", "--output", output, "--normalize", "none")[0] == 0
    model, recipe = dualat.load(output), dualat.config.load_recipe("digits")  # pyright: ignore
    assert model.description.data == recipe.data and model.initial_settings == recipe.initial
    assert model.sampling == recipe.sampling
    args = (
        "--recipe=digits",
        "--sampling.steps",
        1,
        "--output",
        output,
        "--overwrite",
        "--normalize",
        "none",
    )
    assert command(digits, *args)[0] == 0
    assert dualat.load(output).sampling.steps == 1


def test_a_folder_gives_names_without_its_images_being_read(tmp_path: Path, command):
    torch.save(small_weights(), tmp_path / "w.pt")
    for name in ("cat", "dog"):
        (tmp_path / "pets" / "train" / name).mkdir(parents=True)
        (tmp_path / "pets" / "train" / name / "a.png").write_bytes(b"no picture at all")
    data = ("--data.source", tmp_path / "pets", "--data.image-size", 16, "--data.channels", 1)
    output = tmp_path / "m.safetensors"
    assert command(tmp_path / "w.pt", *data, "--normalize", "none", "--output", output)[0] == 0
    model = dualat.load(output)
    assert model.class_names == ["cat", "dog"] and model.shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["nowhere.pt"], 1, "there is no file nowhere.pt"),
        ([], 2, "FILE is missing"),
        (["FILE", "--output", "m.pt"], 2, "must end in .safetensors"),
        (["FILE", "--output", "FILE.safetensors"], 2, "is there already: give --overwrite"),
        (["FILE", "--recipe", "digit"], 2, "Did you mean digits?"),
        (["FILE", "--recipe"], 2, "recipe"),
        (["FILE", "--normalise", "none"], 2, "--normalize"),
        (["FILE", "--normalize", "mnist"], 2, "'mnist'"),
        (["FILE", "--mean", "0.5"], 2, "mean and std go together"),
        (["FILE", "--mean", "125.3", "--std", "63"], 2, "divide both by 255"),
        (["FILE"], 1, "give --normalize cifar, imagenet, half or none"),
        (["broken.pt", "--recipe", "imagenet-resnet50"], 1, "broken.pt cannot be imported: it is damaged"),
        (
            ["FILE", "--recipe", "cifar10", "--network", "wrn-10-1", "--normalize", "none"],
            1,
            "the weights can be read, but not",
        ),
        (["FILE", "--normalize", "cifar"], 1, "3 means and 3 standard deviations for 1 channels"),
        (
            ["FILE", "--normalize", "none", "--classes", "3"],
            1,
            "last layer has 10 classes, and 3 are asked for",
        ),
        (
            ["FILE", "--normalize", "none", "--data.source", "digits", "--image-size", "9"],
            1,
            "shape (1, 8, 8)",
        ),
        (
            ["FILE", "--normalize", "none", "--network", "wrn-16-1"],
            1,
            "do not fit wrn-16-1: 30 missing (first: 'block1.layer.1.bn1.weight')",
        ),
    ],
    ids=str,
)
def test_what_is_refused_is_one_sentence(tmp_path: Path, monkeypatch, command, digits, args, code, expected):
    monkeypatch.chdir(tmp_path)
    digits.with_name("their.pt.safetensors").touch()
    digits.with_name("broken.pt").write_bytes(digits.read_bytes()[:1000])
    found, out, err = command(*(a.replace("FILE", "their.pt") for a in args))
    lines = [line for line in err.splitlines() if line.startswith("dualat: ")]
    assert found == code and not out and len(lines) == 1, err
    assert expected in lines[0] and lines[0].endswith(".")
    assert not (tmp_path / "model.safetensors").exists()


def test_mismatches_are_listed_on_the_error_stream(command, digits):
    _, _, err = command(digits, "--normalize", "none", "--network", "wrn-16-1")
    listed = [line for line in err.splitlines() if line.startswith("  ")]
    assert len(listed) == 30 and "  missing     block1.layer.1.conv1.weight (16, 16, 3, 3)" in listed


def test_statistics_are_those_of_the_help():
    from dualat.models.import_weights.settings import ImportSettings

    for name in (*STATISTICS, "none"):
        ImportSettings(normalize=name)  # pyright: ignore[reportArgumentType]


def test_weights_with_numbered_classes_are_measured_in_the_data_s_order(
    tmp_path: Path, command, digits, capsys
):
    names = ["zero", *"123456789"]
    assert (
        command(digits, "--image-size", 8, "--normalize", "none", "--output", tmp_path / "m.safetensors")[0]
        == 0
    )
    measure = [
        "evaluate",
        str(tmp_path / "m.safetensors"),
        "--source",
        "digits",
        "--metrics",
        "clean_accuracy",
    ]
    assert run(measure) == 0
    assert "is not known: make sure that it was none of the images measured on" in capsys.readouterr().err
    model = dualat.load(tmp_path / "m.safetensors")
    model.description.class_names = names
    save_model(model, tmp_path / "named")
    assert run([*measure[:1], str(tmp_path / "named.safetensors"), *measure[2:]]) == 1
    assert "class 0 of" in (err := capsys.readouterr().err) and "is zero, but that of digits is 0" in err
