"""Every recipe: loads, is planned with tiny data in the layout that it names, and trains its real network for two steps."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_files import commands, value_at, write_data
from torch import nn

import dualat
from dualat.cli.arguments import parse
from dualat.cli.import_weights import ImportArguments
from dualat.cli.main import run
from dualat.config import RunConfig, is_used, load_recipe, to_yaml
from dualat.data.in_distribution import load_splits
from dualat.models.import_weights.settings import ImportSettings
from dualat.models.model import save_model
from dualat.models.registry import build_network
from dualat.recipes.reading import recipe_names
from dualat.run.model import new_model

RECIPES = recipe_names()
WITH_WEIGHTS = [name for name in RECIPES if load_recipe(name).weights]
WITH_STARTS = [name for name in RECIPES if any("--initial.kind" in c for c in commands(name))]
ON_DISK = {"fashion-mnist": {"data.root": "data/FashionMNIST/raw"}}
SMALL = {
    "timm/resnet50": "timm/test_resnet",
    "wide_resnet50_4": "timm/test_resnet",
    "vit_small_cvst": "timm/test_vit",
}
"""Networks of the same kind that take no time; others become a WRN-10-1 or timm's smallest ConvNeXt."""


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ in it."""
    root = tmp_path_factory.mktemp("recipes")
    write_data(root)
    return root / "data"


@pytest.fixture
def place(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    """The working directory of a user who has put everything where recipes name it. Emptied in the end: large files."""
    (tmp_path / "data").symlink_to(data, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def little(config: RunConfig, size: int) -> dict[str, Any]:
    """Overrides that leave the network, the data's place and every kind of step as they are, and make all else small."""
    changes: dict[str, Any] = {
        "device": "cpu",
        "precision": "fp32",
        "contrastive.t_max": 2,
        "attack.steps": 1,
        "attack.step_size": value_at(config, "attack.eps") if is_used(config, "attack.eps") else None,
        "chain.steps": 1,
        "chain.inner_steps": 1,
        "chain.buffer": 4,
        "out.steps": 1,
        "initial.rank": 2 if config.initial.kind in ("gaussian", "class-gaussian") else None,
    }
    if config.data.is_folder:
        changes |= {"data.image_size": size, "data.test_resize": size + 9}
    for stage in ("stage1", "stage2"):
        changes |= {f"{stage}.batch_size": 2, f"{stage}.accumulate": 1}
    return {k: v for k, v in changes.items() if v is not None and is_used(config, k)}


def options(changes: dict[str, Any]) -> list[str]:
    """Overrides as a command line has them."""
    return [part for key, value in changes.items() for part in (f"--{key.replace('_', '-')}", str(value))]


def dry(name: str) -> dict[str, Any]:
    """Overrides under which a dry run takes a second: the network too is a small one."""
    config = load_recipe(name)
    network = config.network.name
    small = SMALL.get(network, "timm/test_convnext" if "convnext" in network else "wrn-10-1")
    return ON_DISK.get(name, {}) | little(config, 32) | {"network.name": small}


def make_weights(name: str, changes: dict[str, Any]) -> None:
    """Weights of ours where the recipe looks for them."""
    config = load_recipe(name, changes | {"stages": "both", "weights": None})
    where = Path(load_recipe(name).weights or "")
    where.parent.mkdir(parents=True)
    save_model(new_model(config, load_splits(config.data).train, torch.device("cpu")), where.with_suffix(""))


