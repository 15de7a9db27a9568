"""Settings of the network. Does not import PyTorch: the command line reads this file."""

import math
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Literal

from dualat.models.registry import NETWORKS, OWN, is_registered
from dualat.strict import strict
from dualat.types import Activation


def check_statistics(mean: Sequence[float], std: Sequence[float]) -> None:
    """ValueError unless mean and standard deviation, per channel, can be those of images in [0, 1]."""
    if not all(map(math.isfinite, (*mean, *std))) or min(std, default=1) <= 0:
        raise ValueError(
            f"normalisation needs finite means and standard deviations above 0, not {mean} and {std}."
        )
    least, most = -1e-6, 1 + 1e-6  # as float32 rounds
    if not all(least <= value <= most for value in (*mean, *std)):
        raise ValueError(
            f"mean {tuple(mean)} and standard deviation {tuple(std)} are not those of images in [0, 1]: divide both by 255 where "
            "they are of pixels from 0 to 255."
        )


OF_WIDE_RESNETS = ("activation", "norm", "layout")
"""Settings that wide ResNets for small images alone read."""


def is_wide_resnet(name: str) -> bool:
    """Whether this is the name of a wide ResNet for small images."""
    return re.fullmatch(r"wrn-\d+-\d+", name) is not None


@strict
class NetworkSettings:
    name: str = "wrn-28-10"
    """Network: `wrn-DEPTH-WIDTH` (pre-activation wide ResNet, depth = 6n + 4); `timm/NAME` for any timm classifier, as in
    `timm/resnet50`; `wide_resnet50_4`; `resnet18_cifar`, `resnet50_cifar` (3x3 stem); or, with a convolutional stem,
    `convnext_tiny_cvst`, `convnext_small_cvst`, `convnext_base_cvst`, `convnext_large_cvst`, `vit_small_cvst`,
    `vit_base_cvst`."""
    activation: Activation = "relu"
    """Activation of a wide ResNet; leaky_relu with slope 0.2, as in JEM."""
    norm: Literal["batch", "none"] = "batch"
    """Normalisation layers of a wide ResNet; none, as in JEM and SADA-JEM."""
    layout: Literal["standard", "jem", "deepmind", "antialiased"] = "standard"
    """What a wide ResNet's block computes: as in TRADES, RATIO and DAT; as in JEM, JEM++ and SADA-JEM (biased
    convolutions, stride in the second, shortcut of the block's input); as in DeepMind's robust weights; or antialiased,
    with 2x2 means in place of strides, which takes the chequer out of samples."""
    batchnorm_momentum: float | None = None
    """Weight of a batch in BatchNorm's running statistics, in (0, 1], 0.9 in JEM++ and SADA-JEM; None: the network's own,
    which is mostly 0.1."""
    normalize: Literal["data", "none"] = "data"
    """Input normalisation inside the network: mean and standard deviation of the training images per channel, or none."""
    pretrained: bool = False
    """timm only: start from timm's published weights (downloads them from the hub)."""
    drop_path: float = 0.0
    """All but wide ResNets for small images: stochastic depth rate, 0 to 1, for networks that have it."""
    checkpoint_activations: bool = False
    """Keep the blocks' inputs alone for the backward pass and compute their activations twice, where memory is short."""

    @property
    def is_own(self) -> bool:
        """Whether it is somebody's own: given in Python, or registered."""
        return self.name == OWN or is_registered(self.name)

    def __post_init__(self) -> None:
        is_timm = self.name.startswith("timm/")
        wide = re.fullmatch(r"wrn-(\d+)-(\d+)", self.name)
        if wide and (len(wide[1]) > 4 or len(wide[2]) > 3):
            raise ValueError(
                f"a wide ResNet has a depth below 10,000 and a width below 1,000, not {self.name[:40]}."
            )
        if self.batchnorm_momentum is not None and not 0 < self.batchnorm_momentum <= 1:
            raise ValueError(
                f"batchnorm_momentum is {self.batchnorm_momentum}, but must be above 0, and at most 1."
            )
        if self.batchnorm_momentum is not None and self.norm == "none":
            raise ValueError("batchnorm_momentum does nothing with norm none: leave it out, in YAML null.")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is {self.drop_path}, but must be in [0, 1).")
        if not is_timm and self.pretrained:
            raise ValueError(
                "pretrained needs a timm network: give `weights` to start another network from a file."
            )
        if self.drop_path and not is_timm and (self.name not in NETWORKS or is_registered(self.name)):
            raise ValueError(
                f"drop_path does not work with {self.name!r}: set it to 0 for a wide ResNet, or one of your own."
            )
        if is_timm or self.name in NETWORKS or self.name == OWN:
            for entry in fields(self):
                if entry.name in OF_WIDE_RESNETS and getattr(self, entry.name) != entry.default:
                    raise ValueError(
                        f"{entry.name} chooses that of a wide ResNet wrn-DEPTH-WIDTH: leave it at {entry.default!r} "
                        f"for {self.name!r}."
                    )
