"""Memory of one GPU while training, and space that a run takes on the disk: item by item, in bytes."""

import math
from dataclasses import dataclass

from torch import nn

from dualat.data.settings import InitialSettings
from dualat.planning.step import StepCost
from dualat.training.settings import OptimizerSettings

CONTEXT = 0.6 * 2**30
"""CUDA's own, with the handles of its libraries; torch.cuda.max_memory_allocated does not see it. An assumption."""
EXCHANGE = 0.5 * 2**30
"""NCCL's buffers where there are several GPUs. An assumption."""
SLACK = 0.1
"""Workspaces of convolutions and gaps between allocations, as a share of activations and of the loop. An assumption."""
STORED_IMAGES = 1000
"""So many of the pictures that samples start from are kept in a saved model."""
LINE = 600
"""Bytes of a logged step, in metrics.jsonl and in TensorBoard's file."""


@dataclass(frozen=True)
class Memory:
    """What one GPU holds at its fullest."""

    weights: float
    """Weights and buffers, float32."""
    gradients: float
    optimizer: float
    """SGD: momentum; AdamW: two moments."""
    average: float
    """The moving average of the weights."""
    copies: float
    """A second network for evaluating the average, and the state that a stage began with."""
    images: float
    """Batches of the step, and what is made of them, beyond the part at work."""
    activations: float
    """Loss of one part: all that lives at its fullest, temporaries included, weights and gradients not."""
    loop: float
    """Gradient loop recorded as CUDA graphs: its memory stays reserved. 0: not compiled, it shares the activations'."""
    slack: float
    context: float

    @property
    def tensors(self) -> float:
        """What torch.cuda.max_memory_allocated should show, without slack and context."""
        return self.total - self.slack - self.context

    @property
    def total(self) -> float:
        return sum(vars(self).values())

    def largest_part(self, room: float, images: int) -> int:
        """How many images a part may have for all to fit, of a part of `images` as seen: what is not fixed is taken to
        grow with them. 0: not even the fixed part fits."""
        moving = (1 + SLACK) * (self.activations + self.loop)
        return max(0, math.floor(images * (room - (self.total - moving)) / moving))


def memory(
    model: nn.Module, cost: StepCost, slots: int, sharpness: bool, batch: int, compiled: bool, context: float
) -> Memory:
    """The memory of a stage with the cost of one part of its batch.

    Args:
        slots: values that the optimiser keeps for each weight.
        sharpness: whether weights are kept while the loss is taken elsewhere.
        batch: images on this GPU, of each batch.
        compiled: whether the gradient loop is recorded as CUDA graphs.
        context: bytes that are taken before any tensor is made.
    """
    learned = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    state = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    activations = cost.learn.peak if compiled else max(cost.learn.peak, cost.loop.peak)
    loop = cost.loop.peak if compiled else 0.0
    return Memory(
        weights=state,
        gradients=learned,
        optimizer=slots * learned,
        average=state,
        copies=2 * state + (learned if sharpness else 0),
        images=(batch - cost.images) * cost.image_bytes,
        activations=activations,
        loop=loop,
        slack=SLACK * (activations + loop),
        context=context,
    )


def slots(settings: OptimizerSettings) -> int:
    """Values that the optimiser keeps for each weight."""
    return 2 if settings.name == "adamw" else int(settings.momentum > 0)


def too_large(
    held: Memory, stage: int, title: str, room: float, images: int, batch: int, can_checkpoint: bool
) -> str:
    """By how much a stage is too large for a GPU with `room` bytes, and what makes it smaller.

    images: of the part at work; batch: of the GPU's whole batch. can_checkpoint: whether the network can recompute
    activations, and does not yet.
    """
    text = f"stage {stage} does not fit: it takes {held.total / 1e9:.1f} GB, of which one {title} has {room / 1e9:.0f}"
    largest = held.largest_part(room, images)
    parts = next((k for k in range(1, batch + 1) if batch % k == 0 and batch // k <= largest), None)
    advice = []
    if parts:
        advice.append(
            f"--stage{stage}.accumulate {parts} (parts of {batch // parts} images, one after the other)"
        )
    if can_checkpoint:
        advice.append("--network.checkpoint-activations (less memory for about a third more time)")
    advice.append("more GPUs, or larger ones" if batch > 1 else "larger GPUs")
    return f"{text}; set {', or '.join(advice)}."


def disk(
    state: float, optimizer: float, buffer: float, start: float, lines: float, downloads: float
) -> dict[str, float]:
    """Space on the disk: the run folder at its fullest, what the run fetches, and the sum of all.

    Args:
        state: bytes of all weights and buffers.
        optimizer: bytes of what the optimiser keeps.
        buffer: bytes of the replay buffer.
        start: bytes of the initial distribution.
        lines: number of logged steps.
        downloads: bytes that the run fetches.
    """
    taken = {
        # two states are kept, while the next is written: weights, average, optimiser, replay buffer
        "checkpoints": 3 * (2 * state + optimizer + buffer),
        "models": 4 * (state + start),  # the model, that after stage 1, and the two best
        "logs": lines * LINE,
        "downloads": downloads,
    }
    return {**taken, "total": sum(taken.values())}


def initial_bytes(settings: InitialSettings, shape: tuple[int, int, int], classes: int) -> int:
    """What a saved model keeps of its initial distribution, at most."""
    size = math.prod(shape)
    gaussian = size * (settings.rank + 1) * 4
    kinds = {
        "gaussian": gaussian,
        "class-gaussian": classes * gaussian,
        "images": STORED_IMAGES * size,
    }
    return sum(kinds.get(kind, 0) for kind in settings.parts or (settings.kind,))
