"""Memory of one GPU while training, item by item, in bytes."""

import math
from dataclasses import dataclass

from torch import nn

from dualat.planning.step import StepCost

CONTEXT = 0.6 * 2**30
"""CUDA's own, with the handles of its libraries; torch.cuda.max_memory_allocated does not see it. An assumption."""
EXCHANGE = 0.5 * 2**30
"""NCCL's buffers where there are several GPUs. An assumption."""
SLACK = 0.1
"""Workspaces of convolutions and gaps between allocations, as a share of activations and of the loop. An assumption."""


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
    """The memory of a stage.

    Args:
        model: the network, on any device.
        cost: of one part of its batch.
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


def too_large(
    held: Memory, stage: int, title: str, room: float, images: int, batch: int, can_checkpoint: bool
) -> str:
    """By how much a stage is too large for a GPU, and what makes it smaller.

    Args:
        held: what it takes.
        stage: its number.
        title: the GPU's.
        room: bytes that it has.
        images: of the part at work.
        batch: of the GPU's whole batch.
        can_checkpoint: whether the network can recompute activations, and does not yet.
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
