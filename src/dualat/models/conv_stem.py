"""ConvNeXt and ViT with a convolutional stem in place of timm's single patchifying convolution.

Source: Singh, Croce and Hein, "Revisiting adversarial training for ImageNet" (NeurIPS 2023). Stems of 3x3 convolutions,
each followed by LayerNorm over channels and GELU:
    ConvNeXt-T, -S  3 -> 48 -> 96, strides 2, 2
    ConvNeXt-B      3 -> 64 -> 96 -> 128, strides 2, 2, 1
    ConvNeXt-L      3 -> 96 -> 144 -> 192, strides 2, 2, 1
    ViT-S, ViT-B    3 -> 48 -> 96 -> 192 -> 384, strides 2, 2, 2, 2, then a 1x1 convolution to the embedding (384, 768)
The stem's modules are named as in the published weights: stem.stem.{i}, and patch_embed.proj.stem.{i} in a ViT.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from dualat.models.timm_models import timm_model

STEMS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], int | None]] = {
    "convnext_tiny_cvst": ("convnext_tiny", (48, 96), (2, 2), None),
    "convnext_small_cvst": ("convnext_small", (48, 96), (2, 2), None),
    "convnext_base_cvst": ("convnext_base", (64, 96, 128), (2, 2, 1), None),
    "convnext_large_cvst": ("convnext_large", (96, 144, 192), (2, 2, 1), None),
    "vit_small_cvst": ("vit_small_patch16_224", (48, 96, 192, 384), (2, 2, 2, 2), 384),
    "vit_base_cvst": ("vit_base_patch16_224", (48, 96, 192, 384), (2, 2, 2, 2), 768),
}
"""Our name: timm's network, the stem's widths and strides, and the embedding's width where a 1x1 convolution ends it."""


class ConvStem(nn.Module):
    """gelu(norm(conv(x))), once per width; images (N, C, H, W) to (N, D, H / product of strides, W / ...)."""

    def __init__(self, channels: int, widths: Sequence[int], strides: Sequence[int], embedding: int | None):
        super().__init__()
        from timm.layers import LayerNorm2d  # pyright: ignore[reportPrivateImportUsage]

        layers: list[nn.Module] = []
        inputs = channels
        for width, stride in zip(widths, strides, strict=True):
            layers += [nn.Conv2d(inputs, width, 3, stride, 1), LayerNorm2d(width, eps=1e-6), nn.GELU()]
            inputs = width
        if embedding is not None:
            layers.append(nn.Conv2d(inputs, embedding, 1))
        self.stem = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):  # as timm initialises ConvNeXt
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        return self.stem(x)


def conv_stem_network(
    name: str, classes: int, channels: int, image_size: int, drop_path: float = 0.0
) -> nn.Module:
    """The network `name`, a key of STEMS, with `classes` logits for images of `channels` channels.

    Raises ValueError for a ViT whose image size is no multiple of 16.
    """
    base, widths, strides, embedding = STEMS[name]
    if embedding is not None and image_size % 16:
        raise ValueError(f"{name} takes images whose side is a multiple of 16 pixels, not {image_size}.")
    network = timm_model(base, classes, channels, image_size, drop_path=drop_path)
    stem = ConvStem(channels, widths, strides, embedding)
    if embedding is None:
        network.stem = stem
    else:
        network.patch_embed.proj = stem  # pyright: ignore[reportAttributeAccessIssue]
    return network
