"""Settings of the network. Imports nothing heavy: the command line reads this file."""

from typing import Literal

from pydantic.dataclasses import dataclass

from dualat.settings import STRICT


@dataclass(config=STRICT)
class NetworkSettings:
    name: str = "wrn-28-10"
    """Network: `wrn-DEPTH-WIDTH` (pre-activation wide ResNet, depth = 6n + 4), or `timm/NAME` for any timm
    classifier, as in `timm/resnet50`."""
    activation: Literal["relu", "silu"] = "relu"
    """Activation of a wide ResNet."""
    normalize: Literal["data", "none"] = "data"
    """Input normalisation inside the network: mean and deviation of the training images per channel, or none."""
    pretrained: bool = False
    """timm only: start from timm's published weights (downloads them from the hub)."""
    drop_path: float = 0.0
    """timm only: stochastic depth rate, 0 to 1, for networks that have it."""

    def __post_init__(self) -> None:
        is_timm = self.name.startswith("timm/")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is {self.drop_path}, but must be in [0, 1).")
        if not is_timm and self.pretrained:
            raise ValueError(
                "pretrained needs a timm network: give `weights` to start a wide ResNet from a file."
            )
        if not is_timm and self.drop_path:
            raise ValueError("drop_path works with timm networks only: set it to 0 for a wide ResNet.")
        if is_timm and self.activation != "relu":
            raise ValueError(
                "activation chooses that of a wide ResNet: leave it at 'relu' for a timm network."
            )
