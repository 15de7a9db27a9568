"""docs/reproduce.md: a row for every recipe, published figures as they are, commands that parse, and nothing out of date."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from dualat.cli.arguments import parse
from dualat.cli.evaluate import EvaluateArguments, refuse_unused
from dualat.cli.import_weights import ImportArguments
from dualat.cli.recipe_arguments import read
from dualat.cli.train import TrainFlags
from dualat.config import load_recipe
from dualat.evaluation.settings import EvaluationSettings
from dualat.models.import_weights.settings import ImportSettings
from dualat.recipes.reading import recipe_names

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
RECIPES = sorted({*recipe_names()} - {"digits", "fashion-mnist"})
"""Those of the paper."""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reproduce_page", ROOT / "scripts" / "reproduce_page.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands() -> list[list[str]]:
    """All commands in code blocks of the page, as arguments of dualat."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.S)).replace("\\\n", " ")
    return [shlex.split(line.partition("dualat ")[2]) for line in blocks.splitlines()]


def rows() -> dict[str, list[str]]:
    """Cells of each row with a recipe, by its recipe."""
    lines = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("|")]
    return {cells[5].strip("`"): cells for cells in lines if len(cells) == 10 and cells[5].startswith("`")}


def test_every_recipe_of_the_paper_has_a_row_and_is_trained_and_evaluated():
    assert sorted(rows()) == RECIPES
    assert sorted(c[1] for c in commands() if c[0] == "train") == RECIPES
    assert {c[1] for c in commands() if c[0] == "evaluate"} > {f"runs/{name}" for name in RECIPES}


def test_the_page_is_what_the_script_makes_of_the_recipes_now(script: ModuleType):
    """Costs apart, which take minutes to make."""

    def without_costs(text: str) -> list[str]:
        return [" | ".join(line.split(" | ")[:6]) for line in text.splitlines()]

    assert without_costs(PAGE) == without_costs(script.page(lambda data, recipe: None))


def test_every_row_has_its_costs():
    number = r"\d+(\.\d)?"
    for name, (*_, memory, hours, gpu_hours, disk) in rows().items():
        assert memory.isdigit() and disk.isdigit(), name
        assert all(re.fullmatch(f"{number}( to {number})?", cell) for cell in (hours, gpu_hours)), name


@pytest.mark.parametrize(
    ("recipe", "figures"),
    [
        ("cifar10", ["91.92", "75.75", "9.92", "9.12"]),
        ("cifar10-sada-jem", ["95.50", "31.93", "8.77", "9.41"]),
        ("cifar100-t50", ["60.12", "42.55", "11.12", "9.53"]),
        ("imagenet-convnext-large", ["75.78", "56.40", "310.2", "3.29"]),
        ("imagenet-vit-small", ["", "", "", ""]),
    ],
)
def test_published_figures(recipe: str, figures: list[str]):
    assert [cell.strip() for cell in rows()[recipe][1:5]] == figures


def test_systems_that_are_not_trained_here_are_listed():
    names = re.findall(r"^\| (.*?)(?: \[\d\])? \|.*\| none \|", PAGE, re.M)
    assert names == ["AT ConvNeXt-L", "EGC", "ADM-G", "LDM-4-G", "VAR-d16", "DiT-XL/2-G"]


def test_costs_of_a_plan_as_cells(script: ModuleType):
    stage = {"memory": {"total": 38.4e9}, "fits": True}
    plan = {
        "stages": [stage, {"memory": {"total": 1e9}, "fits": True}],
        "total": {"guess": {"hours": 2.04, "gpu_hours": 16.3}, "most": {"hours": 2.9, "gpu_hours": 23.2}},
        "disk": {"total": 2.96e9},
    }
    assert script.costs(plan) == ["38", "2.0 to 2.9", "16 to 23", "3"]
    stage["fits"] = False
    plan["total"]["most"] = plan["total"]["guess"]
    assert script.costs(plan)[:2] == ["38, too much", "2.0"]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_parses(command: list[str]):
    kind, target, *args = command
    if kind == "train":
        read("dualat train", [target, *args], TrainFlags)
    elif kind == "evaluate":
        recipe = target.removeprefix("runs/")
        base = load_recipe(recipe).evaluation if recipe in RECIPES else EvaluationSettings()
        settings, parsed = parse(args, f"dualat evaluate {target}", base, EvaluateArguments())
        refuse_unused(parsed.metrics, settings, base)
    else:
        _, parsed = parse([target, *args], "dualat import-weights", ImportSettings(), ImportArguments())
        assert kind == "import-weights" and parsed.recipe in RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_evaluation_is_the_published_protocol(recipe: str):
    settings, large = load_recipe(recipe).evaluation, recipe.startswith("imagenet")
    mine = [c for c in commands() if c[:2] == ["evaluate", f"runs/{recipe}"]]
    assert {word for c in mine for word in c} >= {"clean_accuracy", "autoattack", "inception"}
    assert settings.autoattack_eps == ((3.0,) if large else (0.5,)) and settings.norm == "L2"
    assert settings.robust_images is None and settings.autoattack_images is None
    if large:
        assert load_recipe(recipe).data.test_list == "data/imagenet_test_image_ids.txt"
        (last,) = [c for c in mine if "inception" in c]
        assert last[last.index("--samples") + 1] == "50000" and "--reference" in last
    else:
        assert (settings.samples, settings.reference) == (50_000, "train")


@pytest.mark.parametrize("recipe", RECIPES)
def test_imports_make_the_weights_that_training_starts_from(recipe: str):
    needed = load_recipe(recipe).weights
    made = [c[c.index("--output") + 1] for c in commands() if c[0] == "import-weights" and recipe in c]
    assert (needed in made) if needed else not made
