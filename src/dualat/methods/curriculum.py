"""Curriculum on T, the number of contrastive steps (DAT, arXiv 2510.13872).

T starts at 0. When the mean AUROC between f(x_real)[y] and f(x_contrastive)[y] over the last ceil(window / batch)
steps reaches the threshold, the contrastive images have become too easy to tell: T grows by one and the window
restarts. T stays at T_max.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dualat.methods.settings import CurriculumSettings
from dualat.system.distributed import all_gathered


def auroc(positive: Tensor, negative: Tensor) -> Tensor:
    """P(positive > negative) + 1/2 P(equal), over all pairs: 1 where every positive scores higher. A scalar."""
    difference = positive[:, None] - negative[None, :]
    return (difference > 0).float().mean() + 0.5 * (difference == 0).float().mean()


class Curriculum:
    """The current T and the AUROC window that decides when it grows."""

    def __init__(self, t_max: int, threshold: float, batch_size: int, window: int = 1000):
        self.t_max, self.threshold = t_max, threshold
        self.length = math.ceil(window / batch_size)
        self.steps = 0
        self.window: list[float] = []
        self.seen: list[tuple[Tensor, Tensor]] = []
        """Scores of real and contrastive images of the present step, one pair for each part of its batch."""

    def see(self, real: Tensor, contrastive: Tensor) -> None:
        """Note the scores (n,) of a part of the step's batch."""
        self.seen.append((real.detach(), contrastive.detach()))

    def after_step(self) -> dict[str, float]:
        """End a training step: AUROC over its whole batch, of all parts and ranks, and the T that was used."""
        real, contrastive = (all_gathered(torch.cat(scores).cpu()) for scores in zip(*self.seen, strict=True))
        self.seen = []
        area, used = auroc(real, contrastive).item(), self.steps
        self.update(area)
        return {"auroc": area, "T": used}

    def update(self, value: float) -> None:
        """Record one training step's AUROC; T may grow."""
        self.window = [*self.window, value][-self.length :]
        full = len(self.window) == self.length
        if full and self.steps < self.t_max and self.mean() >= self.threshold:
            self.steps += 1
            self.window = []

    def mean(self) -> float:
        """Mean AUROC of the window."""
        return sum(self.window) / len(self.window) if self.window else float("nan")

    def stuck(self) -> bool:
        """T has run to T_max and contrastive images are still told from real ones at sight: nothing is learned."""
        return self.steps == self.t_max and len(self.window) == self.length and self.mean() > 0.98

    def warning(self) -> str | None:
        """What to do where nothing is learned; None elsewhere."""
        if not self.stuck():
            return None
        return (
            f"T has reached T_max = {self.t_max}, yet AUROC stays at {self.mean():.3f}: "
            "contrastive samples never come near the data, and little is learned from them; raise "
            "contrastive.t_max or contrastive.step_size, or start nearer to the data (initial.kind gaussian)."
        )

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "window": self.window}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.steps, self.window, self.seen = int(state["steps"]), list(state["window"]), []


def curriculum_of(settings: CurriculumSettings, batch_size: int) -> Curriculum:
    """The curriculum of a configuration, for batches of this size."""
    return Curriculum(settings.t_max, settings.auc_threshold, batch_size, settings.window)
