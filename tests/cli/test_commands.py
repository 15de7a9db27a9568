"""Every command: help, what it writes, and one sentence with the right exit code for each mistake."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dualat.cli.main import COMMANDS, run


@pytest.fixture
def command(capsys):
    """Run a command line; gives exit code, standard output and error output. No traceback ever."""

    def call(*args: object) -> tuple[int, str, str]:
        try:
            code = run([str(a) for a in args])
        except SystemExit as stop:  # tyro ends --help this way
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return code, captured.out, captured.err

    return call


def sentence(result: tuple[int, str, str], code: int) -> str:
    """The one line that a failed command prints."""
    assert result[0] == code, result
    lines = [line for line in result[2].splitlines() if line.startswith("dualat: ") and "warning" not in line]
    assert len(lines) == 1 and lines[0].endswith("."), result[2]
    return lines[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command, name):
    for args in ([name, "--help"], [name, "digits", "--help"]):
        code, out, _ = command(*args)
        assert code == 0 and len(out.splitlines()) > 2


def test_help_shows_the_recipes_own_values(command):
    out = command("train", "digits", "--help")[1]
    assert "--contrastive.t-max" in out and "(default: wrn-10-1)" in out
    assert "(default: wrn-34-10)" in command("train", "cifar10", "--help")[1]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["trian"], "Did you mean train?"),
        (["train", "digit"], "Did you mean digits?"),
        (["train", "missing.yaml"], "missing.yaml does not exist"),
        (["train", "--seed", "1"], "the recipe comes first"),
        (["train", "digits", "--stage2.optimzer.lr", "1"], "Did you mean --stage2.optimizer.lr?"),
        (["train", "digits", "--stage2.lr", "1"], "Did you mean --stage2.optimizer.lr?"),
        (["train", "digits", "--contrastive.tmax=3"], "Did you mean --contrastive.t-max?"),
        (["train", "digits", "--seed", "x"], "--seed cannot be 'x': give a whole number. `dualat"),
        (["train", "digits", "--stage1.steps", "1.5"], "cannot be '1.5': give a whole number or None."),
        (["sample", "x", "--step-size", "far"], "--step-size cannot be 'far': give a number or None."),
        (["train", "digits", "--evaluation.eps", "a", "1"], "--evaluation.eps cannot be 'a 1'."),
        (["train", "digits", "--stages", "1", "--stage2.steps", "5"], "stage2.steps has no effect"),
        (["train", "digits", "--method", "gan"], "'gan'"),
        (["train", "digits", "--attack.eps", "-1"], "attack.eps is -1"),
        (["train", "digits", "--stages", "2"], "starts from trained weights"),
        (["train", "digits", "--method", "standard-at", "--stages", "2"], "one stage only"),
        (
            ["train", "digits", "--method", "jem", "--stage2.steps", "5"],
            "stage2.steps has no effect on method jem, which has stage1 alone: leave it out.",
        ),
        (
            ["plan", "cifar10-jem", "--contrastive.t-max", "5"],
            "contrastive.t_max has no effect on method jem",
        ),
        (["train", "digits", "--stage1.epochs", "3"], "give one and set the other to None"),
        (["sample"], "MODEL is missing"),
        (["train", "digits", "extra"], "unknown argument extra"),
        (
            ["train", "digits", "--stage1.freeze-batchnorm", "true"],
            "A switch has no value: --NAME turns it on",
        ),
        (["sample", "x", "--cuont", "3"], "--count"),
        (["sample", "x", "--count", "0"], "--count is 0"),
        (["sample", "x", "--count", "99999999"], "--count is 99999999, but must be 1 to 10,000,000."),
        (["sample", "x", "--step-size", "0"], "sampling.step_size above 0, not 40 and 0.0."),
        (
            ["sample", "x", "--step-size", "nan"],
            "dualat: step_size is nan: give a number. `dualat sample --help`",
        ),
        (["sample", "x", "--momentum", "1"], "sampling.momentum is 1.0"),
        (
            ["sample", "x", "--seed", "-1"],
            "dualat: seed is -1, but must be a whole number from 0 to 2^63 - 1.",
        ),
        (["train", "digits", "--seed", str(2**64)], "dualat: seed is 18446744073709551616, but must be"),
        (
            ["train", "digits", "--data.split-seed", str(2**63)],
            "split_seed is 9223372036854775808, but must be",
        ),
        (["evaluate", "fashion-mnist", "--seed", str(2**64)], "dualat: seed is 18446744073709551616, but"),
        (
            ["evaluate", "fashion-mnist", "--samples", str(2**31)],
            "samples is 2147483648, but must be 2,147,483,647 at",
        ),
        (
            ["train", "digits", "--stage1.optimizer.lr", "nan"],
            "dualat: stage1.optimizer: lr is nan: give a number.",
        ),
        (["bench", "--eps", "1e308"], "eps is 1e+308, but must be a number that float32 holds"),
        (
            ["plan", "digits", "--gpus", str(10**20)],
            "gpus is 100000000000000000000, but must be 2,147,483,647",
        ),
        (["counterfactual", "x", "y", "--steps", str(2**31)], "steps is 2147483648, but must be"),
        (["sample", "x", "--unconditional", "--classes", "1"], "contradict"),
        (["counterfactual", "x", "y", "--eps", "0"], "--eps must be above 0"),
        (["counterfactual", "x", "y", "--norm", "Linf", "--eps", "2"], "lets every pixel take any value"),
        (["recipes", "nosuch"], "nosuch"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_exit_code_2(command, args, expected):
    assert expected in sentence(command(*args), 2)


def test_train_refuses_what_cannot_work(command, tmp_path, tiny_run):
    out = ["--output", tmp_path / "run"]
    assert "already holds a run" in sentence(command("train", "digits", "--output", tiny_run), 1)
    assert "does not exist" in sentence(command("train", "digits", *out, "--weights", tmp_path / "none"), 1)
    (tmp_path / "empty").mkdir()
    folder = ["--data.source", tmp_path / "empty", "--data.image-size", "8"]
    assert "empty" in sentence(command("train", "digits", *out, *folder), 1)
    assert "apt-get install dataset-fashion-mnist" in sentence(
        command("train", "fashion-mnist", *out, "--data.root", tmp_path / "empty"), 1
    )
    assert (
        "cifar10" in sentence(command("train", "cifar10", *out, "--data.root", tmp_path / "empty"), 1).lower()
    )
    assert "depth 11" in sentence(command("train", "digits", *out, "--network.name", "wrn-11-1"), 1)
    assert "tpu" in sentence(command("train", "digits", *out, "--device", "tpu"), 1)
    assert not (tmp_path / "run").exists(), "a refused run leaves nothing behind"


def test_overwrite_keeps_the_old_run_where_the_new_one_cannot_start(command, tmp_path, tiny_run):
    shutil.copytree(tiny_run, tmp_path / "run")
    sentence(command("train", "digits", "--output", tmp_path / "run", "--overwrite", "--device", "tpu"), 1)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (
        tiny_run / "model.safetensors"
    ).read_bytes()


def test_dry_run_says_size_time_and_what_is_too_short(command, tmp_path):
    code, out, _ = command(
        "train", "digits", "--dry-run", "--json", "--contrastive.t-max", 2, "--output", tmp_path / "r"
    )
    facts = json.loads(out)
    assert code == 0 and facts["plan"]["parameters"] > 10_000 and facts["plan"]["minutes"] > 0
    assert facts["config"]["stage2"]["method"]["contrastive"]["t_max"] == 2
    assert "shorter than" in facts["plan"]["warning"]
    assert not (tmp_path / "r").exists()
    assert "equal parts" in sentence(command("train", "digits", "--dry-run", "--stage1.accumulate", 5), 1)
    code, out, _ = command("train", "digits", "--dry-run", "--json", "--data.limit", 20, *to(tmp_path))
    assert code == 0 and "there are 20 training images: every step takes all of them." in out


def test_sample_writes_grid_folder_and_npz(command, tmp_path, tiny_run):
    code, out, _ = command(
        "sample", tiny_run, "--count", 6, "--classes", 3, 8, "--output", tmp_path / "a.npz", "--json"
    )
    assert code == 0 and json.loads(out)["labels"] == [3, 8] * 3
    arrays = np.load(tmp_path / "a.npz")
    assert arrays["arr_0"].shape == (6, 8, 8, 1) and arrays["arr_0"].dtype == np.uint8
    assert arrays["arr_1"].tolist() == [3, 8] * 3
    command("sample", tiny_run, "--count", 6, "--classes", 3, 8, "--output", tmp_path / "b.npz")
    assert (np.load(tmp_path / "b.npz")["arr_0"] == arrays["arr_0"]).all(), "the seed fixes the samples"
    command("sample", tiny_run, "--count", 6, "--classes", 3, 8, "--seed", 1, "--output", tmp_path / "b.npz")
    assert (np.load(tmp_path / "b.npz")["arr_0"] != arrays["arr_0"]).any()
    assert (
        command("sample", tiny_run, "--count", 4, "--unconditional", "--output", tmp_path / "folder")[0] == 0
    )
    assert len(list((tmp_path / "folder").glob("*.png"))) == 4
    assert (
        command("sample", tiny_run, "--count", 4, "--initial", "uniform", "--output", tmp_path / "g.png")[0]
        == 0
    )
    assert Image.open(tmp_path / "g.png").size[0] > 40


def test_sample_refuses_what_cannot_work(command, tmp_path, tiny_run):
    out = ["--output", tmp_path / "x.png"]
    assert "no class '11'" in sentence(command("sample", tiny_run, "--classes", 11, *out), 2)
    assert "unknown: give gaussian" in sentence(command("sample", tiny_run, "--initial", "perlin", *out), 1)
    assert "must end in .png or .npz" in sentence(
        command("sample", tiny_run, "--output", tmp_path / "x.gif"), 2
    )
    assert "does not exist" in sentence(command("sample", tmp_path / "none", *out), 1)
    torch.save({"a": 1}, tmp_path / "foreign.pt")
    assert "not a .safetensors file" in sentence(command("sample", tmp_path / "foreign.pt", *out), 1)
    (tmp_path / "damaged.safetensors").write_bytes((tiny_run / "model.safetensors").read_bytes()[:1000])
    assert "damaged" in sentence(command("sample", tmp_path / "damaged.safetensors", *out), 1)
    state = next((tiny_run / "checkpoints").glob("state-*"))
    assert "not written by dualat" in sentence(command("sample", state, *out), 1)
    assert not (tmp_path / "x.png").exists()


def to(folder):
    return "--output", folder / "s.png"


def test_counterfactual_takes_any_image_file(command, tmp_path, tiny_run):
    Image.new("RGBA", (50, 31), (200, 10, 10, 128)).save(tmp_path / "colour.png")
    code, out, _ = command(
        "counterfactual",
        tiny_run,
        tmp_path / "colour.png",
        "--classes",
        1,
        2,
        "--output",
        tmp_path / "s.png",
        "--json",
    )
    rows = json.loads(out)["targets"]
    assert code == 0 and [r["target"] for r in rows] == [1, 2]
    assert all(r["distance"] <= 2.0 + 1e-4 and r["confidence"] > r["confidence_before"] for r in rows)
    assert Image.open(tmp_path / "s.png").width == 3 * (96 + 6) + 6  # the original, two targets
    code, out, _ = command("counterfactual", tiny_run, tmp_path / "colour.png", "--eps", 0.001, *to(tmp_path))
    rows = out.splitlines()[1:-2]
    missed = sum("not reached" in row for row in rows)
    assert code == 0 and missed  # a thousandth of a grey value changes no mind
    assert (
        f"the model sees the target class in {len(rows) - missed} of {len(rows)}, within L2 0.001; a larger"
        in out
    )
    by = ("counterfactual", tiny_run, tmp_path / "colour.png", "--json", *to(tmp_path))
    energy, probability = (
        json.loads(command(*by, "--climb", climb)[1]) for climb in ("energy", "probability")
    )
    assert probability["climb"] == "probability" and energy["targets"] != probability["targets"]
    code, out, _ = command(
        "counterfactual", tiny_run, tmp_path / "colour.png", "--norm", "Linf", "--json", *to(tmp_path)
    )
    assert json.loads(out)["eps"] == pytest.approx(16 / 255)  # each norm has a radius of its own
    assert all(row["distance"] <= 16 / 255 + 1e-6 for row in json.loads(out)["targets"])
    (tmp_path / "no.png").write_bytes(b"no image")
    assert "no.png" in sentence(command("counterfactual", tiny_run, tmp_path / "no.png"), 1)
    assert "does not exist" in sentence(command("counterfactual", tiny_run, tmp_path / "none.png"), 1)


def test_evaluate_uses_again_what_is_there(command, tiny_run):
    before = (tiny_run / "evaluation.json").read_bytes()
    names = ("clean_accuracy", "robust_accuracy", "generation")
    code, out, err = command("evaluate", tiny_run, "--metrics", *names, "--json")
    assert code == 0 and "already in" in err and all(name in err for name in names)
    stored = [r for r in json.loads(before) if r["model"] == "final"]
    assert json.loads(out) == stored and (tiny_run / "evaluation.json").read_bytes() == before


def test_evaluate_measures_with_other_settings(command, tiny_run, tmp_path):
    robust = ("--metrics", "robust_accuracy", "--output", tmp_path / "e.json", "--json")
    code, out, _ = command("evaluate", tiny_run, *robust, "--eps", 0.1, 0.5, "--steps", 3)
    assert code == 0 and [r["settings"]["eps"] for r in json.loads(out)] == [0.1, 0.5, 4.0]
    assert {r["settings"]["steps"] for r in json.loads(out)} == {3}
    code, out, _ = command("evaluate", tiny_run, *robust[:-1], "--weights", "stage1")
    assert code == 0 and "stage1" in out and "robust, L2 0.5, PGD-2" in out
    models = {r["model"] for r in json.loads((tmp_path / "e.json").read_text())}
    assert models == {"final", "stage1"}


def test_evaluate_measures_samples_and_bare_weights(command, tiny_run, tmp_path):
    samples, weights = tmp_path / "s.npz", tmp_path / "w.safetensors"
    command("sample", tiny_run, "--count", 20, "--output", samples)
    code, out, _ = command("evaluate", samples, "--source", "digits", "--metrics", "generation", "--json")
    found = {r["metric"] for r in json.loads(out)}
    assert code == 0 and {"sample_class_accuracy", "frechet_distance"} < found
    assert json.loads((tmp_path / "s.npz.evaluation.json").read_text()) == json.loads(out)
    weights.write_bytes((tiny_run / "model.safetensors").read_bytes())
    code, out, _ = command("evaluate", weights, "--metrics", "clean_accuracy", "--json")
    (record,) = json.loads(out)
    stored = json.loads((tiny_run / "evaluation.json").read_text())
    assert code == 0 and record["model"] == "final"
    assert record["n"] == 431 and record["data"] == stored[0]["data"]  # the run's own held-out images
    few = ("--metrics", "generation", "--samples", 30)
    assert "20 images, but 30 are wanted" in sentence(
        command("evaluate", samples, "--source", "digits", *few), 1
    )


def test_evaluate_refuses_what_cannot_work(command, tiny_run, tmp_path):
    def refused(*args, code: int = 1) -> str:
        return sentence(command("evaluate", *args), code)

    assert "unknown" in refused(tiny_run, "--metrics", "fid", code=2)
    assert "Did you mean clean_accuracy" in refused(tiny_run, "--metrics", "clean_acuracy", code=2)
    assert "give all alone" in refused(tiny_run, "--metrics", "all", "ood", code=2)
    assert "--bins belongs to calibration" in refused(tiny_run, "--metrics", "ood", "--bins", 7, code=2)
    # as in a recipe, where the settings are a group; the next unknown option is no hint
    grouped = ("--evaluation.ood-sources", "uniform", "--evaluation.ood-imgs", 3)
    assert "Did you mean --ood-sources?" in refused(tiny_run, *grouped, code=2)
    assert "Did you mean" not in refused(tiny_run, "--zzz", 1, "--evaluation.ood-imgs", 3, code=2)
    assert "best-robust" in refused(tiny_run, "--weights", "best")
    folder = ("--source", tmp_path, "--root", tmp_path)
    assert "--root is for named sources" in refused(Path(tiny_run) / "samples", *folder, code=2)
    assert "holds runs" in refused(Path(tiny_run).parent, code=2)
    (tmp_path / "foreign.pth").write_bytes(b"x")
    assert "may run code" in refused(tmp_path / "foreign.pth", "--source", "digits")
    (tmp_path / "cut.json").write_text('[{"metric": "a"')
    assert "no file of records" in refused(tiny_run, "--output", tmp_path / "cut.json")
    (tmp_path / "odd.json").write_text('[{"metric": "a", "value": 1, "n": 3, "ci95": 5}]')
    assert "no file of records" in refused(tiny_run, "--output", tmp_path / "odd.json")
    assert "does not exist" in refused(tmp_path / "none")
    assert "--source is missing" in refused(Path(tiny_run) / "samples", code=2)
    assert "root and download do nothing for digits" in refused(tiny_run, "--root", tmp_path)
    assert "target comes first" in refused("--json", code=2)
    assert "leave it out" in refused(tiny_run / "model.safetensors", "--weights", "stage1", code=2)
    assert "ood_steps is 1" in refused(tiny_run, "--ood-steps", 1, code=2)
    out = ("--output", tmp_path / "e.json")
    small = ("--metrics", "ood", "--ood-images", 20, *out, "--ood-sources")
    (tmp_path / "empty").mkdir()
    assert "empty" in refused(tiny_run, *small, tmp_path / "empty")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "cut.png").write_bytes((tiny_run / "samples" / "final.png").read_bytes()[:200])
    assert "cut.png" in refused(tiny_run, *small, tmp_path / "bad")
    generation = ("--metrics", "generation", *out)
    import numpy as np

    np.savez(tmp_path / "f.npz", arr_0=np.zeros((20, 8, 8, 1)))
    assert "uint8" in refused(tmp_path / "f.npz", "--source", "digits", *generation)
    np.savez(tmp_path / "m.npz", mu=np.zeros(7), sigma=np.eye(7))
    assert "7 features" in refused(tiny_run, *generation, "--reference", tmp_path / "m.npz")
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    inception = ("--metrics", "inception", *out, "--inception-weights")
    assert "no weights of torch-fidelity" in refused(tiny_run, *inception, tmp_path / "w.pth")


def test_recipes_lists_and_prints(command):
    names = json.loads(command("recipes", "--json")[1])
    assert {"cifar10", "digits", "fashion-mnist"} <= set(names) and names == sorted(names)
    lines = command("recipes")[1].splitlines()
    assert [line.split()[0] for line in lines] == names
    assert "wrn-34-10" in command("recipes", "cifar10")[1]


def test_one_process_of_torchrun_says_what_is_wrong_with_the_command_line(command, monkeypatch):
    wrong = ("train", "digits", "--contrastive.tmax=3")
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        code, out, err = command(*wrong)
        assert code == 2 and not out and len(err.splitlines()) == lines
