"""How long a training step takes: from a share of the peak, a throughput, a benchmark, or each operation's least time."""

from dualat.planning.hardware import Hardware
from dualat.planning.measured import Measured
from dualat.planning.passes import Passes
from dualat.planning.settings import PlanSettings
from dualat.planning.step import StepCost


class Speed:
    """How long work takes on all GPUs together.

    Args:
        hardware: one GPU.
        precision: of training, "bf16" or "fp32".
        settings: how many there are, and what is known of their speed.
        measured: the benchmark that `settings.measured` names.
        flops_per_image: operations per image and step of the stage that `settings.images_per_second` is of.
    """

    def __init__(
        self,
        hardware: Hardware,
        precision: str,
        settings: PlanSettings,
        measured: Measured | None,
        flops_per_image: float,
    ):
        self.hardware, self.gpus = hardware, settings.gpus
        self.peak = hardware.peaks[precision]
        self.rate: float | None = None
        """Operations per second of all GPUs; None: by each operation's least time."""
        if settings.mfu is not None:
            self.rate, self.origin = settings.mfu * self.peak * self.gpus, "MFU as given"
        elif settings.images_per_second is not None:
            self.rate = settings.images_per_second * flops_per_image
            self.origin = f"{settings.images_per_second:g} images/s in the last stage, as given"
        elif measured is not None:
            self.rate = measured.flops_per_second * self.gpus
            self.origin = f"measured: {measured.file}, {measured.contender}, {measured.device}, batch {measured.batch_size}"
        else:
            self.origin = (
                "estimated: each operation's least time by arithmetic and memory traffic, divided by "
                f"{hardware.efficiency:g}"
            )

    def seconds(self, cost: StepCost, passes: Passes, batch: int, parts: int) -> float:
        """Of one training step.

        Args:
            cost: of one part of one GPU's batch.
            passes: of the step.
            batch: images of the step, of all GPUs.
            parts: into which each GPU's batch is cut.
        """
        if self.rate is not None:
            return batch * cost.flops(passes) / self.rate
        least = cost.least_seconds(self.peak, self.hardware.bandwidth, passes)
        return parts * least / self.hardware.efficiency

    def mfu(self, flops: float, seconds: float) -> float:
        """Share of the peak that is reached."""
        return flops / (seconds * self.peak * self.gpus)
