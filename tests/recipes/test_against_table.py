"""Every recipe of the paper's experiments, value by value, against the published hyperparameters.

The numbers are those of arXiv 2510.13872 and its public code, and of the other systems' papers and code, typed in here
apart from the recipes. A set or range holds all values that the publication allows.
"""

import shlex
from dataclasses import asdict
from importlib import resources
from typing import Any

import pytest
import yaml
from recipe_files import commands, header, value_at

from dualat.cli.recipe_arguments import read
from dualat.cli.train import TrainFlags
from dualat.config import load_recipe
from dualat.recipes.reading import recipe_names, recipe_values
from dualat.training.optimizer import learning_rate

L2_SMALL = {"attack.norm": "L2", "attack.eps": 0.5, "attack.steps": 10, "attack.step_size": 0.1}
L2_LARGE = {"attack.norm": "L2", "attack.eps": 3.0, "attack.steps": 3, "attack.step_size": 2.0}
STRONG = {
    "robust_augment.kind": "strong",
    "robust_augment.pad": 4,
    "robust_augment.flip": True,
    "robust_augment.cutout": 16,
}
BASIC = {"energy_augment.kind": "basic", "energy_augment.pad": 4, "energy_augment.flip": True}


def sgd(stage: str, lr: float, decay: float) -> dict[str, Any]:
    """SGD, which has Nesterov momentum here."""
    values = {"name": "sgd", "lr": lr, "momentum": 0.9, "weight_decay": decay}
    return {f"{stage}.optimizer.{key}": value for key, value in values.items()}


STAGE2 = {
    "method": "dat",
    "contrastive.energy": "joint",
    "contrastive.window": 1000,
    "attack.random_start": False,
    "loss.cross_entropy": 1.0,
    "loss.energy": 1.0,
    "loss.r1": 0.0,
    "stage2.freeze_batchnorm": True,
    "stage2.ema_decay": 0.999,
    "stage2.optimizer.schedule": "constant",
    "stage2.optimizer.warmup_steps": 0,
    "sampling.energy": "joint",
    "sampling.rule": "L2",
    "sampling.noise": 0.0,
}
AT = {
    "stage1.epochs": 300,
    "stage1.batch_size": 128,
    "stage1.ema_decay": 0.999,
    "stage1.optimizer.schedule": "cosine",
    **sgd("stage1", 0.1, 5e-4),
    **L2_SMALL,
    **STRONG,
}
CIFAR = {
    "stages": "both",
    "weights": None,
    "network.name": "wrn-34-10",
    "network.norm": "batch",
    "network.normalize": "data",
    "stage2.batch_size": 128,
    "contrastive.step_size": 0.1,
    "sampling.step_size": 0.2,
    **AT,
    **BASIC,
    **STAGE2,
}
IMAGENET = {
    "stages": "2",
    "data.source": "data/imagenet",
    "data.image_size": 256,
    "data.val_as": "test",
    "stage2.batch_size": 512,
    "sampling.step_size": 8.0,
    "robust_augment.kind": "imagenet",
    "robust_augment.flip": True,
    "robust_augment.scale": 0.08,
    "energy_augment.kind": "basic",
    "energy_augment.pad": 0,
    "energy_augment.flip": True,
    **L2_LARGE,
    **STAGE2,
}
RESNET = {
    **IMAGENET,
    **sgd("stage2", 1e-3, 5e-4),
    "network.normalize": "data",
    "contrastive.step_size": 2.0,
}
CONVNEXT = {
    **IMAGENET,
    "network.normalize": "none",
    "stage2.optimizer.name": "adamw",
    "stage2.optimizer.betas": (0.9, 0.95),
    "stage2.optimizer.lr": {1e-3, 3e-4},
    "stage2.optimizer.weight_decay": 0.05,
    "contrastive.auc_threshold": 0.2,
    "contrastive.t_max": {100, 110},
    "contrastive.step_size": {2.0, 3.0, 4.0},
    "sampling.steps": range(22, 37),
}
CIFAR10 = {**CIFAR, **sgd("stage2", 1e-3, 5e-4), "data.source": "cifar10", "sampling.steps": range(32, 36)}
CIFAR100 = {**CIFAR, **sgd("stage2", 1e-2, 5e-4), "data.source": "cifar100", "sampling.steps": 32}
RESNET50 = {
    **RESNET,
    "network.name": "timm/resnet50",
    "sampling.steps": 14,
    "weights": "runs/weights/resnet50-l2-eps3.safetensors",
}
WRN = {
    **RESNET,
    "network.name": "wide_resnet50_4",
    "sampling.steps": 19,
    "weights": "runs/weights/wide-resnet50-4-l2-eps3.safetensors",
}
JEM = {
    "stages": "both",
    "weights": None,
    "data.source": "cifar10",
    "network.name": "wrn-28-10",
    "network.activation": "leaky_relu",
    "network.layout": "jem",
    "chain.buffer": 10_000,
    "chain.restart": 0.05,
    "loss.cross_entropy": 1.0,
    "loss.energy": 1.0,
    "stage1.batch_size": 64,
    "stage1.optimizer.schedule": "step",
    "robust_augment.kind": "basic",
    "robust_augment.pad": 4,
    "robust_augment.flip": True,
    "stability.limit": 1e8,
    "sampling.energy": "marginal",
}


