"""What a training step costs beside its passes: reading and augmenting its images, and writing what is logged."""

import tempfile
from pathlib import Path
from typing import Any

import torch

from dualat.bench.contenders import Inputs, dtype_of, second_stage, within
from dualat.bench.measure import interleaved
from dualat.bench.settings import BenchSettings
from dualat.data.images import ImageData
from dualat.data.initial import build_initial
from dualat.data.settings import AugmentSettings, InitialSettings
from dualat.methods.base import Batch
from dualat.models.model import LoadedModel
from dualat.training.feed import Feed
from dualat.training.loop import Run, Stage
from dualat.training.settings import TrackingSettings
from dualat.training.signals import StopRequest
from dualat.training.tracking import Tracker

FIGURES = ("loss", "gradient_norm", "loss_ce", "loss_energy", "auroc", "T", "lr", "images_per_second")


def costs(
    model: LoadedModel, inputs: Inputs, settings: BenchSettings, precision: str
) -> dict[str, dict[str, Any]]:
    """Seconds per training step of `data` and `logging`, where asked for, as the training loop itself does both.

    data: draw, augment and move both batches of a stage-2 step, and draw what contrastive samples start from; images
    in memory. logging: R1 on a batch, a line of metrics.jsonl and TensorBoard, once per `log_every` steps.
    """
    tracking, rows = TrackingSettings(), {}
    with tempfile.TemporaryDirectory() as folder:
        tracker = Tracker(Path(folder), tracking.trackers, {})
        try:
            stage = stage_of(model, settings, precision, inputs.images.device, tracker, tracking)
            works = {"data": lambda: draw(stage), "logging": lambda: log(stage, inputs)}
            for task in [t for t in works if t in settings.tasks]:
                work = within(precision, inputs.images.device, {task: works[task]})
                timing = interleaved(work, settings.repeats, inputs.images.device)[task]
                every = tracking.log_every if task == "logging" else 1
                rows[task] = {"seconds_each": timing.median, "every": every, "seconds": timing.median / every}
        finally:
            tracker.close()
    return rows


def stage_of(
    model: LoadedModel,
    settings: BenchSettings,
    precision: str,
    device: torch.device,
    tracker: Tracker,
    tracking: TrackingSettings,
) -> Stage:
    """A stage 2 on random images in memory, ready to begin."""
    shape = (10 * settings.batch_size, settings.channels, settings.image_size, settings.image_size)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.arange(len(images)) % settings.classes
    data = ImageData(images, labels, tuple(model.class_names), "random images")
    initial = build_initial(InitialSettings(), data.shape, data)
    feed = Feed(data, AugmentSettings(kind="strong"), AugmentSettings(kind="basic"), initial, device)
    method, stage = second_stage(settings)
    folder, dtype = tracker.path.parent, dtype_of(precision)
    run = Run(folder, 0, dtype, tracking, tracker, lambda *_: {}, StopRequest())
    return Stage(model, 2, method, stage, feed, run)


def draw(stage: Stage) -> None:
    """The batches of the next step."""
    stage.feed.batch(stage.streams, stage.done, stage.done, energy=True)
    stage.done += 1


def log(stage: Stage, inputs: Inputs) -> None:
    """Log one step, with as many figures as a stage 2 has."""
    batch = Batch(inputs.images, inputs.labels, inputs.real, inputs.labels, inputs.starts)
    stage.log(batch, dict.fromkeys(FIGURES, 1.0))
    stage.done += 1
