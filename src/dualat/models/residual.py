"""ResNets that timm does not name: Wide ResNet-50-4, and the CIFAR variants of ResNet-18 and ResNet-50.

Wide ResNet-50-4 is torchvision's wide_resnet50_2 with 3x3 convolutions four times as wide as ResNet-50's instead of
twice (base width 256; Salman et al., NeurIPS 2020). The CIFAR variants begin with a 3x3 convolution of stride 1 and no
pooling, as MadryLab's robustness library and RATIO have them. Names in the state dicts are torchvision's.
"""

from typing import Any

from torch import nn

BLOCKS = {
    "wide_resnet50_4": (3, 4, 6, 3),
    "resnet18_cifar": (2, 2, 2, 2),
    "resnet50_cifar": (3, 4, 6, 3),
}


def residual_network(
    name: str, classes: int, channels: int, image_size: int, drop_path: float = 0.0
) -> nn.Module:
    """The network `name`, a key of BLOCKS, with `classes` logits for images of `channels` channels and any size."""
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    block: Any = BasicBlock if name == "resnet18_cifar" else Bottleneck
    settings: dict[str, Any] = {"num_classes": classes, "in_chans": channels, "drop_path_rate": drop_path}
    if name == "wide_resnet50_4":
        return ResNet(block, BLOCKS[name], base_width=256, **settings)
    network = ResNet(block, BLOCKS[name], **settings)
    network.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network
