"""Which settings a method reads: the table says so, and training steps show it."""

import copy
from typing import Any, cast, get_args, get_type_hints

import pytest
import torch
from test_methods import network, toy

from dualat.config import RunConfig, build_config, load_recipe, resolved, setting_names
from dualat.data.images import ImageData
from dualat.methods.settings import OF_METHODS, USED, is_used, refuse_unused
from dualat.models.model import LoadedModel
from dualat.run.train import build_method
from dualat.training.optimizer import build_optimizer
from dualat.training.step import train_step

STEPS = 4
BASE = {
    "attack": {"eps": 0.2, "steps": 3, "step_size": 0.1},
    "contrastive": {"t_max": 2, "auc_threshold": 0.0, "window": 16, "step_size": 0.2},
    "chain": {"steps": 2, "inner_steps": 2, "buffer": 24, "noise": 0.01, "input_noise": 0.01, "restart": 0.2},
    "out": {"steps": 3, "eps": 0.2},
    "positive": {"steps": 2},
    "diffusion": {"sigma_max": 0.4},
    "loss": {"energy": 0.01, "adversarial_energy": 0.01, "r1": 0.01},
    "sharpness": {"rho": 0.1},
    "stage1": {"epochs": None, "steps": STEPS, "batch_size": 16, "optimizer": {"lr": 0.01}},
    "stage2": {"epochs": None, "steps": STEPS, "batch_size": 16, "optimizer": {"lr": 0.01}},
}
OTHERS = {
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
"""Another value for every setting that decides what a method's step does."""


def outcome(method: str, setting: str | None = None) -> dict[str, torch.Tensor]:
    """Weights after some steps on the toy, with one setting changed."""
    values: dict[str, Any] = copy.deepcopy(BASE)
    if setting is not None:
        group, name = setting.split(".")
        values[group][name] = OTHERS[setting]
    config = build_config({**values, "method": method})
    stage = config.stage2 if method == "dat" else config.stage1
    images = ImageData(torch.zeros(16, 1, 8, 8, dtype=torch.uint8), torch.zeros(16).long(), ("a", "b"), "toy")
    made, model = build_method(config, stage, images), cast(LoadedModel, network())
    optimizer = build_optimizer(model, stage.optimizer)
    torch.manual_seed(0)
    for _ in range(STEPS):
        train_step(model, made, toy(), optimizer, stage.optimizer.lr, stage, torch.float32)
    return model.state_dict()


@pytest.mark.parametrize("method", USED)
def test_the_table_names_what_changes_a_step_and_nothing_else(method):
    before = outcome(method)
    for setting in OTHERS:
        after = outcome(method, setting)
        same = all(torch.equal(before[key], after[key]) for key in before)
        assert same != is_used(method, setting), setting


def test_every_setting_of_the_groups_is_tried():
    names = {n for n in setting_names() if "." in n and n.split(".")[0] in OF_METHODS}
    stages_and_batches = {
        n for n in names if n.split(".")[0] in ("stage2", "robust_augment", "energy_augment")
    }
    assert set(OTHERS) == names - stages_and_batches


def test_table_is_of_settings_and_methods_that_exist():
    names = {*setting_names()}
    assert all(used in names for all_used in USED.values() for used in all_used)
    assert set(USED) == set(get_args(get_type_hints(RunConfig)["method"]))


def test_groups_and_what_concerns_every_method():
    assert is_used("jem", "chain") and is_used("jem", "loss") and not is_used("jem", "attack")
    assert is_used("eb-jdat", "attack.eps") and not is_used("eb-jdat", "attack.random_start")
    assert is_used("jem", "stage1.steps") and not is_used("jem", "stage2.steps")
    assert is_used("standard-at", "seed") and is_used("standard-at", "network.name")


def test_what_dat_reads_depends_on_its_stages():
    assert is_used("dat", "stage1.steps") and is_used("dat", "stage2.steps") and is_used("dat", "contrastive")
    for name in ("stage2.steps", "contrastive.t_max", "loss.energy", "energy_augment"):
        assert not is_used("dat", name, "1")
    assert is_used("dat", "attack.eps", "1") and is_used("dat", "stage1.steps", "1")
    assert is_used("dat", "attack.eps", "2") and not is_used("dat", "stage1.steps", "2")
    with pytest.raises(
        ValueError, match=r"^stage2.steps has no effect on method dat with stages 1, which reads "
    ):
        load_recipe("digits", {"stages": "1", "stage2.steps": 5})


def test_at_ebm_has_no_energy_of_a_class_to_sample_from():
    with pytest.raises(ValueError, match=r"^sampling.energy has no effect on method at-ebm"):
        load_recipe("digits", {"method": "at-ebm", "sampling.energy": "joint"})
    assert load_recipe("digits", {"sampling.energy": "marginal"}).sampling.energy == "marginal"
    assert resolved(load_recipe("digits", {"method": "at-ebm"})).sampling.energy == "marginal"
    assert resolved(load_recipe("digits")).sampling.energy == "joint"


def test_an_override_without_effect_is_refused_with_what_has_one():
    with pytest.raises(
        ValueError, match=r"^contrastive.t_max has no effect on method standard-at, which reads "
    ):
        load_recipe("digits", {"method": "standard-at", "contrastive.t_max": 5})
    refuse_unused("dat", ["contrastive.t_max", "seed"])
    assert load_recipe("digits", {"method": "standard-at"}).contrastive.t_max  # the recipe's own stay, unread
