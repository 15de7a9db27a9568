"""From a file to a network: what is changed on the way, what goes before what, and what is refused by name."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torchvision
from foreign_networks import same_logits, save, wide
from torch import nn

from dualat.models.import_weights.convert import Mismatch, import_network
from dualat.models.import_weights.guess import guess_network, image_size_of, wide_resnet_name
from dualat.models.import_weights.settings import ImportSettings
from dualat.models.import_weights.skeleton import skeleton_shapes
from dualat.models.settings import NetworkSettings


def test_half_precision_parameters_and_missing_counters(tmp_path: Path):
    theirs = wide(10, 1).half().float()
    state = OrderedDict(
        (k, nn.Parameter(v.half()) if v.is_floating_point() else v)
        for k, v in theirs.state_dict().items()
        if not k.endswith("num_batches_tracked")  # torch before 0.4.1
    )
    imported = import_network(save(state, tmp_path / "w.pt", "zip"), ImportSettings(normalize="none"))
    assert next(imported.network.parameters()).dtype == torch.float32
    same_logits(imported, theirs)


def test_views_of_one_storage_and_channels_last(tmp_path: Path):
    theirs = wide(10, 1)
    state = theirs.state_dict()
    flat = torch.cat([v.flatten().float() for v in state.values()])
    views, at = {}, 0
    for name, value in state.items():
        views[name] = flat[at : at + value.numel()].view(value.shape)
        at += value.numel()
    views["conv1.weight"] = views["conv1.weight"].contiguous(memory_format=torch.channels_last)
    for how in ("zip", "before 1.6"):
        path = save(views, tmp_path / how, how)
        same_logits(import_network(path, ImportSettings(normalize="none")), theirs)


def test_settings_go_before_what_the_file_says(tmp_path: Path):
    theirs = wide(10, 1, activation="silu")
    state = theirs.state_dict() | {"mean": torch.zeros(3), "std": torch.ones(3)}
    path = save(state, tmp_path / "w.pt", "zip")
    asked = ImportSettings(activation="silu", mean=(0.1, 0.2, 0.3), std=(0.5,), image_size=16)
    imported = import_network(path, asked)
    assert imported.shape == (3, 16, 16)
    same_logits(imported, theirs, asked.mean, asked.std)


def test_mismatches_are_listed_key_by_key(tmp_path: Path):
    state = wide(10, 1).state_dict()
    del state["block2.layer.0.conv1.weight"]
    state["extra\x1b[31m"] = torch.zeros(4)
    state["bn1.bias"] = torch.zeros(3)
    path = save(state, tmp_path / "w.pt", "zip")
    with pytest.raises(
        Mismatch, match=r"do not fit wrn-10-1: 1 missing .*, 1 unexpected .*, 1 of another shape"
    ) as caught:
        import_network(path, ImportSettings(normalize="none"))
    assert caught.value.lines == [
        "missing     block2.layer.0.conv1.weight (32, 16, 3, 3)",
        "unexpected  'extra\\x1b[31m' (4,)",
        "shape       bn1.bias (3,) in the file, (64,) in the network",
    ]


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({}, {}, "do not tell whether the input is normalised: give --normalize"),
        ({}, {"classes": 7, "normalize": "none"}, "last layer has 5 classes, and 7 are asked for"),
        ({}, {"network": "wrn-10-x", "normalize": "none"}, "'wrn-10-x' is unknown"),
        (
            {},
            {"network": "timm/resnet18", "activation": "silu", "normalize": "none"},
            "--activation chooses that of a wide ResNet",
        ),
        ({}, {"part": "ema", "normalize": "none"}, "has no part 'ema': give one of ''"),
        ({}, {"mean": (0.1, 0.2), "std": (1.0, 1.0)}, "2 means and 2 deviations for 3 channels"),
        (
            {"bn1.bias": torch.full((64,), torch.nan)},
            {"normalize": "none"},
            "not finite, the first in bn1.bias",
        ),
        ({"mean": torch.zeros(3), "std": torch.zeros(3)}, {}, "makes no sense"),
        ({"fc.weight": torch.zeros(1, 64)}, {"normalize": "none"}, "last layer has 1 rows"),
    ],
    ids=str,
)
def test_what_cannot_be_known_or_makes_no_sense_is_one_sentence(tmp_path: Path, change, settings, message):
    path = save(wide(10, 1).state_dict() | change, tmp_path / "w.pt", "zip")
    with pytest.raises(ValueError, match=message):
        import_network(path, ImportSettings(**settings))


def test_networks_that_cannot_be_told_name_the_nearest(tmp_path: Path):
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in torchvision.models.resnet18(num_classes=4).state_dict().items()}
    state = {k: torch.zeros(s) for k, s in shapes.items() if k != "layer4.1.bn2.weight"}
    path = save(state, tmp_path / "w.pt", "zip")
    with pytest.raises(
        ValueError,
        match=r"cannot be told .*timm/resnet18 is nearest, with 1 keys that differ: 'layer4.1.bn2.weight'",
    ):
        import_network(path, ImportSettings(normalize="none", image_size=32))
    state["layer4.1.bn2.weight"] = torch.zeros(512)
    with pytest.raises(ValueError, match="do not tell how large the images are"):
        import_network(save(state, path, "zip"), ImportSettings(normalize="none"))


@pytest.mark.parametrize(
    "settings",
    [
        {"mean": (0.5,)},
        {"mean": (0.5,), "std": (0.0,)},
        {"mean": (0.5,), "std": (0.5,), "normalize": "none"},
        {"classes": 1},
        {"image_size": 0},
        {"normalize": "mnist"},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError):
        ImportSettings(**settings)


@pytest.mark.parametrize(
    "name",
    [
        "wrn-34-10",
        "timm/resnet50",
        "timm/wide_resnet50_2",
        "wide_resnet50_4",
        "resnet50_cifar",
        "timm/convnext_small",
        "convnext_base_cvst",
        "convnext_large_cvst",
        "vit_small_cvst",
        "timm/vit_base_patch16_224",
    ],
)
def test_networks_are_told_from_their_shapes(name):
    shapes = skeleton_shapes(NetworkSettings(name=name), (3, 224, 224), 1000)
    assert guess_network(shapes, 1000, 3, 224) == name
    told = 32 if name in ("wrn-34-10", "resnet50_cifar") else 224 if "vit" in name else None
    assert image_size_of(shapes) == told


@pytest.mark.parametrize("shape", [(), (0, 16, 3, 3), (24, 16, 3, 3), (16, 16)], ids=str)
def test_first_blocks_of_no_wide_resnet(shape):
    assert wide_resnet_name({"block1.layer.0.conv1.weight": shape}) == ""
