"""From a network's name to the network, normalisation included."""

import difflib
import re
from collections.abc import Sequence

from torch import nn

from dualat.models.checkpointing import checkpoint_blocks
from dualat.models.conv_stem import STEMS, conv_stem_network
from dualat.models.normalize import Normalized
from dualat.models.residual import BLOCKS, residual_network
from dualat.models.settings import NAMED_NETWORKS, OWN, NetworkSettings
from dualat.models.timm_models import timm_model
from dualat.models.wide_resnet import WideResNet
from dualat.system.precision import float32_by_default


@float32_by_default()
def build_network(
    settings: NetworkSettings,
    shape: Sequence[int],
    classes: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """The network that the settings name, in float32.

    Args:
        settings: name, activation and so on.
        shape: (C, H, W) of the images.
        classes: number of logits K, at least 2.
        mean, std: per channel, in [0, 1]; both None: no normalisation.

    Raises ValueError where the name is unknown; the sentence says which there are, and which is near.
    """
    if classes < 2:
        raise ValueError(f"a classifier needs at least 2 classes, but the data has {classes}.")
    channels, height, _ = shape
    name, drop_path = settings.name, settings.drop_path
    if name == OWN:
        raise ValueError(
            "this network was given in Python, and only there: pass it, as in dualat.train(recipe, model=my_module) or "
            "dualat.load(path, network=my_module)."
        )
    if name.startswith("timm/"):
        network = timm_model(
            name.removeprefix("timm/"), classes, channels, height, settings.pretrained, drop_path
        )
    elif match := re.fullmatch(r"wrn-(\d+)-(\d+)", name):
        network = WideResNet(
            int(match[1]),
            int(match[2]),
            classes,
            channels,
            settings.activation,
            settings.norm,
            settings.layout,
        )
    elif name in BLOCKS:
        network = residual_network(name, classes, channels, drop_path)
    elif name in STEMS:
        network = conv_stem_network(name, classes, channels, height, drop_path)
    else:
        raise ValueError(unknown_name(name))
    if settings.checkpoint_activations:
        checkpoint_blocks(network)
    return network if mean is None or std is None else Normalized(network, mean, std)


def unknown_name(name: str) -> str:
    """What to say of a name that no network has."""
    near = difflib.get_close_matches(name, [*NAMED_NETWORKS, "wrn-28-10", "wrn-34-10"], n=2)
    if name:
        import timm

        near = [f"timm/{name}", *near] if timm.is_model(name) else near
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return (
        f"network {name!r} is unknown.{hint} Give wrn-DEPTH-WIDTH, as in wrn-28-10, timm/NAME, as in timm/resnet50, "
        f"or one of {', '.join(NAMED_NETWORKS)}."
    )