def knob(auc: float, t_max: int) -> dict[str, Any]:
    return {"contrastive.auc_threshold": auc, "contrastive.t_max": t_max}


TABLE: dict[str, dict[str, Any]] = {
    "cifar10": {**CIFAR10, **knob(0.8, 50)},
    "cifar10-t50": {**CIFAR10, **knob(0.7, 100)},
    "cifar100": {**CIFAR100, **knob(0.8, 50)},
    "cifar100-t50": {**CIFAR100, **knob(0.75, 50), "sampling.steps": 33},
    "imagenet-resnet50-t15": {**RESNET50, **knob(0.4, 15)},
    "imagenet-resnet50": {**RESNET50, **knob(0.4, 30)},
    "imagenet-wrn50-4-t30": {**WRN, **knob(0.2, 30)},
    "imagenet-wrn50-4": {**WRN, **knob(0.2, 65)},
    "imagenet-convnext-small": {**CONVNEXT, "network.name": "convnext_small_cvst"},
    "imagenet-convnext-base": {**CONVNEXT, "network.name": "convnext_base_cvst"},
    "imagenet-convnext-large": {**CONVNEXT, "network.name": "convnext_large_cvst", **knob(0.2, 110)},
    # its normalisation is that of the public weights
    "imagenet-vit-small": {**CONVNEXT, "network.name": "vit_small_cvst", "network.normalize": "data"},
    "cifar10-standard-at": {
        **AT,
        "method": "standard-at",
        "data.source": "cifar10",
        "network.name": "wrn-34-10",
        "weights": None,
    },
    "cifar10-ratio": {
        **AT,
        "method": "ratio",
        "data.source": "cifar10",
        "network.name": "wrn-34-10",
        "weights": None,
        "out.eps": 1.0,
        "out.steps": 20,
        "out.step_size": 0.1,
        "out.momentum": 0.9,
        "loss.cross_entropy": 1.0,
        "loss.energy": 1.0,
    },
    "cifar10-jem": {
        **JEM,
        "method": "jem",
        "network.norm": "none",
        "stage1.epochs": 200,
        "stage1.optimizer.name": "adamw",
        "stage1.optimizer.lr": 1e-4,
        "stage1.optimizer.weight_decay": 0.0,
        "stage1.optimizer.warmup_steps": 1000,
        "stage1.optimizer.gamma": 0.3,
        "initial.kind": "uniform",
        "energy_augment.kind": "basic",
        "chain.steps": 20,
        # published on [-1, 1]: factor 1, noise 0.01 and 0.03
        "chain.step_size": 1 / 4,
        "chain.noise": 0.01 / 2,
        "chain.input_noise": 0.03 / 2,
        "sampling.rule": "gradient",
        "sampling.clip": False,
        "sampling.noise": 0.01 / 2,
        "sampling.step_size": 1 / 4,
    },
    "cifar10-sada-jem": {
        **JEM,
        **sgd("stage1", 0.1, 5e-4),
        "method": "sada-jem",
        "network.norm": "batch",
        "stage1.freeze_batchnorm": False,
        "stage1.epochs": 200,
        "stage1.optimizer.gamma": 0.2,
        "stage1.optimizer.warmup_steps": 1000,
        "initial.kind": "class-gaussian",
        "energy_augment.kind": "none",
        "sharpness.rho": 2.0,
        "chain.steps": 5,
        "chain.step_size": 1 / 4,
        "chain.noise": 0.0,
        "chain.input_noise": 0.0,
        "sampling.rule": "clipped",
        "sampling.noise": 0.0,
        "sampling.step_size": 1 / 4,
    },
    "cifar10-jempp": {
        **JEM,
        **sgd("stage1", 0.1, 4e-4),
        "method": "jempp",
        "network.norm": "batch",
        "stage1.freeze_batchnorm": False,
        "stage1.epochs": 150,
        "stage1.optimizer.gamma": 0.2,
        "stage1.optimizer.warmup_steps": 1000,
        "initial.kind": "class-gaussian",
        "energy_augment.kind": "basic",
        "chain.steps": 10,
        "chain.inner_steps": 5,
        "chain.step_size": 0.2 / 4,
        "chain.noise": 0.0,
        "chain.input_noise": 0.03 / 2,
        "sampling.rule": "clipped",
        "sampling.noise": 0.0,
    },
}
MILESTONES = {"cifar10-jem": (160, 180), "cifar10-sada-jem": (60, 120, 180), "cifar10-jempp": (50, 100, 125)}
"""Epochs after which the learning rate is multiplied by gamma."""
OWN = ("digits", "fashion-mnist")
"""Recipes of experiments that are not the paper's."""
STARTS = {
    "cifar": (
        "data/tiny_images.bin",
        {"exclude": ("data/cifar.txt",)},
        {"kind": "basic", "pad": 4, "flip": True},
    ),
    "imagenet": (
        "data/openimages",
        {"include": ("data/openimages-train.txt",)},
        {"kind": "imagenet", "flip": True},
    ),
}
"""Published initial distributions: source, lists, augmentation."""


