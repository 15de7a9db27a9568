"""Space that a run takes on the disk, in bytes."""

import math
from dataclasses import dataclass

from dualat.data.settings import InitialSettings

_STORED_IMAGES = 1000  # a saved model keeps so many of the pictures that samples start from
_LINE = 600  # of a logged step, in metrics.jsonl and in TensorBoard's file


@dataclass(frozen=True)
class Disk:
    """The run folder at its fullest, and what the run fetches."""

    checkpoints: float
    """Two states are kept, while the next is written: weights, average, optimiser, replay buffer."""
    models: float
    """The model, that after stage 1, and the two best."""
    logs: float
    downloads: float

    @property
    def total(self) -> float:
        return sum(vars(self).values())


def disk(state: float, optimizer: float, buffer: float, start: float, lines: float, downloads: float) -> Disk:
    """Space for a run.

    Args:
        state: bytes of all weights and buffers.
        optimizer: bytes of what the optimiser keeps.
        buffer: bytes of the replay buffer.
        start: bytes of the initial distribution.
        lines: number of logged steps.
        downloads: bytes that the run fetches.
    """
    return Disk(3 * (2 * state + optimizer + buffer), 4 * (state + start), lines * _LINE, downloads)


def initial_bytes(settings: InitialSettings, shape: tuple[int, int, int], classes: int) -> int:
    """What a saved model keeps of its initial distribution, at most."""
    size = math.prod(shape)
    gaussian = size * (settings.rank + 1) * 4
    kinds = {
        "gaussian": gaussian,
        "class-gaussian": classes * gaussian,
        "images": _STORED_IMAGES * size,
    }
    return sum(kinds.get(kind, 0) for kind in settings.parts or (settings.kind,))
