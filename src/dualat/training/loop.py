"""The training loop of one stage: batch, loss, step, average; logs, evaluations and checkpoints on the way.

All random numbers of a step come from (seed, stage, step), and from how often the run has diverged, so that a run
resumed at any step goes on exactly as if it had never stopped (on GPUs up to rounding, unless kernels are deterministic,
precision.py). What is still to be done of a step (a line of metrics, an evaluation) is
part of the state until it is done.
"""

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from dualat.core.loop import GradientLoop, frozen
from dualat.core.losses import gradient_penalty
from dualat.methods.base import Batch, Method
from dualat.models.batchnorm import synchronise_batchnorm
from dualat.models.model import LoadedModel, copy_weights, save_model
from dualat.system.distributed import (
    LostRank,
    abandon_gpus,
    barrier,
    broadcast,
    broadcast_number,
    is_first,
    mean_over_ranks,
    rank,
    world_size,
)
from dualat.system.precision import autocast
from dualat.system.seeds import mix_seed
from dualat.training.checkpoint import TrainingState, load_state, restore_optimizer, save_state
from dualat.training.divergence import (
    Diverged,
    advice,
    has_diverged,
    message,
    read_outcome,
    record_divergence,
    write_outcome,
)
from dualat.training.ema import EMA
from dualat.training.feed import Feed
from dualat.training.optimizer import build_optimizer, learning_rate
from dualat.training.progress import Progress, announce
from dualat.training.settings import StabilitySettings, StageSettings, TrackingSettings
from dualat.training.signals import Stopped, StopRequest
from dualat.training.step import check_division, train_step
from dualat.training.tracking import Tracker

Evaluator = Callable[[LoadedModel, int, int], dict[str, float]]
"""evaluator(ema_model, stage, step) -> figures by name; handed in by the caller."""

BEST = {"robust_accuracy": ("best-robust", 1), "frechet_distance": ("best-generation", -1)}
"""Figures whose best checkpoint is kept: its file's name, and whether more (1) or less (-1) is better."""


@dataclass
class Run:
    """What stays the same over the stages of a run."""

    folder: Path
    seed: int
    dtype: torch.dtype
    tracking: TrackingSettings
    tracker: Tracker
    evaluator: Evaluator
    stop: StopRequest
    compile: bool = False
    """Whether the gradient loop runs compiled (compiled.py)."""
    stability: StabilitySettings = field(default_factory=StabilitySettings)
    """When training counts as diverged, and what is done then."""


def train_stage(
    model: LoadedModel,
    number: int,
    method: Method,
    settings: StageSettings,
    feed: Feed,
    run: Run,
    resume: TrainingState | None = None,
) -> dict[str, Tensor]:
    """Train one stage from the model's present weights (or from `resume`) and return the averaged weights: a state dict of
    the model, statistics of BatchNorm included. number: the stage's, from 1.

    Raises Stopped after a signal, Diverged where training diverges for good (the last checkpoint stays).
    """
    origin, fresh = copy.deepcopy(model.state_dict()), copy.deepcopy(method.state())
    while True:
        stage = Stage(model, number, method, settings, feed, run)
        if resume is not None:
            stage.restore(resume)
        stage.equalise()
        if is_first():
            write_outcome(run.folder, "running", read_outcome(run.folder)["divergences"])
        try:
            return stage.train()
        except Diverged as error:
            restarts = run.stability.restarts if run.stability.on_divergence == "restart" else 0
            used = divergences(run.folder)
            if used > restarts:
                raise Diverged(f"{error}; {advice(number, restarts, run.folder)}") from None
            resume = load_state(run.folder / "checkpoints")
            place = "from there"
            if resume is None or resume.stage != number:  # nothing of this stage was kept yet
                resume, place = None, f"stage {number} from its beginning"
                model.load_state_dict(origin)
                method.restore(fresh, {})
            announce(f"{error}; starting again {place}, restart {used} of {restarts}")
            run.tracker.rewind(number, resume.reported if resume else 0)