def test_every_recipe_is_in_the_table():
    assert {*TABLE, *OWN} == set(recipe_names())


@pytest.mark.parametrize("name", TABLE)
def test_every_value_is_the_published_one(name: str):
    config = load_recipe(name)
    wrong = []
    for key, expected in TABLE[name].items():
        found = value_at(config, key)
        if not (found in expected if isinstance(expected, set | range) else found == expected):
            wrong.append(f"{key} is {found!r}, not {expected!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", TABLE)
def test_every_published_value_is_written_in_the_recipe_itself(name: str):
    """A recipe is complete: what makes the row must not hang on a default that may change."""
    written = recipe_values(name)
    groups = {"data", "network", "initial", "stage1", "sampling", "evaluation"}
    method = value_at(load_recipe(name), "method")
    if method in ("dat", "standard-at", "ratio"):
        groups |= {"attack", "robust_augment"}
    if method == "dat":
        groups |= {"contrastive", "energy_augment", "stage2"}
    groups |= {"ratio": {"out"}, "sada-jem": {"sharpness", "chain"}}.get(method, set())
    assert groups <= written.keys() and written["method"] == method
    if method == "dat":
        assert {"t_max", "auc_threshold", "step_size"} <= written["contrastive"].keys()
        assert {"norm", "eps", "steps", "step_size"} <= written["attack"].keys()
        assert {"name", "lr", "weight_decay"} <= written["stage2"]["optimizer"].keys()


@pytest.mark.parametrize("name", MILESTONES)
def test_the_learning_rate_falls_after_the_published_epochs(name: str):
    config = load_recipe(name)
    settings, per_epoch = config.stages[1].optimizer, 765  # 49,000 images in batches of 64
    total = config.stages[1].length(per_epoch)
    for passed, epoch in enumerate(MILESTONES[name]):
        before, after = (learning_rate(settings, epoch * per_epoch + shift, total) for shift in (-1, 0))
        assert before == pytest.approx(settings.lr * settings.gamma**passed)
        assert after == pytest.approx(settings.lr * settings.gamma ** (passed + 1))


