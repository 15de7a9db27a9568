"""`dualat plan`: figures by hand, contradictions as one sentence, and what fits where."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dualat.cli.main import run
from dualat.config import RunConfig, load_recipe
from dualat.methods.registry import METHODS
from dualat.planning.plan import plan as plan_of
from dualat.planning.settings import PlanSettings
from dualat.recipes.reading import recipe_names

MEASURED = Path(__file__).parents[2] / "benchmarks" / "results" / "cpu-2-cores-avx512-bf16.json"
SMALL = {"network.name": "wrn-10-1"}


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]):
    """Run `dualat plan` with arguments; gives exit code, standard output and error output. No traceback ever."""

    def call(*args: object) -> tuple[int, str, str]:
        code = run(["plan", *map(str, args)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return code, captured.out, captured.err

    return call


def plan(changes: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return plan_of(load_recipe("cifar10", SMALL | (changes or {})), PlanSettings(**settings))


def test_parameters_of_published_networks():
    found = plan({"network.name": "wrn-28-10"}, mfu=0.5)["network"]
    assert found["parameters"] == 36_479_194
    assert plan({"network.name": "wrn-34-10"}, mfu=0.5)["network"]["parameters"] == 46_160_474


def test_passes_of_dat_and_their_time():
    facts = plan({"contrastive.t_max": 50, "attack.steps": 10}, gpus=8, gpu="h100", mfu=0.4)
    first, second = facts["stages"]
    assert first["guess"]["passes"]["loop"] == first["most"]["passes"]["loop"] == 10
    assert second["guess"]["passes"]["loop"] == 25 + 10 and second["most"]["passes"]["loop"] == 50 + 10
    assert second["guess"]["passes"]["learn"] == 3
    assert (second["batch_size"], second["images_per_gpu"]) == (128, 16)
    # 50,000 images, 2 % held out, in batches of 128
    assert facts["images"] == {"train": 49_000, "origin": "known"}
    assert second["steps_per_epoch"] == 382 and second["steps"] == 100 * 382
    for stage in (first, second):
        for name in ("guess", "most"):
            step = stage[name]
            assert step["flops_per_step"] == 128 * step["flops_per_image"]
            assert step["flops_per_epoch"] == 382 * step["flops_per_step"]
            hours = stage["steps"] * step["flops_per_step"] / (8 * 989.4e12 * 0.4) / 3600
            assert step["hours"] == pytest.approx(hours) and step["mfu"] == pytest.approx(0.4)
    assert facts["total"]["guess"]["hours"] == pytest.approx(
        first["guess"]["hours"] + second["guess"]["hours"]
    )


def test_cost_is_of_all_gpus():
    total = plan(gpus=4, mfu=0.4, price_per_hour=2.5)["total"]["most"]
    assert total["gpu_hours"] == 4 * total["hours"]
    assert total["cost"] == pytest.approx(2.5 * total["gpu_hours"])
    assert plan(mfu=0.4)["total"]["most"]["cost"] is None


def test_a_given_throughput_is_that_of_the_last_stage():
    first, second = plan(gpus=2, images_per_second=300.0)["stages"]
    assert second["guess"]["images_per_second"] == pytest.approx(300)
    more = second["guess"]["flops_per_image"] / first["guess"]["flops_per_image"]
    assert first["guess"]["images_per_second"] == pytest.approx(300 * more)


def test_a_measured_throughput_is_the_benchmarks():
    rows = json.loads(MEASURED.read_text())["tasks"]["train_step"]
    same = {
        "network.name": "wrn-28-2",
        "stage2.batch_size": 64,
        "contrastive.t_max": 20,
        "attack.steps": 10,
    }  # T = 10
    for compile_, row in (("on", "dualat bf16 compiled"), ("off", "dualat bf16 eager")):
        facts = plan({**same, "compile": compile_}, measured=str(MEASURED))
        assert facts["hardware"]["gpu"] == "cpu" and row in facts["hardware"]["speed"]
        found = facts["stages"][1]["guess"]
        assert found["images_per_second"] == pytest.approx(rows[row]["images_per_second"], rel=0.01)
        assert found["mfu"] == pytest.approx(rows[row]["mfu"], rel=0.02)


def test_estimated_speed_is_below_the_peak_and_better_with_more_images_at_a_time():
    few, many = (plan({"stage2.batch_size": b})["stages"][1]["guess"] for b in (16, 512))
    assert 0 < few["mfu"] < many["mfu"] < 0.45
    apart = plan({"stage2.batch_size": 512, "stage2.accumulate": 32})["stages"][1]["guess"]
    assert apart["images_per_second"] == pytest.approx(few["images_per_second"], rel=0.01)
    assert apart["flops_per_image"] == few["flops_per_image"]


def test_what_does_not_fit_fits_with_what_is_advised():
    large = {"network.name": "wrn-34-10", "stage2.batch_size": 2048}
    facts = plan(large, gpu="rtx3090", mfu=0.4)
    assert [stage["fits"] for stage in facts["stages"]] == [True, False]
    (text,) = [line for line in facts["warnings"] if "does not fit" in line]
    assert "--network.checkpoint-activations" in text
    parts = int(text.partition("--stage2.accumulate ")[2].split()[0])
    assert parts > 1
    for number, fits in ((parts, True), (parts // 2, False)):
        stage = plan({**large, "stage2.accumulate": number}, gpu="rtx3090", mfu=0.4)["stages"][1]
        assert stage["fits"] is fits
        assert stage["memory"]["total"] == pytest.approx(
            sum(v for k, v in stage["memory"].items() if k not in ("total", "tensors"))
        )


def test_memory_of_several_gpus_and_of_optimisers():
    one, four = (plan(gpus=n, mfu=0.4)["stages"][1]["memory"] for n in (1, 4))
    assert four["activations"] < 0.3 * one["activations"] and four["weights"] == one["weights"]
    assert four["context"] > one["context"]
    adam = load_recipe("cifar10", SMALL)
    adam.stages[2].optimizer = replace(adam.stages[2].optimizer, name="adamw")
    held = plan_of(adam, PlanSettings(mfu=0.4))["stages"][1]["memory"]
    assert held["optimizer"] == 2 * one["optimizer"] == 2 * one["gradients"]
    eager = plan({"compile": "off"}, mfu=0.4)["stages"][1]["memory"]
    assert eager["loop"] == 0 < one["loop"]


def test_disk_holds_three_states_and_four_models():
    facts = plan({"initial.kind": "uniform"}, mfu=0.4)
    held = facts["stages"][1]["memory"]
    assert facts["disk"]["checkpoints"] == 3 * (2 * held["weights"] + held["optimizer"])
    assert facts["disk"]["models"] == 4 * held["weights"]
    gaussian = plan({"initial.kind": "gaussian", "initial.rank": 32}, mfu=0.4)["disk"]["models"]
    assert gaussian - facts["disk"]["models"] == 4 * 3072 * 33 * 4
    jem = plan({"method": "jem", "initial.kind": "uniform", "chain.buffer": 1000}, mfu=0.4)
    assert jem["disk"]["checkpoints"] - facts["disk"]["checkpoints"] == 3 * 1000 * 3072 * 4


@pytest.mark.parametrize("method", [name for name in METHODS if name != "dat"])
def test_every_method_can_be_planned(method: str):
    facts = plan({"method": method})
    assert [stage["method"] for stage in facts["stages"]] == [method]
    assert facts["total"]["guess"]["hours"] > 0


@pytest.mark.parametrize(
    "recipe", [pytest.param(n, marks=() if n == "digits" else pytest.mark.slow) for n in recipe_names()]
)
def test_every_recipe_can_be_planned(recipe: str):
    config = load_recipe(recipe)
    facts = plan_of(config, PlanSettings(train_images=1_281_167 if config.data.is_folder else None))
    assert facts["total"]["most"]["hours"] >= facts["total"]["guess"]["hours"] > 0
    assert all(0 < stage["guess"]["mfu"] < 1 for stage in facts["stages"])


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["cifar11"], 2, "Did you mean cifar10?"),
        (["none.yaml"], 2, "none.yaml does not exist"),
        (["--gpus", "8"], 2, "the recipe comes first"),
        (["cifar10", "--gpu", "h10"], 2, "Did you mean h100?"),
        (["cifar10", "--gpus", "0"], 2, "gpus is 0"),
        (["cifar10", "--gpsu", "8"], 2, "unknown option --gpsu"),
        (["cifar10", "--resume"], 2, "unknown option --resume"),
        (["cifar10", "--mfu", "1.5"], 2, "mfu is 1.5"),
        (["cifar10", "--price-per-hour", "-1"], 2, "price_per_hour is -1"),
        (
            ["cifar10", "--mfu", "0.4", "--images-per-second", "9"],
            2,
            "--mfu and --images-per-second contradict",
        ),
        (["cifar10", "--mfu", "0.4", "--measured", "x.json"], 2, "--mfu and --measured contradict"),
        (["cifar10", "--gpus", "7"], 1, "which 7 GPUs cannot divide"),
        (
            ["cifar10", "--gpus", "8", "--stage2.accumulate", "3"],
            1,
            "stage2 has batches of 128 images, which 8",
        ),
        (["cifar10", "--method", "jem", "--gpus", "2"], 1, "plan it with --gpus 1"),
        (["cifar10", "--gpu", "v100", "--precision", "bf16"], 1, "give --precision fp32"),
        (["cifar10", "--train-images", "9"], 1, "is known for cifar10"),
        (["cifar10", "--measured", "none.json"], 1, "none.json does not exist"),
        (["cifar10", "--measured", str(MEASURED)], 1, "is of wrn-28-2 with images of 3x32x32"),
        (["cifar10", "--measured", __file__], 1, "is no result of `dualat bench`"),
        (
            ["cifar10", "--network.name", "wrn-28-2", "--measured", str(MEASURED), "--gpu", "h100"],
            1,
            "leave --gpu out",
        ),
        (["cifar10", "--network.name", "wrn-29-2"], 1, "a wide ResNet has depth 6n + 4"),
        (["cifar10", "--data.source", "nowhere", "--data.image-size", "32"], 1, "give --train-images"),
    ],
)
def test_mistakes_are_one_sentence(command, args: list[str], code: int, expected: str):
    found = command(*args)
    assert found[0] == code, found
    (line,) = [line for line in found[2].splitlines() if line]
    assert line.startswith("dualat: ") and line.endswith(".") and expected in line


def test_a_plan_for_a_person_and_for_a_program(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    args = ("cifar10", "--network.name", "wrn-10-1", "--gpus", 4, "--gpu", "a100", "--price-per-hour", 2)
    code, out, err = command(*args)
    assert code == 0 and not err
    for text in (
        "4 x A100",
        "stage 2: dat",
        "35 (60)",
        "fits",
        "not there",
        "unpack its Python version",
        "cost",
    ):
        assert text in out, text
    code, out, _ = command(*args, "--json")
    facts = json.loads(out)
    assert code == 0 and facts["recipe"] == "cifar10" and len(facts["stages"]) == 2
    assert facts["hardware"]["precision"] == "bf16" and not list(tmp_path.iterdir())


def test_a_plan_on_a_cpu_checks_no_memory(command):
    code, out, _ = command("digits", "--gpu", "cpu")
    assert code == 0 and "CUDA" not in out and "fits" not in out and "--dry-run" in out


def test_weights_and_folders_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config = load_recipe(
        "cifar10",
        {
            "stages": "2",
            "weights": "robust.safetensors",
            "network": {"name": "timm/resnet18"},
            "data": {"source": "imagenet", "image_size": 64, "val_as": "test", "validation_fraction": 0.01},
            "initial": {"kind": "images", "source": "tiny_images.bin", "exclude": ["zero-based:cifar.txt"]},
        },
    )
    facts = plan_of(config, PlanSettings(mfu=0.3, train_images=1_281_167, gpus=8))
    assert facts["network"]["classes"] == 1000 and facts["network"]["parameters"] == 11_689_512
    assert facts["images"] == {"train": 1_281_167 - 13_000, "origin": "given"}
    assert [stage["stage"] for stage in facts["stages"]] == [2]
    assert {n["where"]: n["there"] for n in facts["needs"]} == dict.fromkeys(
        ("robust.safetensors", "imagenet", "tiny_images.bin", "cifar.txt"), False
    )
    assert len(facts["warnings"]) == 4 and "import-weights" in facts["warnings"][0]
    steps = plan_of(in_steps(config), PlanSettings(mfu=0.3))["stages"][0]
    assert steps["epochs"] is None and steps["guess"]["flops_per_epoch"] is None and steps["steps"] == 20


def in_steps(config: RunConfig) -> RunConfig:
    return replace(config, stages={2: replace(config.stages[2], epochs=None, steps=20)})
