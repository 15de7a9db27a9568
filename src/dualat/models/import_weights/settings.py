"""Settings of an import. Does not import PyTorch: the command line reads this file."""

from typing import Literal

from dualat.models.settings import check_statistics
from dualat.strict import strict
from dualat.types import Activation

STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar": (
        (0.4913997551666284, 0.48215855929893703, 0.4465309133731618),
        (0.24703225141799082, 0.24348516474564, 0.26158783926049628),
    ),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,), (0.5,)),
}
"""Mean and standard deviation per channel, in [0, 1]. `cifar`: as the code of RATIO and DAT has it, for CIFAR-10 and CIFAR-100."""


@strict
class ImportSettings:
    network: str | None = None
    """Network, as in `dualat train --network.name`; None: told from the names and shapes of the weights."""
    part: str | None = None
    """Part of the file to take, as in state_dict or model_ema; None: averaged weights where there are some."""
    classes: int | None = None
    """Number of classes; None: as many as the last layer has."""
    image_size: int | None = None
    """Side of the images, in pixels; None: 32 for CIFAR's networks, the file's own for a ViT; required for others."""
    activation: Activation | None = None
    """Activation of a wide ResNet; None: as the code has it whose names the weights bear."""
    normalize: Literal["cifar", "imagenet", "half", "none"] | None = None
    """Input normalisation: CIFAR's as in RATIO and DAT, ImageNet's, 0.5 and 0.5, or none; None: the file's own."""
    mean: tuple[float, ...] = ()
    """Mean per channel, in [0, 1], in place of --normalize."""
    std: tuple[float, ...] = ()
    """Standard deviation per channel, in [0, 1], in place of --normalize."""

    def __post_init__(self) -> None:
        if bool(self.mean) != bool(self.std) or (self.mean and self.normalize):
            raise ValueError(
                "mean and std go together, and without normalize: give both, or normalize alone."
            )
        check_statistics(self.mean, self.std)
        if self.classes is not None and self.classes < 2:
            raise ValueError(f"classes is {self.classes}, but a classifier has at least 2.")
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size is {self.image_size}, but must be at least 1 pixel.")
