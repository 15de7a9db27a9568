"""Other systems' names of layers as ours, and what their files tell of the network beyond names and shapes.

Sources: the published code of JEM, JEM++ and SADA-JEM; DeepMind's of Gowal et al. and Rebuffi et al., as RobustBench has
it; MadryLab's robustness library and RobustBench for CIFAR's ResNets and for wide ResNets with an unused sub-block.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dualat.system.pickles.values import StoredTensor

Tensors = dict[str, StoredTensor]


@dataclass
class Family:
    """One way of naming layers.

    Attributes:
        name: whose it is, for people.
        belongs: whether these tensors are named so.
        rules: (pattern, ours), applied in turn; None drops what the pattern matches.
        settings: fields of NetworkSettings that follow.
        pixels: mean and standard deviation of its input normalisation, where its code fixes them.
    """

    name: str
    belongs: Callable[[Tensors], bool]
    rules: list[tuple[str, str | None]]
    settings: Callable[[Tensors], dict[str, Any]] = field(default=lambda tensors: {})
    pixels: tuple[float, float] | None = None


def _jem_settings(tensors: Tensors) -> dict[str, Any]:
    norm = "batch" if "bn1.running_mean" in tensors else "none"
    return {"activation": "leaky_relu", "norm": norm, "layout": "jem"}


def _is_cifar_resnet(tensors: Tensors) -> bool:
    stem = tensors.get("conv1.weight")
    return (
        stem is not None
        and stem.shape[2:] == (3, 3)
        and "linear.weight" in tensors
        and "layer4.0.bn1.weight" in tensors
    )


FAMILIES = [
    Family(
        "JEM, JEM++ or SADA-JEM",
        lambda tensors: "class_output.weight" in tensors and "f.conv1.weight" in tensors,
        [
            (r"energy_output\..*|f\.linear\..*|f\.layer_one\..*|f\.other_layers\..*", None),
            (r"f\.layer([123])\.(\d+)\.shortcut\.0\.(.*)", r"block\1.layer.\2.convShortcut.\3"),
            (r"f\.layer([123])\.(\d+)\.(.*)", r"block\1.layer.\2.\3"),
            (r"f\.(conv1|bn1)\.(.*)", r"\1.\2"),
            (r"class_output\.(.*)", r"fc.\1"),
        ],
        _jem_settings,
        (0.5, 0.5),
    ),
    Family(
        "DeepMind's wide ResNet, as in RobustBench",
        lambda tensors: "init_conv.weight" in tensors and "logits.weight" in tensors,
        [
            (r"init_conv\.(.*)", r"conv1.\1"),
            *(
                (rf"layer\.{i}\.block\.(\d+)\.{theirs}\.(.*)", rf"block{i + 1}.layer.\1.{ours}.\2")
                for i in range(3)
                for theirs, ours in (
                    *(("batchnorm_0", "bn1"), ("conv_0", "conv1"), ("batchnorm_1", "bn2")),
                    *(("conv_1", "conv2"), ("shortcut", "convShortcut")),
                )
            ),
            (r"batchnorm\.(.*)", r"bn1.\1"),
            (r"logits\.(.*)", r"fc.\1"),
        ],
        lambda tensors: {"activation": "silu", "layout": "deepmind"},
    ),
    Family(
        "a ResNet for CIFAR, as in MadryLab's library and RobustBench",
        _is_cifar_resnet,
        [
            (r"(layer\d\.\d+)\.shortcut\.(.*)", r"\1.downsample.\2"),
            (r"linear\.(.*)", r"fc.\1"),
        ],
    ),
    Family(
        "a wide ResNet, as in TRADES, RobustBench, RATIO and DAT",
        lambda tensors: "block1.layer.0.conv1.weight" in tensors,
        [(r"sub_block1\..*", None)],
    ),
    Family(
        "a network with convolutional stem (Singh et al.)",
        lambda tensors: "stem.stem.0.weight" in tensors or "patch_embed.proj.stem.0.weight" in tensors,
        [],
    ),
    Family("a plain state dict", lambda tensors: True, []),
]


def translate(tensors: Tensors) -> tuple[Family, Tensors, dict[str, Any]]:
    """The family that names its tensors so, the tensors under our names, and the settings that follow."""
    family = next(family for family in FAMILIES if family.belongs(tensors))
    renamed: Tensors = {}
    for name, value in tensors.items():
        for pattern, ours in family.rules:
            if match := re.fullmatch(pattern, name):
                if ours is not None:
                    renamed[match.expand(ours)] = value
                break
        else:
            renamed[name] = value
    return family, renamed, family.settings(renamed)


def origin(marks: set[str], family: Family) -> str:
    """Whose file it is, by its wrappers and its names of layers."""
    wrapper = next((whose for mark, whose in _WRAPPERS if mark in marks), "")
    if family is FAMILIES[-1] and wrapper:
        return wrapper
    return f"{wrapper}: {family.name}" if wrapper else family.name


_WRAPPERS = (
    ("attacker.", "MadryLab robustness checkpoint"),
    ("n_averaged", "averaged weights of DAT or RATIO"),
    ("base_model.", "weights in an attack's wrapper"),
)
