"""Moving average of the weights and of BatchNorm's statistics.

e <- d * e + (1 - d) * w,   d = min(decay, (1 + n) / (10 + n)),   n = updates so far;   d = 0 in the first: e <- w  (DAT)
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class EMA:
    """Keeps the average as a state dict; integers (BatchNorm's counters) are copied."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self.average: dict[str, Tensor] = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        self.updates += 1
        current = model.state_dict()
        averaged = [k for k, v in self.average.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in averaged], [current[k] for k in averaged], 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for key, value in self.average.items():
            if not value.is_floating_point():
                value.copy_(current[key])

    @torch.no_grad()
    def restore(self, average: Mapping[str, Tensor], updates: int) -> None:
        """Take a kept average back, into tensors that lie in memory as the model's do."""
        self.updates = updates
        for key, value in self.average.items():
            value.copy_(average[key])