class Stage:
    """One stage of a run: what changes from step to step, and what is done with it."""

    def __init__(
        self,
        model: LoadedModel,
        number: int,
        method: Method,
        settings: StageSettings,
        feed: Feed,
        run: Run,
    ):
        self.model, self.number, self.method = model, number, method
        self.settings, self.feed, self.run = settings, feed, run
        self.ema = EMA(model, settings.ema_decay)
        self.optimizer = build_optimizer(model, settings.optimizer)
        self.best: dict[str, float] = {}
        self.done = 0
        # after a divergence all random numbers are others: the order of the images, augmentation, noise
        times = divergences(run.folder)
        self.origin = mix_seed(run.seed, "divergences", times) if times else run.seed
        self.streams = feed.streams(self.origin, number, settings.batch_size)
        check_division(method, settings, self.streams[0].batch_size)
        if world_size() > 1 and not settings.freeze_batchnorm:
            synchronise_batchnorm(model)
        self.buffers: dict[str, Tensor] = {}
        self.pending: dict[
            str, float
        ] = {}  # metric values of the last step until `report` is through with them
        self.warned = False
        self.total = settings.length(self.streams[0].steps_per_epoch)
        self.average = copy.deepcopy(model)  # carries the averaged weights where they are evaluated
        self.title = f"stage {number} ({method.name})"
        part = self.streams[0].batch_size // (
            world_size() * settings.accumulate
        )  # what the gradient loop sees
        self.loop = GradientLoop(model, run.compile, method.loop_sizes(part))

    def restore(self, state: TrainingState) -> None:
        """Go on from a checkpoint of this stage. ValueError where it is of another network, optimiser or method."""
        place = self.run.folder / "checkpoints"
        copy_weights(self.model, state.model, place)
        copy_weights(self.average, state.ema, place)
        self.ema.restore(state.ema, state.ema_updates)
        self.done, self.best = state.step, dict(state.best)
        self.pending = dict(state.pending)
        try:
            restore_optimizer(self.optimizer, state.optimizer)
            self.method.restore(state.method, state.method_tensors)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"the state in {place} is of another optimiser or method than this run's: give the run another --output."
            ) from error

    def equalise(self) -> None:
        """All ranks hold rank 0's weights, buffers and averages, whatever machine made them."""
        broadcast([*self.model.parameters(), *self.model.buffers(), *self.ema.average.values()])

    def train(self) -> dict[str, Tensor]:
        """All steps that are left; logs, evaluations and checkpoints where they are due."""
        batch_size = self.streams[0].batch_size
        pace = Progress(self.title, self.total, self.done, self.streams[0].steps_per_epoch, batch_size)
        with self.run.stop.steps(), pace as progress, self.rescued():
            if self.pending:
                self.report(self.batch(self.done - 1), progress)
            while self.done < self.total:
                self.report(self.step(), progress)
                if mean_over_ranks({"asked": float(self.run.stop.signal is not None)})["asked"]:
                    self.checkpoint()
                    if is_first():
                        write_outcome(
                            self.run.folder, "stopped", read_outcome(self.run.folder)["divergences"]
                        )
                    raise Stopped(
                        f"stopped by {self.run.stop.signal or 'another process'} at stage {self.number}, step {self.done}; the checkpoint "
                        "is written: the same command with --resume goes on from there."
                    )
        return self.ema.average

    def report(self, batch: Batch, progress: Progress) -> None:
        """What is pending of the step just done: its line, its evaluation and its checkpoint, each where it is due."""
        last, figures, tracking = self.done == self.total, dict(self.pending), self.run.tracking
        if last or self.done % tracking.log_every == 0:
            figures["images_per_second"] = progress.rate(self.done) * self.streams[0].batch_size
            self.log(batch, figures)
        progress.update(self.done, figures)
        if not self.warned and (text := self.method.warning()):
            self.warned = True
            warnings.warn(text, stacklevel=4)
        evaluated = last or self.done % self.settings.evaluate_every == 0
        if evaluated:
            began = time.monotonic()
            progress.note(self.evaluate())
            progress.exclude(time.monotonic() - began)
        self.pending = {}
        if evaluated or self.done % tracking.checkpoint_every == 0:
            self.checkpoint()

    @contextmanager
    def rescued(self) -> Iterator[None]:
        """Where another rank is gone, the first one keeps the state after the last whole step, and the run ends."""
        try:
            yield
        except LostRank:
            abandon_gpus()
            for name, buffer in self.model.named_buffers():
                if name in self.buffers:  # BatchNorm statistics that half a step has moved
                    buffer.copy_(self.buffers[name])
            self.method.restore(
                self.method.state(), self.method.tensors()
            )  # forgets what half a step has seen
            self.checkpoint()
            raise

    def seed(self, step: int) -> int:
        """What the step's random numbers are made of: (seed, stage, step) alone, and the divergences so far."""
        return mix_seed(self.origin, self.number, step)

    def batch(self, step: int) -> Batch:
        return self.feed.batch(self.streams, step, self.seed(step), self.method.needs_energy_batch)

    def step(self) -> Batch:
        """One training step; its metric values are pending from now on. Returns its batch."""
        # a stream apart from the batch's
        torch.manual_seed(mix_seed(self.seed(self.done), "rank", rank()))
        if world_size() > 1:
            self.buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        batch = self.batch(self.done)
        rate = learning_rate(self.settings.optimizer, self.done, self.total)
        figures = train_step(
            self.model, self.method, batch, self.optimizer, rate, self.settings, self.run.dtype, self.loop
        )
        loss, norm, limit = figures["loss"], figures["gradient_norm"], self.run.stability.limit
        if has_diverged(loss, norm, limit):
            if is_first():
                record_divergence(self.run.folder, self.number, self.done + 1, loss, norm)
            barrier()
            raise Diverged(message(self.number, self.done + 1, loss, limit, self.run.folder))
        self.ema.update(self.model)
        self.done += 1
        self.buffers, self.pending = {}, figures | {"lr": rate}
        return batch

    def log(self, batch: Batch, figures: dict[str, float]) -> None:
        """Write the step's figures, R1 on its real images among them."""
        real = batch.robust_images if batch.energy_images is None else batch.energy_images
        with frozen(self.model), torch.no_grad(), autocast(self.run.dtype, self.feed.device):
            figures |= mean_over_ranks({"r1": gradient_penalty(self.model, real).item()})
        self.run.tracker.log(self.number, self.done, figures)

    def evaluate(self) -> str:
        """Measure the averaged weights, keep them where they are the best so far, and say the figures in a line."""
        self.average.load_state_dict(self.ema.average)
        found = self.run.evaluator(self.average.eval(), self.number, self.done)
        self.run.tracker.log(self.number, self.done, {f"validation_{k}": v for k, v in found.items()})
        if is_first():
            keep_best(self.average, found, self.best, self.run.folder)
        figures = "  ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in found.items())
        return f"{self.title} {self.done}/{self.total}  validation: {figures}"

    def checkpoint(self) -> None:
        """Write all that a resume needs, on the first rank."""
        if not is_first():
            return
        save_state(
            self.run.folder / "checkpoints",
            TrainingState(
                self.number,
                self.done,
                self.model.state_dict(),
                self.ema.average,
                self.ema.updates,
                self.optimizer.state_dict(),
                self.method.state(),
                self.best,
                self.method.tensors(),
                self.pending,
            ),
        )


def divergences(folder: Path) -> int:
    """How often the run has diverged, as rank 0 reads it: other machines may see its file late."""
    return broadcast_number(len(read_outcome(folder)["divergences"]))


def keep_best(model: LoadedModel, evaluated: dict[str, float], best: dict[str, float], folder: Path) -> None:
    """Save the averaged model under its checkpoint's name where a figure is better than ever in this stage."""
    for figure, (name, sign) in BEST.items():
        value = evaluated.get(figure)
        if value is not None and (figure not in best or sign * value > sign * best[figure]):
            best[figure] = value
            save_model(model, folder / "checkpoints" / name)
