"""From a file to a network: what is changed on the way, what goes before what, and what is refused by name."""

import math
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torchvision
from foreign_networks import same_logits, save, settled, wide
from safetensors.torch import save_file
from torch import nn

from dualat.models.import_weights.convert import Mismatch, import_network
from dualat.models.import_weights.files import read_file
from dualat.models.import_weights.guess import (
    channels_of,
    first_layer,
    guess_network,
    image_size_of,
    wide_resnet_name,
)
from dualat.models.import_weights.settings import ImportSettings
from dualat.models.import_weights.skeleton import skeleton_shapes
from dualat.models.import_weights.states import find_state
from dualat.models.normalize import Normalized
from dualat.models.registry import build_network
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
        ({}, {"mean": (0.1, 0.2), "std": (1.0, 1.0)}, "2 means and 2 standard deviations for 3 channels"),
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
        {"mean": (125.3, 123.0, 113.9), "std": (63.0, 62.1, 66.7)},
        {"mean": (-0.1,), "std": (0.5,)},
        {"mean": (0.5,), "std": (1.5,)},
        {"mean": (math.nan,), "std": (0.5,)},
        {"classes": 1},
        {"image_size": 0},
        {"normalize": "mnist"},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError):
        ImportSettings(**settings)


def test_statistics_of_pixels_from_0_to_255_are_refused_wherever_they_come_from(tmp_path: Path):
    """Taken for images in [0, 1] they make every input nearly the same."""
    units = r"mean \(125.3,\) and standard deviation \(63.0,\) are not those of images in \[0, 1\]: divide .* by 255"
    with pytest.raises(ValueError, match=units):
        ImportSettings(mean=(125.3,), std=(63.0,))
    with pytest.raises(ValueError, match=units):
        Normalized(nn.Identity(), [125.3], [63.0])
    state = wide(10, 1).state_dict() | {"mean": torch.full((3,), 125.3), "std": torch.full((3,), 63.0)}
    path = save(state, tmp_path / "w.pt", "zip")
    with pytest.raises(ValueError, match=r"its normalisation makes no sense: .* 125.3.*by 255"):
        import_network(path)
    imported = import_network(path, ImportSettings(mean=(125.3 / 255,), std=(63 / 255,)))
    same_logits(imported, wide(10, 1), (125.3 / 255,), (63 / 255,))
    ImportSettings(mean=(0.0,), std=(1 / 255,))  # of a network that takes pixels from 0 to 255
    ImportSettings(mean=(0.0,), std=(1.0,))


ANY_ORDER = {
    "wrn-10-1": None,
    "resnet18_cifar": None,
    "timm/resnext50_32x4d": None,  # groups of four
    "timm/convnext_tiny": None,
    "convnext_tiny_cvst": None,
    "vit_small_cvst": None,
    "timm/vit_tiny_patch16_224": None,
    "timm/convnext_atto": "timm/convnext_atto",
    "timm/efficientnet_lite0": "timm/efficientnet_lite0",
    "timm/mobilenetv3_small_050": "timm/mobilenetv3_small_050",
    "timm/regnetx_002": "timm/regnetx_002",
    "timm/test_coatnet": "timm/test_coatnet",
}
"""Networks, and what --network must say where their weights do not tell it."""


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", ANY_ORDER)
def test_channels_are_those_of_the_first_layer_in_whatever_order_the_file_has(name, channels):
    shapes = skeleton_shapes(NetworkSettings(name=name), (channels, 64, 64), 7)
    first = first_layer(shapes, ANY_ORDER[name], 7, 64)
    for keys in (sorted(shapes), sorted(shapes, reverse=True), list(shapes)):
        assert channels_of({key: shapes[key] for key in keys}, first) == channels


@pytest.mark.parametrize("name", ["wrn-10-1", "timm/mobilenetv3_small_050", "timm/test_efficientnet"])
def test_safetensors_import_as_the_same_weights_of_torch_do(tmp_path: Path, name):
    """Their keys are in sorted order: WRN, ConvNeXt, EfficientNet, MobileNetV3 and RegNet failed."""
    theirs = settled(build_network(NetworkSettings(name=name), (3, 32, 32), 5))
    settings = ImportSettings(
        network=None if name.startswith("wrn") else name, image_size=32, mean=(0.4,), std=(0.2,)
    )
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, tmp_path / "w.safetensors")
    save(theirs.state_dict(), tmp_path / "w.pth", "zip")
    for file in ("w.safetensors", "w.pth"):
        imported = import_network(tmp_path / file, settings)
        assert imported.shape == (3, 32, 32)
        same_logits(imported, theirs, (0.4,), (0.2,))


RAW, AVERAGED = {"a": torch.zeros(2), "b": torch.zeros(3)}, {"a": torch.ones(2), "b": torch.ones(3)}
CHECKPOINTS = {
    "ema_model": {"model": RAW, "ema_model": AVERAGED},
    "state_dict_ema": {"state_dict": RAW, "state_dict_ema": AVERAGED},
    "ema": {"model": RAW, "ema": AVERAGED, "opt": {"state": {}}},
    "ema.state_dict": {"state_dict": RAW, "ema": {"state_dict": AVERAGED, "decay": 0.999}},
    "ema.shadow": {"model": RAW, "ema": {"shadow": AVERAGED}},
    "model_ema_state_dict": {"model_state_dict": RAW, "model_ema_state_dict": AVERAGED},
    "swa_state_dict": {"state_dict": RAW, "swa_state_dict": AVERAGED},
    "averaged_model": {"net": RAW, "averaged_model": AVERAGED},
    "module_average": {"module": RAW, "module_average": AVERAGED},
}


@pytest.mark.parametrize("part", CHECKPOINTS)
def test_averaged_weights_go_first_under_whatever_name(tmp_path: Path, part):
    state = find_state(read_file(save(CHECKPOINTS[part], tmp_path / "w.pt", "zip")))
    assert state.part == part and torch.equal(state.tensors["b"].load(), torch.ones(3))
    assert len(state.other_parts) == 1


@pytest.mark.parametrize("other", ["exp_avg", "ema_optimizer", "optimizer_ema", "schema", "average_grads"])
def test_names_that_only_look_averaged_do_not(tmp_path: Path, other):
    path = save({"model": RAW, other: AVERAGED | {"c": torch.ones(4)}}, tmp_path / "w.pt", "zip")
    assert find_state(read_file(path)).part == "model"


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
