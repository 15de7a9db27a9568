"""Pre-activation wide ResNet (Zagoruyko and Komodakis, 2016) of any depth 6n + 4, width, and number of channels.

Module names are those of published robust weights: conv1, block{1,2,3}.layer.{i}.{bn1,conv1,bn2,conv2,
convShortcut}, bn1, fc. Average pooling runs over whatever is left of the image, so that any size fits.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {"relu": F.relu, "silu": F.silu}


class Block(nn.Module):
    """x + conv(act(bn(conv(act(bn(x)))))); where the shape changes, the shortcut is a 1x1 convolution of
    act(bn(x)), as in published weights."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: str):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = inputs == outputs and stride == 1
        self.convShortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(h)
        return shortcut + self.conv2(self.activation(self.bn2(self.conv1(h))))


class Group(nn.Module):
    """n blocks, the first of which changes width and resolution."""

    def __init__(self, blocks: int, inputs: int, outputs: int, stride: int, activation: str):
        super().__init__()
        first = Block(inputs, outputs, stride, activation)
        self.layer = nn.Sequential(
            first, *(Block(outputs, outputs, 1, activation) for _ in range(blocks - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(nn.Module):
    """WRN-depth-width.

    Args:
        depth: 6n + 4 layers, at least 10.
        width: multiplies the widths 16, 32, 64 of the three groups.
        classes: number of logits K.
        channels: image channels C.
        activation: "relu" or "silu".

    Raises ValueError for a depth that is not 6n + 4, a width below 1, or an unknown activation.
    """

    def __init__(self, depth: int, width: int, classes: int, channels: int = 3, activation: str = "relu"):
        super().__init__()
        if depth < 10 or (depth - 4) % 6 or width < 1:
            raise ValueError(
                f"a wide ResNet has depth 6n + 4 (10, 16, 22, 28, 34 ...) and width 1 or more, "
                f"not depth {depth} and width {width}."
            )
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}, but must be one of {', '.join(ACTIVATIONS)}.")
        blocks, widths = (depth - 4) // 6, (16, 16 * width, 32 * width, 64 * width)
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.block1 = Group(blocks, widths[0], widths[1], 1, activation)
        self.block2 = Group(blocks, widths[1], widths[2], 2, activation)
        self.block3 = Group(blocks, widths[2], widths[3], 2, activation)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], classes)
        self.activation = ACTIVATIONS[activation]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W), H and W at least 4."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(self.activation(self.bn1(x)).mean(dim=(2, 3)))