def run_dry(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    """`dualat train ... --dry-run --json`, which must succeed."""
    code = run(["train", *args, "--dry-run", "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


@pytest.mark.parametrize("name", RECIPES)
def test_loads_and_is_complete(name: str):
    config = load_recipe(name)
    for stage in config.stages.values():
        assert (stage.epochs is None) != (stage.steps is None)
        assert stage.optimizer.clip_norm is None
    assert config.method != "dat" or config.stages[2].freeze_batchnorm
    assert (min(config.stages) == 2) == (config.weights is not None)
    assert not config.data.download and config.output is None and config.device == "auto"


@pytest.mark.parametrize("name", RECIPES)
def test_is_planned_without_a_network_connection(name: str, place: Path, capsys, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", refuse)
    changes = dry(name)
    if name in WITH_WEIGHTS:
        make_weights(name, changes)
    found = run_dry(capsys, name, *options(changes))
    config, plan = load_recipe(name), found["plan"]
    assert [n for n in (1, 2) if f"stage{n}" in plan] == list(config.stages)
    for n, stage in config.stages.items():
        steps = stage.length(plan["images"]["train"] // 2)
        assert plan[f"stage{n}"]["steps"] == steps and plan[f"stage{n}"]["seconds_per_step"] > 0
        assert plan[f"stage{n}"]["method"] == stage.method.name
    assert found["config"]["output"] == f"runs/{name}" and not (place / "runs" / name).exists()


def refuse(*args: object) -> None:
    raise OSError("no network in this test")


@pytest.mark.parametrize("name", WITH_STARTS)
def test_the_published_start_and_its_substitute_work_as_the_comment_has_them(name: str, place: Path, capsys):
    changes = dry(name)
    del changes["initial.rank"]
    if name in WITH_WEIGHTS:
        make_weights(name, changes)
    given = [c for c in commands(name) if c[0] == "train"]
    assert len(given) == (1 if name in WITH_WEIGHTS else 2)
    for _, recipe, *args in given:
        found = run_dry(capsys, recipe, *args, *options(changes))
        initial = found["config"]["initial"]
        assert recipe == name and initial["kind"] == "images" and Path(initial["source"]).exists()


# Real networks


class Foreign:
    """Weights as their authors publish them, for the file that a recipe's comment names."""

    @staticmethod
    def normaliser(prefix: str) -> dict[str, torch.Tensor]:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        return {f"{prefix}mean": mean.view(3, 1, 1), f"{prefix}std": std.view(3, 1, 1)}

    @classmethod
    def write(cls, path: Path, config: RunConfig, size: int) -> nn.Module:
        """A file with fresh weights of the recipe's network, for images of `size` pixels; the network."""
        network = build_network(config.network, (3, size, size), 2)
        state = network.state_dict()
        if path.suffix == ".ckpt":  # MadryLab's robustness
            state = {f"module.model.{k}": v for k, v in state.items()}
            torch.save({"model": state | cls.normaliser("module.normalizer.new_"), "epoch": 90}, path)
        elif config.network.normalize == "data":
            state = {f"base_model.model.{k}": v for k, v in state.items()}
            torch.save(state | cls.normaliser("base_model.normalize."), path)
        else:
            torch.save({f"base_model.{k}": v for k, v in state.items()}, path)
        return network


def import_as_told(name: str, size: int) -> nn.Module:
    """Run the comment's `dualat import-weights` on a file made here; the network whose weights are in it."""
    (command,) = [c for c in commands(name) if c[0] == "import-weights"]
    config = load_recipe(name)
    _, parsed = parse(command[1:], "dualat import-weights", ImportSettings(), ImportArguments())
    assert parsed.recipe == name and parsed.output == config.weights
    network = Foreign.write(Path(parsed.file), config, size)
    Path(parsed.output).parent.mkdir(parents=True)
    sizes = {"data.image_size": size, "data.test_resize": size + 9, "initial.rank": 2}
    assert run([*command, *options(sizes)]) == 0
    Path(parsed.file).unlink()
    return network


def shortest(config: RunConfig) -> dict[str, Any]:
    """Overrides of a real run of two steps, with next to no evaluation."""
    changes: dict[str, Any] = {
        "compile": "off",
        "contrastive.window": 2,
        "contrastive.auc_threshold": 0.0,  # T grows with each step: 0, then 1
        "sampling.steps": 0,
        "stability.limit": 1e8,  # stage 2 of a network that has learned nothing may begin above 1,000
        "tracking.trackers": [],
        "tracking.log_every": 2,
        "tracking.checkpoint_every": 1000,
        "evaluation.eps": [config.evaluation.validation_eps],
        "evaluation.steps": 1,
        "evaluation.robust_images": 1,
        "evaluation.samples": 8,
        "evaluation.validation_images": 2,
        "evaluation.validation_samples": 4,
    }
    for stage in ("stage1", "stage2"):
        changes |= {f"{stage}.epochs": None, f"{stage}.steps": 2, f"{stage}.evaluate_every": 2}
    if (
        2 in config.stages
    ):  # after two steps of stage 1: at the recipe's rate logits overflow, which is refused
        changes["stage2.optimizer.lr"] = config.stages[2].optimizer.lr / 1000
    return {key: value for key, value in changes.items() if is_used(config, key)}


def runs() -> dict[str, tuple[str, dict[str, Any]]]:
    """Recipe and overrides of each run, by the names of all recipes that it is a run of: recipes that differ in nothing
    but numbers that are made small here (T_max, AUC_th ...) are one run."""
    found: dict[str, list[str]] = {}
    for name in RECIPES:
        config = load_recipe(name)
        changes = ON_DISK.get(name, {}) | little(config, 64) | shortest(config)
        found.setdefault(to_yaml(load_recipe(name, changes)), []).append(name)
    together = {}
    for names in found.values():
        config = load_recipe(names[0])
        changes = ON_DISK.get(names[0], {}) | little(config, 64) | shortest(config)
        together[" and ".join(names)] = names[0], changes
    return together


RUNS = runs()


def test_every_recipe_has_a_run():
    assert sorted(name for names in RUNS for name in names.split(" and ")) == RECIPES


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the path of contrastive samples")  # one step long here
@pytest.mark.parametrize("names", RUNS)
def test_two_steps_of_the_real_network(names: str, place: Path):
    name, changes = RUNS[names]
    config = load_recipe(name)
    theirs = import_as_told(name, 64) if name in WITH_WEIGHTS else None
    folder = dualat.train(name, changes)

    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    assert [(line["stage"], line["step"]) for line in lines] == [(stage, 2) for stage in config.stages]
    assert all(abs(line["loss"]) < 1e8 and line["gradient_norm"] > 0 for line in lines)
    if config.method == "dat":
        assert lines[-1]["T"] == 1

    model = dualat.load(folder)
    assert model.description.network.name == config.network.name
    records = json.loads((folder / "evaluation.json").read_text())
    assert {"clean_accuracy", "robust_accuracy", "frechet_distance"} <= {r["metric"] for r in records}
    if theirs is not None:
        same_but_for_two_steps(model.network, theirs)


def same_but_for_two_steps(ours: nn.Module, theirs: nn.Module) -> None:
    """The run went on from the imported weights, and left BatchNorm's statistics alone."""
    found = {key.removeprefix("network."): value for key, value in ours.state_dict().items()}
    given = theirs.state_dict()
    assert found.keys() - given.keys() <= {"mean", "std"} and given.keys() <= found.keys()
    weights = dict(theirs.named_parameters())
    moved = max(float((found[key] - value).abs().max()) for key, value in weights.items())
    assert 0 < moved < 0.1, "other weights than those imported, or none learned"
    statistics = [key for key in given if key.endswith(("running_mean", "running_var"))]
    assert all(torch.equal(found[key], given[key]) for key in statistics)
