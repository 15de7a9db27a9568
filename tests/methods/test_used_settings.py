"""A method owns its settings: each of them changes a training step, what it does not have is refused, and no other file
knows it by name."""

import ast
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, cast, get_type_hints

import pytest
import torch
from test_methods import toy
from torch import nn

import dualat
from dualat.config import RunConfig, build_config, is_used, load_recipe, refuse_unused, setting_names
from dualat.core.energy import JointEnergyModel
from dualat.methods.registry import METHODS, build_method, method_settings
from dualat.models.model import LoadedModel
from dualat.training.optimizer import build_optimizer
from dualat.training.settings import OptimizerSettings, StageSettings
from dualat.training.step import train_step

STEPS = 4
BASE: dict[str, dict[str, Any]] = {
    "attack": {"eps": 0.2, "steps": 3, "step_size": 0.1},
    "contrastive": {"t_max": 2, "auc_threshold": 0.0, "window": 16, "step_size": 0.2},
    "chain": {"steps": 2, "inner_steps": 2, "buffer": 24, "noise": 0.01, "input_noise": 0.01, "restart": 0.2},
    "out": {"steps": 3, "eps": 0.2},
    "positive": {"steps": 2},
    "diffusion": {"sigma_max": 0.4},
    "loss": {"energy": 0.01, "adversarial_energy": 0.01, "r1": 0.01},
    "sharpness": {"rho": 0.1},
}
"""Small settings that let each other one count."""
OTHERS: dict[str, Any] = {
    "attack.norm": "Linf",
    "attack.eps": 0.15,
    "attack.steps": 4,
    "attack.step_size": 0.12,
    "attack.random_start": True,
    "contrastive.t_max": 1,
    "contrastive.auc_threshold": 1.0,
    "contrastive.window": 64,
    "contrastive.step_size": 0.3,
    "contrastive.energy": "marginal",
    "contrastive.ratio": 0.5,
    "contrastive.stride": 2,
    "loss.cross_entropy": 0.5,
    "loss.robust": False,
    "loss.energy": 0.02,
    "loss.r1": 0.02,
    "loss.adversarial_energy": 0.02,
    "chain.steps": 3,
    "chain.inner_steps": 3,
    "chain.step_size": 0.3,
    "chain.noise": 0.02,
    "chain.input_noise": 0.02,
    "chain.buffer": 40,
    "chain.restart": 0.9,
    "sharpness.rho": 0.2,
    "out.eps": 0.15,
    "out.steps": 4,
    "out.step_size": 0.15,
    "out.momentum": 0.5,
    "positive.steps": 3,
    "positive.step_size": 0.2,
    "diffusion.sigma_min": 0.01,
    "diffusion.sigma_max": 0.5,
    "diffusion.label_smoothing": 0.1,
}
"""Another value for every setting of a method."""


def leaves(kind: type, prefix: str = "") -> Iterator[str]:
    """Dotted names of the settings of a class, groups and the method's name apart."""
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from leaves(cast(type, hint), f"{prefix}{name}.")
        elif name != "name":
            yield prefix + name


