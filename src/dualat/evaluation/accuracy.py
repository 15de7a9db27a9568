"""Clean accuracy: the share of images whose largest logit is that of their label."""

import torch
from torch import Tensor, nn

from dualat.data.in_distribution import ImageData
from dualat.evaluation.record import Record, proportion


@torch.no_grad()
def correct(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """How many float images (N, C, H, W) the model classifies as their labels (N,) say, in one pass."""
    device = next(model.parameters()).device
    return int((model(images.to(device)).argmax(dim=1) == labels.to(device)).sum())


def clean_accuracy(model: nn.Module, data: ImageData, batch_size: int = 500) -> Record:
    """Record `clean_accuracy` over all images of `data`."""
    parts = [slice(first, first + batch_size) for first in range(0, len(data), batch_size)]
    hits = sum(correct(model, data.float(part), data.labels[part]) for part in parts)
    return proportion("clean_accuracy", hits, len(data))
