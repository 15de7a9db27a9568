"""Any timm classifier by name: ResNets, wide_resnet50_2, ConvNeXt, ViT and hundreds more."""

from typing import Any

from torch import nn


def timm_model(
    name: str, classes: int, channels: int, image_size: int, pretrained: bool = False, drop_path: float = 0.0
) -> nn.Module:
    """The timm network `name` with `classes` logits for images of `channels` channels and `image_size` pixels.

    Raises ValueError with the nearest names where timm knows no such network.
    """
    import timm

    if not timm.is_model(name):
        import difflib

        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise ValueError(f"timm has no network {name!r}{hint}.")
    settings: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    if drop_path:
        settings["drop_path_rate"] = drop_path
    try:
        return timm.create_model(name, pretrained=pretrained, img_size=image_size, **settings)
    except TypeError:  # fully convolutional networks take any size and no img_size
        pass
    try:
        return timm.create_model(name, pretrained=pretrained, **settings)
    except TypeError as error:
        raise ValueError(f"timm's {name} cannot be made with drop_path = {drop_path}: {error}.") from error
