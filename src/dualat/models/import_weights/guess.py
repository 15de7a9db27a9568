"""Which network has weights of these names and shapes."""

import re
from collections.abc import Iterator

from torch import nn

from dualat.models.import_weights.skeleton import Shapes, skeleton, skeleton_shapes
from dualat.models.registry import NETWORKS
from dualat.models.settings import NetworkSettings
from dualat.system.pickles.values import Refused, StoredTensor

_HEADS = ("fc.weight", "head.fc.weight", "head.weight", "classifier.weight")
_FIRST = (
    *("conv1.weight", "stem.0.weight", "stem.stem.0.weight"),
    *("patch_embed.proj.weight", "patch_embed.proj.stem.0.weight"),
)
_RESIDUAL = (
    *("timm/resnet18", "timm/resnet34", "timm/resnet50", "timm/resnet101", "timm/resnet152"),
    *("timm/wide_resnet50_2", "timm/wide_resnet101_2", "timm/resnext50_32x4d"),
)
_CONVNEXT = ("timm/convnext_tiny", "timm/convnext_small", "timm/convnext_base", "timm/convnext_large")
_VIT = (
    *("timm/vit_tiny_patch16_224", "timm/vit_small_patch16_224", "timm/vit_base_patch16_224"),
    "timm/vit_large_patch16_224",
)


def shapes_of(tensors: dict[str, StoredTensor]) -> Shapes:
    return {name: tensor.shape for name, tensor in tensors.items()}


def guess_network(shapes: Shapes, classes: int, channels: int, image_size: int) -> str:
    """The name of the network whose state dict has these names and shapes, to the last one.

    A wide ResNet is told by its first block, so that what does not fit can be listed.

    Raises Refused with the nearest network where none fits.
    """
    if name := wide_resnet_name(shapes):
        return name
    nearest, fewest = "", set(shapes)
    for name in candidates(shapes):
        try:
            own = skeleton_shapes(NetworkSettings(name=name), (channels, image_size, image_size), classes)
        except ValueError:  # a ViT does not take every size
            continue
        wrong = {k for k in own.keys() | shapes.keys() if own.get(k) != shapes.get(k) and not counter(k)}
        if not wrong:
            return name
        if len(wrong) < len(fewest):
            nearest, fewest = name, wrong
    first = ", ".join(map(repr, sorted(fewest)[:3])) + (" ..." if len(fewest) > 3 else "")
    hint = f" ({nearest} is nearest, with {len(fewest)} keys that differ: {first})" if nearest else ""
    raise Refused(
        f"the network cannot be told from the names and shapes of its weights{hint}: name it, as in "
        "--network timm/resnet50"
    )


def candidates(shapes: Shapes) -> Iterator[str]:
    """Networks worth a look, by a name that their kind always has."""
    for mark, names in (
        ("layer1.0.conv1.weight", (*_RESIDUAL, *(n for n in NETWORKS if "resnet" in n))),
        ("stages.0.blocks.0.conv_dw.weight", (*_CONVNEXT, *(n for n in NETWORKS if "convnext" in n))),
        ("blocks.0.attn.qkv.weight", (*_VIT, *(n for n in NETWORKS if "vit" in n))),
    ):
        if mark in shapes:
            yield from names


def wide_resnet_name(shapes: Shapes) -> str:
    """wrn-DEPTH-WIDTH, or nothing: depth is 6n + 4 for n blocks a group, width the first block's over 16."""
    blocks = [
        int(m[1]) for key in shapes if (m := re.fullmatch(r"block1\.layer\.(\d{1,3})\.conv1\.weight", key))
    ]
    first = shapes.get("block1.layer.0.conv1.weight", ())
    if not blocks or len(first) != 4 or not first[0] or first[0] % 16:
        return ""
    return f"wrn-{6 * (max(blocks) + 1) + 4}-{first[0] // 16}"


def counter(name: str) -> bool:
    """BatchNorm's count of batches, which weights of old torch lack and no result depends on."""
    return name.endswith(".num_batches_tracked")


def classes_of(shapes: Shapes) -> int | None:
    """Rows of the last layer; None where no layer is named as one."""
    found = next((shapes[name] for name in _HEADS if len(shapes.get(name, ())) in (2, 4)), None)
    return found[0] if found else None


def first_layer(shapes: Shapes, network: str | None, classes: int, image_size: int) -> str | None:
    """Name of the weights that meet the images: those of the network's first convolution, where it is known, else by the
    names of the networks that can be told from their weights. The order of a file says nothing: safetensors sort it.

    Raises ValueError where there is no such network.
    """
    if network is None:
        return next((name for name in _FIRST if name in shapes), None)
    layers = skeleton(NetworkSettings(name=network), (3, image_size, image_size), classes).named_modules()
    convolutions = [name for name, m in layers if isinstance(m, nn.Conv2d) and m.in_channels == 3]
    return f"{convolutions[0]}.weight" if convolutions else None


def channels_of(shapes: Shapes, first: str | None) -> int:
    """Image channels: inputs of the convolution that has the weights `first`; 3 where there is none."""
    shape = shapes.get(first or "", ())
    return shape[1] if len(shape) == 4 else 3


def image_size_of(shapes: Shapes) -> int | None:
    """Side of the images where the weights tell it: a ViT's positions, one of them for the class, patches of 16; 32 for
    wide ResNets and CIFAR's ResNets, which take any. None where they do not."""
    if positions := shapes.get("pos_embed"):
        side = round(max(positions[1] - 1, 0) ** 0.5) if len(positions) == 3 else 0
        return 16 * side if side and side * side == positions[1] - 1 else None
    stem = shapes.get("conv1.weight", ())
    return 32 if stem[2:] == (3, 3) else None
