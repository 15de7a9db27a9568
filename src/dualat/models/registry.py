"""From a network's name to the network, normalisation included."""

import re
from collections.abc import Sequence

from torch import nn

from dualat.models.normalize import Normalized
from dualat.models.settings import NetworkSettings
from dualat.models.timm_models import timm_model
from dualat.models.wide_resnet import WideResNet


def build_network(
    settings: NetworkSettings,
    shape: Sequence[int],
    classes: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """The network that the settings name.

    Args:
        settings: name, activation and so on.
        shape: (C, H, W) of the images.
        classes: number of logits K, at least 2.
        mean, std: per channel, in [0, 1]; both None: no normalisation.

    Raises ValueError where the name is neither `wrn-DEPTH-WIDTH` nor `timm/NAME`.
    """
    if classes < 2:
        raise ValueError(f"a classifier needs at least 2 classes, but the data has {classes}.")
    channels, height, _ = shape
    if settings.name.startswith("timm/"):
        network = timm_model(
            settings.name.removeprefix("timm/"),
            classes,
            channels,
            height,
            settings.pretrained,
            settings.drop_path,
        )
    elif match := re.fullmatch(r"wrn-(\d+)-(\d+)", settings.name):
        network = WideResNet(int(match[1]), int(match[2]), classes, channels, settings.activation)
    else:
        raise ValueError(
            f"network {settings.name!r} is unknown: give wrn-DEPTH-WIDTH, as in wrn-28-10, or "
            "timm/NAME, as in timm/resnet50."
        )
    return network if mean is None or std is None else Normalized(network, mean, std)