def test_jem_warms_up_over_a_thousand_steps():
    settings = load_recipe("cifar10-jem").stages[1].optimizer
    assert learning_rate(settings, 499, 10**6) == pytest.approx(settings.lr * 0.5, rel=0.01)
    assert learning_rate(settings, 1000, 10**6) == settings.lr


@pytest.mark.parametrize("name", [n for n in TABLE if any(c[0] == "train" for c in commands(n))])
def test_the_comment_gives_the_published_initial_distribution(name: str):
    """It is not the recipe's own: the pictures have to be fetched, and some cannot be had."""
    source, lists, augment = STARTS[name.split("-")[0].rstrip("01")]
    _, recipe, *args = next(c for c in commands(name) if c[0] == "train")
    config = load_recipe(name)
    parsed, _ = read("dualat train", [recipe, *args], TrainFlags)
    assert recipe == name and config.initial.kind == "gaussian"
    assert (parsed.initial.kind, parsed.initial.source) == ("images", source)
    for key in ("include", "exclude"):
        assert getattr(parsed.initial, key) == lists.get(key, ())
    if name == "cifar10-ratio":  # its outside images are augmented as the others are
        augment = {**augment, "kind": "strong", "cutout": 16}
    found = asdict(parsed.initial.augment)
    assert {key: found[key] for key in augment} == augment


@pytest.mark.parametrize("name", [n for n in TABLE if load_recipe(n).weights])
def test_the_comment_gives_the_command_that_makes_the_weights(name: str):
    (command,) = [c for c in commands(name) if c[0] == "import-weights"]
    assert command[command.index("--recipe") + 1] == name
    assert command[command.index("--output") + 1] == load_recipe(name).weights
    normalised = load_recipe(name).network.normalize == "data"
    assert ("--normalize" in command) == (not normalised), shlex.join(command)


PUBLISHED = {
    "cifar10": ("cifar10", "DAT T=40", "91.92 75.75 9.92 9.12"),
    "cifar10-t50": ("cifar10", "DAT T=50", "90.72 74.65 9.86 7.57"),
    "cifar10-standard-at": ("cifar10", "AT", "92.43 75.73 9.58 28.41"),
    "cifar10-ratio": ("cifar10", "RATIO", "92.23 76.25 9.61 21.96"),
    "cifar10-jem": ("cifar10", "JEM", "92.9 40.5 8.76 38.4"),
    "cifar10-sada-jem": ("cifar10", "SADA-JEM", "95.5 31.93 8.77 9.41"),
    "cifar100-t50": ("cifar100", "DAT T=50", "60.12 42.55 11.12 9.53"),
    "imagenet-resnet50": ("imagenet256", "DAT ResNet-50 T=30", "55.96 37.14 319.3 5.28"),
    "imagenet-wrn50-4": ("imagenet256", "DAT WRN-50-4 T=65", "58.78 40.74 358.0 4.94"),
    "imagenet-convnext-large": ("imagenet256", "DAT ConvNeXt-L T=110", "75.78 56.40 310.2 3.29"),
}
"""Data set and system in src/dualat/results/published.yaml; accuracy, robust accuracy, Inception Score, FID."""


@pytest.mark.parametrize("name", TABLE)
def test_the_comment_says_what_is_published(name: str):
    (line,) = [
        line for line in header(name) if line.startswith("Published") or "Needs a GPU. Published" in line
    ]
    if name not in PUBLISHED:
        assert "known here" in line or "nothing" in line
        return
    data, system, figures = PUBLISHED[name]
    accuracy, robust, score, fid = figures.split()
    eps = "3.0" if data == "imagenet256" else "0.5"
    assert f"accuracy {accuracy}, AutoAttack L2 {eps} {robust}, IS {score}, FID {fid}" in line
    table = yaml.safe_load(
        resources.files("dualat.results").joinpath("published.yaml").read_text(encoding="utf-8")
    )
    (row,) = [row for row in table[data]["rows"] if row["system"] == system]
    assert row["clean_accuracy"] == pytest.approx(float(accuracy) / 100)
    assert row["robust_accuracy"] == pytest.approx(float(robust) / 100)
    assert (row["inception_score"], row["fid"]) == (float(score), float(fid))