def network() -> JointEnergyModel:
    """As small as a network with a first convolution and BatchNorm can be: hundreds of them are trained here."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        return JointEnergyModel(nn.Sequential(*body, nn.Linear(16, 2)))


def outcome(name: str, setting: str | None = None) -> dict[str, torch.Tensor]:
    """Weights after some steps on the toy, with one setting changed."""
    row = METHODS[name]
    values: dict[str, Any] = {"name": name}
    for group, given in BASE.items():
        if row.knows(group):
            values[group] = {key: value for key, value in given.items() if row.knows(f"{group}.{key}")}
    if setting is not None:
        group, key = setting.split(".")
        values[group] = {**values.get(group, {}), key: OTHERS[setting]}
    method = build_method(method_settings(values), 16)
    stage = StageSettings(
        method=method.settings, steps=STEPS, batch_size=16, optimizer=OptimizerSettings(lr=0.01)
    )
    model = cast(LoadedModel, network())
    optimizer = build_optimizer(model, stage.optimizer)
    torch.manual_seed(0)
    for _ in range(STEPS):
        train_step(model, method, toy(), optimizer, stage.optimizer.lr, stage, torch.float32)
    return model.state_dict()


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_a_method_changes_its_step(name):
    before = outcome(name)
    for setting in leaves(METHODS[name].settings):
        after = outcome(name, setting)
        assert any(not torch.equal(before[key], after[key]) for key in before), setting


@pytest.mark.parametrize("name", METHODS)
def test_a_row_says_which_batches_the_step_reads(name):
    """Without the images that it does not read the step is the same."""
    method, batch, row = build_method(method_settings(name), 16), toy(), METHODS[name]
    read = {
        "robust_images": row.classifies,
        "energy_images": row.energy_images,
        "starts": row.starts,
    }
    losses = {}
    for images in (None, *read):
        changed = toy()
        if images is not None:
            setattr(changed, images, torch.rand(getattr(batch, images).shape) * 0.3)
        torch.manual_seed(0)
        method = build_method(method_settings(name), 16)
        losses[images] = method.loss(network().eval(), changed)[0]
    for images, matters in read.items():
        assert torch.equal(losses[images], losses[None]) != matters, images
    assert method.needs_energy_batch == (row.energy_images or row.starts)


def test_another_method_s_setting_is_refused_by_its_type():
    with pytest.raises(ValueError, match=r"^contrastive is no setting\.$"):
        method_settings({"name": "standard-at", "contrastive": {"t_max": 5}})
    with pytest.raises(
        ValueError, match=r"^contrastive\.tmax is no setting\. Did you mean contrastive\.t_max\?$"
    ):
        method_settings({"name": "dat", "contrastive": {"tmax": 5}})
    with pytest.raises(ValueError, match=r"^attack\.random_start is no setting\.$"):
        method_settings({"name": "eb-jdat", "attack": {"random_start": True}})
    with pytest.raises(ValueError, match=r"^method is 'jam', which is unknown\. Did you mean jem\?"):
        method_settings("jam")


def test_every_setting_is_tried():
    assert {leaf for row in METHODS.values() for leaf in leaves(row.settings)} == set(OTHERS)
    groups = {name.split(".")[0] for name in OTHERS}
    assert {n for n in setting_names(groups=False) if n.split(".")[0] in groups} == set(OTHERS)


SOURCE = Path(dualat.__file__).parent


def code(path: Path) -> str:
    """The text of a file less what is said of it: comments and docstrings, in which a word may be a method's name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(value=0)
    return ast.unparse(tree)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_s_name_stands_in_its_row_and_its_own_file_alone(name):
    own = {SOURCE / "methods" / "registry.py", SOURCE / "methods" / f"{name.replace('-', '_')}.py"}
    word = re.compile(rf"""(['"]){re.escape(name)}\1""")
    networks = (
        SOURCE / "models"
    )  # whose layouts are called after those who drew them, as in network.layout: jem
    files = [p for p in sorted(SOURCE.rglob("*.py")) if p not in own and networks not in p.parents]
    others = [path for path in files if word.search(code(path))]
    said = [path for path in files if "-" in name and name in path.read_text(encoding="utf-8")]
    assert not others + said


def config(name: str, **more: Any) -> RunConfig:
    return build_config({"method": name, **more})


def test_groups_and_what_concerns_every_method():
    jem = config("jem")
    assert is_used(jem, "chain") and is_used(jem, "loss") and not is_used(jem, "attack")
    ball = config("eb-jdat")
    assert is_used(ball, "attack.eps") and not is_used(ball, "attack.random_start")
    assert is_used(jem, "stage1.steps") and not is_used(jem, "stage2.steps")
    assert is_used(jem, "stage1.method.chain.buffer") and not is_used(jem, "stage1.method.attack.eps")
    at = config("standard-at")
    assert is_used(at, "seed") and is_used(at, "network.name") and not is_used(at, "energy_augment.kind")
    assert not is_used(config("at-ebm"), "robust_augment") and is_used(config("ratio"), "robust_augment.kind")


def test_what_is_used_depends_on_the_stages():
    both, first = config("dat"), config("dat", stages="1")
    second = config("dat", stages="2", weights="somewhere")
    for name in ("stage1.steps", "stage2.steps", "contrastive"):
        assert is_used(both, name)
    for name in ("stage2.steps", "contrastive.t_max", "loss.energy", "energy_augment"):
        assert not is_used(first, name)
    assert is_used(first, "attack.eps") and is_used(first, "stage1.steps")
    assert is_used(second, "attack.eps") and not is_used(second, "stage1.steps")
    with pytest.raises(
        ValueError, match=r"^stage2.steps has no effect on method standard-at, which has stage1 alone: leave"
    ):
        load_recipe("digits", {"stages": "1", "stage2.steps": 5})


def test_at_ebm_has_no_energy_of_a_class_to_sample_from():
    with pytest.raises(ValueError, match=r"^sampling.energy has no effect on method at-ebm"):
        load_recipe("digits", {"method": "at-ebm", "sampling.energy": "joint"})
    assert load_recipe("digits", {"sampling.energy": "marginal"}).sampling.energy == "marginal"
    assert load_recipe("digits", {"method": "at-ebm"}).sampling.energy == "marginal"
    assert load_recipe("digits").sampling.energy == "joint"


def test_an_override_without_effect_is_refused_with_what_has_one():
    with pytest.raises(
        ValueError,
        match=r"^contrastive.t_max has no effect on method standard-at, which reads attack, robust_",
    ):
        load_recipe("digits", {"method": "standard-at", "contrastive.t_max": 5})
    with pytest.raises(
        ValueError, match=r"which reads attack\.norm, attack\.eps, attack\.steps, attack\.step_s"
    ):
        load_recipe("digits", {"method": "eb-jdat", "attack.random_start": True})
    refuse_unused(config("dat"), ["contrastive.t_max", "seed"])
    load_recipe("digits", {"method": "standard-at"})  # the recipe's own contrastive settings stay, unread


def test_settings_of_one_method_are_not_called_another_s():
    with pytest.raises(ValueError, match=r"^name is 'jem', but these are settings of dat\.$"):
        METHODS["dat"].settings(name="jem")
