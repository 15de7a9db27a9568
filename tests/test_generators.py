"""benchmarks/generators.py: sizes as published, steps that draw, and a count that adds up. Networks are small where they run."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "generators.py"


@pytest.fixture(scope="module")
def generators() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generators", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.slow
def test_networks_are_as_large_as_published(generators):
    """Weights in millions: ADM 554 (its classifier 54), LDM-4 400, DiT-XL/2 675, VAR-d16 310; our three as method.md has them."""
    with torch.device("meta"):
        adm, ldm, dit, var = (make() for make in generators.SYSTEMS.values())
        assert millions(adm.unet) == pytest.approx(554, abs=1)
        assert millions(adm.classifier) == pytest.approx(54, abs=1)
        assert millions(ldm.unet) + millions(ldm.classes) == pytest.approx(400, abs=2)
        repeated = millions(dit.transformer.transformer_blocks[0].norm1.emb)
        blocks = len(dit.transformer.transformer_blocks)
        assert millions(dit.transformer) - (blocks - 1) * repeated == pytest.approx(675, abs=1)
        assert millions(var.transformer) == pytest.approx(310, abs=1)
    for recipe, published in zip(generators.RECIPES, (26, 223, 198), strict=True):
        assert millions(generators.Classifier(recipe, 64)) == pytest.approx(published, abs=1)


@pytest.mark.parametrize(
    ("name", "sizes", "shape"),
    [
        ("ADMG", (64, 32, 32), [3, 64, 64]),
        ("LDM4G", (16, 32, 64, 32), [3, 64, 64]),
        ("DiTXL2G", (8, 2, 2, 32), [3, 64, 64]),
        ("VARD16", (2, 32), [3, 256, 256]),
        ("Classifier", ("imagenet-resnet50", 64), [3, 64, 64]),
    ],
)
def test_every_system_draws_and_is_counted(generators, name, sizes, shape):
    torch.manual_seed(0)
    system = getattr(generators, name)(*sizes).eval()
    row = generators.timed(system, 2, 1, torch.float32, torch.device("cpu"))
    assert row["image"] == shape and row["steps"] == system.steps and row["tflop_per_image"] > 0
    spent = row.get("seconds_of_all_steps") or [s * system.steps for s in row["seconds_of_a_step"]]
    assert row["images_per_second"] == pytest.approx(2 / (spent[0] + row["seconds_of_the_end"]), rel=1e-2)


def test_operations_of_a_gradient_are_counted(generators):
    """A product is 2 * 4 * 3 * 5 operations; its gradient in the input as many again."""
    x, weight = torch.randn(4, 3, requires_grad=True), torch.randn(3, 5)
    with generators.Operations() as counted:
        torch.autograd.grad((x @ weight).sum(), x)
    assert counted.total == 2 * 2 * 4 * 3 * 5


def test_guidance_changes_what_is_drawn(generators):
    """Steps depend on the class: by the classifier's gradient, and by the prediction without a class."""
    both = torch.tensor([[3.0], [1.0]])
    assert generators.guided(both, 1.0).item() == 3.0 and generators.guided(both, 2.0).item() == 5.0
    for name, sizes in (("ADMG", (64, 32, 32)), ("LDM4G", (16, 32, 64, 32))):
        torch.manual_seed(0)
        system, drawn = getattr(generators, name)(*sizes).eval(), []
        for label in (3, 7):
            torch.manual_seed(1)
            with torch.no_grad():
                system.start(torch.tensor([label]))
                system.step(0)
            drawn.append(system.x)
        assert not torch.equal(*drawn), name


def test_tokens_are_drawn_among_the_likeliest(generators):
    draw = sys.modules["var"].draw
    logits = torch.full((1, 500, 50), -20.0)
    logits[..., 7], logits[..., 9] = 1.0, 0.0  # 73 % and 27 %
    assert set(draw(logits).unique().tolist()) == {7, 9}
    logits[..., 9] = -4.0  # 0.7 %: what is likelier holds 96 % already
    assert draw(logits).unique().tolist() == [7]


def test_the_command_writes_its_file_and_refuses_in_a_sentence(generators, tmp_path, monkeypatch):
    def run(*args: str) -> None:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *args])
        generators.main()

    with pytest.raises(SystemExit, match="must be 1 or more"):
        run("--batch-size", "0")
    file = tmp_path / "result.json"
    options = ["--systems", "imagenet-resnet50", "--batch-size", "1", "--repeats", "1", "--precision", "fp32"]
    run(*options, "--device", "cpu", "--output", str(file))
    result = json.loads(file.read_text())
    assert result["precision"] == "float32" and result["systems"]["imagenet-resnet50"]["image"] == [
        3,
        256,
        256,
    ]
