"""Settings of training. Does not import PyTorch: the command line reads this file."""

import math
from dataclasses import field, fields
from typing import Annotated, Literal

from pydantic import PlainValidator

from dualat.methods.registry import method_settings
from dualat.methods.settings import MethodSettings
from dualat.strict import strict


@strict
class OptimizerSettings:
    """Optimiser and learning-rate schedule."""

    name: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    lr: float = 0.1
    """Learning rate after warm-up."""
    weight_decay: float = 5e-4
    """Weight decay."""
    momentum: float = 0.9
    """SGD's momentum coefficient."""
    nesterov: bool = True
    """SGD's momentum by Nesterov; false: plain momentum, as JEM++ and SADA-JEM have it."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's betas."""
    schedule: Literal["constant", "cosine", "step"] = "constant"
    """Course of the learning rate after warm-up; cosine ends at 0."""
    milestones: tuple[float, ...] = (0.5, 0.75)
    """step: fractions of the stage at which the learning rate is multiplied by gamma."""
    gamma: float = 0.1
    """step: factor at each milestone."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    clip_norm: float | None = None
    """Largest gradient norm over all weights; None: no clipping."""

    def __post_init__(self) -> None:
        if (
            not 0 < self.lr < math.inf
            or not 0 <= self.weight_decay < math.inf
            or not 0 <= self.momentum < 1
            or self.warmup_steps < 0
        ):
            raise ValueError(
                f"optimiser needs lr above 0, weight_decay and warmup_steps of 0 or more and momentum in "
                f"[0, 1), not {self.lr}, {self.weight_decay}, {self.warmup_steps} and {self.momentum}."
            )
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma is {self.gamma}, but must be above 0 and at most 1.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}, but must be 0 or more, and below 1.")
        if not all(0 < milestone < 1 for milestone in self.milestones):
            raise ValueError(
                f"milestones are {self.milestones}, but must be shares of the stage: above 0, below 1."
            )
        unused = {"sgd": {"betas"}, "adamw": {"momentum", "nesterov"}}[self.name]
        unused |= set() if self.schedule == "step" else {"milestones", "gamma"}
        for entry in fields(self):
            if entry.name in unused and getattr(self, entry.name) != entry.default:
                raise ValueError(
                    f"{entry.name} does nothing with {self.name} and a {self.schedule} schedule: leave it out."
                )
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(
                f"clip_norm is {self.clip_norm}, but must be above 0 (None, in YAML null: no clipping)."
            )


@strict
class StageSettings:
    """One stage of training. Give its length in epochs or in steps."""

    method: Annotated[MethodSettings, PlainValidator(method_settings)]
    """System to train, by its name, and what it reads."""
    epochs: float | None = None
    """Length in passes over the training images; None where `steps` says it."""
    steps: int | None = None
    """Length in training steps; None where `epochs` says it."""
    batch_size: int = 128
    """Real images per step (each of the two batches, where the method has two), of all processes together."""
    accumulate: int = 1
    """Parts into which each process's batch is cut, one after the other, where memory is short."""
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    """Optimiser and schedule."""
    freeze_batchnorm: bool = False
    """Keep BatchNorm layers in eval mode, with the statistics they start with."""
    ema_decay: float = 0.999
    """Largest decay of the weights' moving average; it warms up as (1 + n) / (10 + n)."""
    evaluate_every: int = 1000
    """Steps between evaluations on the validation split (also at the end)."""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"a stage needs one length, but epochs is {self.epochs} and steps is {self.steps}: "
                "give one and set the other to None, in YAML null."
            )
        if (self.steps is not None and self.steps < 1) or not 0 < (self.epochs or self.steps or 0) < math.inf:
            raise ValueError(
                f"a stage's length must be positive and finite, not steps = {self.steps}, epochs = {self.epochs}."
            )
        if self.accumulate < 1:
            raise ValueError(f"accumulate is {self.accumulate}, but must be 1 (none) or more.")
        if self.batch_size < 2 or self.evaluate_every < 1 or not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"batch_size must be 2 or more, evaluate_every 1 or more and ema_decay in [0, 1), not "
                f"{self.batch_size}, {self.evaluate_every} and {self.ema_decay}."
            )

    def length(self, steps_per_epoch: int) -> int:
        """Number of training steps."""
        return self.steps if self.steps is not None else max(1, round((self.epochs or 0) * steps_per_epoch))


@strict
class StabilitySettings:
    """When training counts as diverged, and what is done then. Each divergence is recorded in outcome.json."""

    limit: float = 1e3
    """Largest |loss|; beyond it, or where the loss or its gradient is no finite number, training has diverged. Losses that
    train are below 10; JEM's code stops at 1e8, when its classifier is long lost. Raise it for a start that is worse."""
    on_divergence: Literal["stop", "restart"] = "stop"
    """Stop, or go on from the last checkpoint with other random numbers."""
    restarts: int = 3
    """restart: how many times at most, over all stages of the run and all times that it was resumed."""

    def __post_init__(self) -> None:
        if not self.limit > 0 or self.restarts < 0:
            raise ValueError(
                f"stability.limit must be above 0 and stability.restarts 0 or more, "
                f"not {self.limit} and {self.restarts}."
            )


@strict
class TrackingSettings:
    """What is written while training."""

    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""
    checkpoint_every: int = 200
    """Steps between two checkpoints (also at each evaluation and at the end of a stage)."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """Trackers beside metrics.jsonl: tensorboard; with the extra `dualat[trackers]`, by accelerate's names, wandb, mlflow,
    aim, clearml ..."""

    def __post_init__(self) -> None:
        if self.log_every < 1 or self.checkpoint_every < 1:
            raise ValueError(
                f"tracking.log_every and tracking.checkpoint_every must be 1 or more, "
                f"not {self.log_every} and {self.checkpoint_every}."
            )
