"""Pre-activation wide ResNet (Zagoruyko and Komodakis, 2016) of any depth 6n + 4, width, and number of channels.

Module names are those of published robust weights: conv1, block{1,2,3}.layer.{i}.{bn1,conv1,bn2,conv2,
convShortcut}, bn1, fc. Average pooling runs over whatever is left of the image, so that any size fits.

Layouts differ in what a block computes; published weights come in the first three:
    standard  TRADES, RobustBench, RATIO, DAT. The shortcut is a convolution of act(bn(x)); the first convolution strides.
    jem       JEM, JEM++, SADA-JEM. The shortcut is a convolution of x; the second convolution strides; all have biases.
              Initial weights are PyTorch's, of the others normal by fan-out.
    deepmind  Gowal et al., Rebuffi et al., Wang et al. As standard, but a strided 3x3 convolution pads below and to the
              right alone (TensorFlow's SAME).
    antialiased  As standard, but where a block halves the resolution it takes the mean of every 2x2 pixels, of which both
              convolutions then see all (Zhang, 2019: a low-pass filter before each stride). Strided convolutions see some
              pixels more often than others, and images drawn by such a network show it as a chequer.
"""

import math
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {"relu": F.relu, "silu": F.silu, "leaky_relu": partial(F.leaky_relu, negative_slope=0.2)}
"""leaky_relu has JEM's slope."""
LAYOUTS = ("standard", "jem", "deepmind", "antialiased")
NORMS = ("batch", "none")


def normalisation(channels: int, norm: str) -> nn.Module:
    """BatchNorm, or nothing."""
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.Identity()


class Block(nn.Module):
    """x + conv(act(bn(conv(act(bn(x)))))); where the shape changes, the shortcut is a 1x1 convolution, of act(bn(x)) or,
    in the layout jem, of x. Convolutions have biases in that layout, and where no BatchNorm brings its own."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        activation: str,
        norm: str = "batch",
        layout: str = "standard",
    ):
        super().__init__()
        jem, bias = layout == "jem", layout == "jem" or norm == "none"
        first, second = (1, stride) if jem else (stride, 1)
        self.pads_end = layout == "deepmind" and stride == 2
        self.pools = layout == "antialiased" and stride == 2
        same = inputs == outputs and stride == 1
        if self.pools:
            first = stride = 1
        self.bn1 = normalisation(inputs, norm)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, first, 0 if self.pads_end else 1, bias=bias)
        self.bn2 = normalisation(outputs, norm)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, second, 1, bias=bias)
        self.convShortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=bias)
        self.shortcut_of_input = jem
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.bn1(x))
        if self.pools:
            h = F.avg_pool2d(h, 2, ceil_mode=True, count_include_pad=False)
        shortcut = x
        if self.convShortcut is not None:
            shortcut = self.convShortcut(x if self.shortcut_of_input else h)
        h = self.conv1(F.pad(h, (0, 1, 0, 1)) if self.pads_end else h)
        return shortcut + self.conv2(self.activation(self.bn2(h)))


class Group(nn.Module):
    """n blocks, the first of which changes width and resolution."""

    def __init__(
        self,
        blocks: int,
        inputs: int,
        outputs: int,
        stride: int,
        activation: str,
        norm: str = "batch",
        layout: str = "standard",
    ):
        super().__init__()
        first = Block(inputs, outputs, stride, activation, norm, layout)
        others = (Block(outputs, outputs, 1, activation, norm, layout) for _ in range(blocks - 1))
        self.layer = nn.Sequential(first, *others)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


DEEPEST, MOST_WEIGHTS = 1000, 4e9
"""Larger ones are slips of the keyboard, or a file that means harm: building them takes for ever, or all memory."""


class WideResNet(nn.Module):
    """WRN-depth-width.

    Args:
        depth: 6n + 4 layers, at least 10.
        width: multiplies the widths 16, 32, 64 of the three groups.
        classes: number of logits K.
        channels: image channels C.
        activation: "relu", "silu", or "leaky_relu" (slope 0.2).
        norm: "batch", or "none" for no normalisation layers at all (JEM, SADA-JEM).
        layout: what a block computes; "standard", "jem", "deepmind" or "antialiased".

    Raises ValueError for a depth that is not 6n + 4, a width below 1, more layers or weights than any memory holds, or an unknown activation, norm or layout.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        classes: int,
        channels: int = 3,
        activation: str = "relu",
        norm: str = "batch",
        layout: str = "standard",
    ):
        super().__init__()
        if depth < 10 or (depth - 4) % 6 or width < 1:
            raise ValueError(
                f"a wide ResNet has depth 6n + 4 (10, 16, 22, 28, 34 ...) and width 1 or more, "
                f"not depth {depth} and width {width}."
            )
        blocks, widths = (depth - 4) // 6, (16, 16 * width, 32 * width, 64 * width)
        weights = 18 * blocks * sum(w**2 for w in widths[1:])  # about: two 3x3 convolutions in each block
        if depth > DEEPEST or weights > MOST_WEIGHTS:
            raise ValueError(
                f"wrn-{depth}-{width} would have about {weights:.1e} weights in {depth} layers, but at most "
                f"{MOST_WEIGHTS:.0e} in {DEEPEST} are built: choose a smaller one, as wrn-28-10."
            )
        for name, value, known in (
            ("activation", activation, ACTIVATIONS),
            ("norm", norm, NORMS),
            ("layout", layout, LAYOUTS),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(known)}.")
        bias = layout == "jem" or norm == "none"
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=bias)
        self.block1 = Group(blocks, widths[0], widths[1], 1, activation, norm, layout)
        self.block2 = Group(blocks, widths[1], widths[2], 2, activation, norm, layout)
        self.block3 = Group(blocks, widths[2], widths[3], 2, activation, norm, layout)
        self.bn1 = normalisation(widths[3], norm)
        self.fc = nn.Linear(widths[3], classes)
        self.activation = ACTIVATIONS[activation]
        if layout == "jem":
            return  # PyTorch's own initial weights: the authors' function for others is never called
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W), H and W at least 4."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(self.activation(self.bn1(x)).mean(dim=(2, 3)))
