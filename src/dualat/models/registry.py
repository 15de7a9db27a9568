"""From a network's name to the network, normalisation included. Importing this file imports no PyTorch.

To add one: its code in a file of its own, and its row here. From a file outside the package, `register_network`.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from dualat.system.plugins import LOAD

if TYPE_CHECKING:
    from torch import nn

    from dualat.models.settings import NetworkSettings

Builder = TypeVar("Builder", bound=Callable[..., "nn.Module"])
OWN = "own"
"""Name of a network that is given in Python."""
NETWORKS: dict[str, str | Callable[..., "nn.Module"]] = {
    "wide_resnet50_4": "residual:residual_network",
    "resnet18_cifar": "residual:residual_network",
    "resnet50_cifar": "residual:residual_network",
    "convnext_tiny_cvst": "conv_stem:conv_stem_network",
    "convnext_small_cvst": "conv_stem:conv_stem_network",
    "convnext_base_cvst": "conv_stem:conv_stem_network",
    "convnext_large_cvst": "conv_stem:conv_stem_network",
    "vit_small_cvst": "conv_stem:conv_stem_network",
    "vit_base_cvst": "conv_stem:conv_stem_network",
}
"""By name, all but wide ResNets for small images and timm's: module:function, which takes (name, classes, channels,
image_size, drop_path); or somebody's own function of (shape, classes), which `register_network` adds."""


def is_registered(name: str) -> bool:
    """Whether somebody's own function has this name."""
    return callable(NETWORKS.get(name))


def register_network(name: str) -> Callable[[Builder], Builder]:
    """A decorator that makes a function a network, known by its name as `network.name`, in Python and in recipes.

        @dualat.register_network("mine")
        def mine(shape, classes):
            return MyNetwork(shape[0], classes)

    The function is given the shape (C, H, W) of the images and the number K of classes, and returns a new module from images
    (N, C, H, W) to logits (N, K). They come normalised by mean and standard deviation of the training images, unless
    `network.normalize` is none. A name that was registered before gets the new function.

    Raises:
        ValueError: a name of dualat's, or with characters other than letters, digits, - and _.
    """
    if name == OWN or isinstance(NETWORKS.get(name), str) or re.fullmatch(r"wrn-\d+-\d+", name):
        raise ValueError(f"network {name!r} is one of dualat's: give yours another name.")
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"a network cannot be named {name!r}: take letters, digits, - and _ alone.")

    def register(builder: Builder) -> Builder:
        NETWORKS[name] = builder
        return builder

    return register


def build_network(
    settings: "NetworkSettings",
    shape: Sequence[int],
    classes: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> "nn.Module":
    """The network that the settings name, in float32.

    Args:
        settings: name, activation and so on.
        shape: (C, H, W) of the images.
        classes: number of logits K, at least 2.
        mean, std: per channel, in [0, 1]; both None: no normalisation.

    Raises ValueError where the name is unknown; the sentence says which there are, and which is near.
    """
    from dualat.models.batchnorm import batchnorm_modules
    from dualat.models.checkpointing import checkpoint_blocks
    from dualat.models.normalize import Normalized
    from dualat.system.precision import float32_by_default

    if classes < 2:
        raise ValueError(f"a classifier needs at least 2 classes, but the data has {classes}.")
    with float32_by_default():
        network = _bare(settings, shape, classes)
        if settings.batchnorm_momentum is not None:
            for layer in batchnorm_modules(network):
                layer.momentum = settings.batchnorm_momentum
        if settings.checkpoint_activations:
            checkpoint_blocks(network)
        return network if mean is None or std is None else Normalized(network, mean, std)


def _bare(settings: "NetworkSettings", shape: Sequence[int], classes: int) -> "nn.Module":
    """The network itself."""
    name, (channels, height, width), drop_path = settings.name, shape, settings.drop_path
    if name == OWN:
        raise ValueError(
            "this network was given in Python, and only there: pass it, as in dualat.train(recipe, model=my_module) or "
            "dualat.load(path, network=my_module)."
        )
    if name.startswith("timm/"):
        from dualat.models.timm_models import timm_model

        return timm_model(
            name.removeprefix("timm/"), classes, channels, height, settings.pretrained, drop_path
        )
    if match := re.fullmatch(r"wrn-(\d+)-(\d+)", name):
        from dualat.models.wide_resnet import WideResNet

        kind = settings.activation, settings.norm, settings.layout
        return WideResNet(int(match[1]), int(match[2]), classes, channels, *kind)
    if name not in NETWORKS:
        raise ValueError(unknown_name(name))
    home = NETWORKS[name]
    if isinstance(home, str):
        module, _, function = home.partition(":")
        builder = getattr(import_module(f"dualat.models.{module}"), function)
        return builder(name, classes, channels, height, drop_path)
    network = home((channels, height, width), classes)
    if not hasattr(network, "state_dict"):
        raise ValueError(f"the network {name!r} gave {network!r:.60}: give a torch.nn.Module.")
    return network


def unknown_name(name: str) -> str:
    """What to say of a name that no network has."""
    near = difflib.get_close_matches(name, [*NETWORKS, "wrn-28-10", "wrn-34-10"], n=2)
    if name:
        import timm

        near = [f"timm/{name}", *near] if timm.is_model(name) else near
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return (
        f"network {name!r} is unknown.{hint} Give wrn-DEPTH-WIDTH, as in wrn-28-10, timm/NAME, as in timm/resnet50, "
        f"or one of {', '.join(NETWORKS)}; {LOAD}."
    )
