"""Networks and checkpoints as other systems make them, written from the descriptions of their code: small, and apart
from ours, so that equal logits mean something."""

import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualat.models.import_weights.convert import Imported
from dualat.models.wide_resnet import WideResNet


def settled(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights, biases and statistics that are all different from what a fresh network has; eval mode."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter) if parameter.dim() == 4 else nn.init.normal_(
                    parameter, 0, 0.1
                )
            else:
                nn.init.uniform_(parameter, 0.5, 1.5 if name.endswith("weight") else 0.7)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # pyright: ignore[reportOptionalMemberAccess]
                module.running_var.uniform_(0.5, 1.5)  # pyright: ignore[reportOptionalMemberAccess]
                module.num_batches_tracked.fill_(7)  # pyright: ignore[reportOptionalMemberAccess]
    return network.eval()


class JemBlock(nn.Module):
    """JEM's: all convolutions biased, the second strides, the shortcut is of the input."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: bool):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs) if norm else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride=stride, padding=1)
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(*([nn.Conv2d(inputs, outputs, 1, stride)] if changes else []))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.leaky_relu(self.bn1(x), 0.2))
        return self.conv2(F.leaky_relu(self.bn2(h), 0.2)) + self.shortcut(x)


class JemFeatures(nn.Module):
    def __init__(self, blocks: int, width: int, channels: int, norm: bool, size: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1)
        inputs = 16
        for group, outputs in enumerate((16 * width, 32 * width, 64 * width), 1):
            layers = []
            for i in range(blocks):
                layers.append(JemBlock(inputs, outputs, 2 if group > 1 and i == 0 else 1, norm))
                inputs = outputs
            setattr(self, f"layer{group}", nn.Sequential(*layers))
        self.bn1 = nn.BatchNorm2d(inputs) if norm else nn.Identity()
        self.linear = nn.Linear(inputs, 10)  # never used
        self.size = size // 4

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return F.avg_pool2d(F.leaky_relu(self.bn1(x), 0.2), self.size).flatten(1)


class Jem(nn.Module):
    """Takes pixels in [-1, 1]."""

    def __init__(self, depth: int, width: int, classes: int, channels: int, norm: bool, size: int):
        super().__init__()
        self.f = JemFeatures((depth - 4) // 6, width, channels, norm, size)
        self.energy_output = nn.Linear(64 * width, 1)
        self.class_output = nn.Linear(64 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.class_output(self.f(x))


class DeepMindBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.batchnorm_0 = nn.BatchNorm2d(inputs)
        self.conv_0 = nn.Conv2d(inputs, outputs, 3, stride, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(outputs)
        self.conv_1 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.padding = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.batchnorm_0(x))
        shortcut = x if self.shortcut is None else self.shortcut(h)
        h = self.conv_0(F.pad(h, self.padding))
        return shortcut + self.conv_1(F.silu(self.batchnorm_1(h)))


class DeepMindGroup(nn.Module):
    def __init__(self, blocks: list[nn.Module]):
        super().__init__()
        self.block = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class DeepMind(nn.Module):
    """Its mean and deviation are buffers of shape (C, 1, 1)."""

    def __init__(self, depth: int, width: int, classes: int, mean: list[float], std: list[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.init_conv = nn.Conv2d(len(mean), 16, 3, padding=1, bias=False)
        groups, inputs = [], 16
        for group, outputs in enumerate((16 * width, 32 * width, 64 * width)):
            blocks: list[nn.Module] = []
            for i in range((depth - 4) // 6):
                blocks.append(DeepMindBlock(inputs, outputs, 2 if group and i == 0 else 1))
                inputs = outputs
            groups.append(DeepMindGroup(blocks))
        self.layer = nn.Sequential(*groups)
        self.batchnorm = nn.BatchNorm2d(inputs)
        self.logits = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(self.init_conv((x - self.mean) / self.std))
        return self.logits(F.silu(self.batchnorm(x)).mean((2, 3)))


class ChannelNorm(nn.Module):
    """LayerNorm over channels of (N, C, H, W), as in ConvNeXt's own code."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-6).sqrt()
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class Stem(nn.Module):
    """3x3 convolutions, each with norm and GELU; a 1x1 convolution at the end where `last` says how wide."""

    def __init__(self, widths: list[int], strides: list[int], last: int | None = None, channels: int = 3):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride in zip([channels, *widths], widths, strides, strict=False):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride, padding=1),
                ChannelNorm(outputs),
                nn.GELU(),
            ]
        self.stem = nn.Sequential(*layers, *([nn.Conv2d(widths[-1], last, 1)] if last else []))

    def forward(self, x: Tensor) -> Tensor:
        return self.stem(x)


def prefixed(state: dict[str, Tensor], prefix: str) -> "OrderedDict[str, Tensor]":
    return OrderedDict((prefix + name, value) for name, value in state.items())


def small_weights() -> "OrderedDict[str, Tensor]":
    """WRN-10-1 for two classes of grey pictures of 8x8."""
    return OrderedDict(settled(WideResNet(10, 1, 2, 1)).state_dict())


def binary(text: str) -> bytes:
    """The opcode that pushes a text, with the text."""
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def pictures(*shape: int) -> Tensor:
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))


def same_logits(imported: Imported, theirs: nn.Module, mean=(0.0,), std=(1.0,)) -> None:
    """The imported network on pixels in [0, 1], theirs on pixels normalised by hand."""
    x = pictures(*imported.shape)
    spread = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)
    with torch.no_grad():
        expected, found = theirs((x - spread[0]) / spread[1]), imported.network(x)
    assert expected.std() > 1e-2  # logits that say something
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def wide(depth: int = 10, width: int = 2, classes: int = 5, **settings) -> nn.Module:
    return settled(WideResNet(depth, width, classes, 3, **settings))


def save(value: object, path: Path, how: str) -> Path:
    """how: "zip" (torch), "before 1.6" (torch), or "plain pickle"."""
    if how == "plain pickle":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=how == "zip")
    return path
