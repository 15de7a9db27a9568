"""Settings of a plan. Does not import PyTorch: the command line reads this file."""

from dualat.planning.hardware import find_hardware
from dualat.strict import strict


@strict
class PlanSettings:
    """On what a run is planned, and what is known of its speed. Give one of mfu, images_per_second and measured at most."""

    gpus: int = 1
    """Number of GPUs, all alike, over all nodes. They share each batch."""
    gpu: str | None = None
    """Kind of GPU: h100, h100-pcie, h200, a100, a100-40, l40s, rtx4090, rtx3090, v100, or cpu (the 2 cores of the committed
    benchmark); None: h100, or that of `measured`."""
    mfu: float | None = None
    """Model FLOPs utilisation: share of the GPU's peak that is reached, above 0 and at most 1. None: estimated from each
    operation's arithmetic and memory traffic."""
    images_per_second: float | None = None
    """Throughput of training as a run shows it, all GPUs together, in the last stage (T at half of T_max); other stages
    are scaled by their operations."""
    measured: str | None = None
    """Result of `dualat bench` (JSON) with the same network and image size: speed per GPU is taken from its train_step."""
    price_per_hour: float | None = None
    """Price of one GPU for an hour, in any currency; None: no cost."""
    train_images: int | None = None
    """Images in the training part of a folder or of shards, where they are not here to be counted: 1281167 for
    ImageNet."""
    classes: int | None = None
    """Classes of a folder or of shards that are not here; None: 1000."""

    def __post_init__(self) -> None:
        if self.gpus < 1:
            raise ValueError(f"gpus is {self.gpus}, but must be 1 or more.")
        if self.gpu is not None:
            find_hardware(self.gpu)
        speeds = [n for n in ("mfu", "images_per_second", "measured") if getattr(self, n) is not None]
        if len(speeds) > 1:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in speeds)
            raise ValueError(f"{options} contradict each other: each says how fast training is; give one.")
        if self.mfu is not None and not 0 < self.mfu <= 1:
            raise ValueError(f"mfu is {self.mfu}, but is a share of the peak: above 0, and 1 at most.")
        for name in ("images_per_second", "price_per_hour"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}, but must be above 0, and finite.")
        if self.train_images is not None and self.train_images < 1:
            raise ValueError(f"train_images is {self.train_images}, but must be 1 or more.")
        if self.classes is not None and self.classes < 2:
            raise ValueError(f"classes is {self.classes}, but must be 2 or more.")
