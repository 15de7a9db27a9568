"""Networks without values: their names and shapes, at no cost."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dualat.models.registry import build_network
from dualat.models.settings import NetworkSettings

Shapes = dict[str, tuple[int, ...]]
"""Shapes by name, as in a state dict."""


class NoValues(TorchFunctionMode):
    """Zeros in place of random initial values, which take a while: for networks that get all weights from a file, and
    for those without memory."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_) or (
            getattr(func, "__module__", "") == "torch.nn.init"
        ):
            return (args[0] if args else given["tensor"]).detach().zero_()
        return func(*args, **given)


def skeleton(settings: NetworkSettings, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The network without memory for its weights, where timm can make it so."""
    try:
        with torch.device("meta"), NoValues():
            return build_network(settings, shape, classes)
    except (NotImplementedError, RuntimeError):
        return build_network(settings, shape, classes)


def skeleton_shapes(settings: NetworkSettings, shape: tuple[int, int, int], classes: int) -> Shapes:
    return {
        name: tuple(value.shape) for name, value in skeleton(settings, shape, classes).state_dict().items()
    }


def differences(
    own: Shapes, found: Shapes, ignore: Callable[[str], bool] = lambda name: False
) -> dict[str, list[str]]:
    """Names of a file's weights that do not go with a network's, by what is wrong with them; of missing ones those that
    `ignore` names are nothing wrong."""
    wrong = {
        "missing": [name for name in own if name not in found and not ignore(name)],
        "unexpected": [name for name in found if name not in own],
        "of another shape": [name for name in own if name in found and own[name] != found[name]],
    }
    return {what: names for what, names in wrong.items() if names}


def counted(wrong: dict[str, list[str]]) -> str:
    """How many there are of each, for a sentence."""
    return ", ".join(f"{len(names)} {what} (first: {names[0]!r})" for what, names in wrong.items())
