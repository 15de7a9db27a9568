"""Clean accuracy: the share of images whose largest logit is that of their label."""

import torch
from torch import Tensor, nn

from dualat.data.in_distribution import ImageData
from dualat.evaluation.record import Record, proportion


@torch.no_grad()
def correct(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 500) -> int:
    """How many float images (N, C, H, W) the model classifies as their labels (N,) say."""
    device = next(model.parameters()).device
    hits = 0
    for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        hits += int((model(x.to(device)).argmax(dim=1) == y.to(device)).sum())
    return hits


def clean_accuracy(model: nn.Module, data: ImageData) -> Record:
    """Record `clean_accuracy` over all images of `data`."""
    return proportion("clean_accuracy", correct(model, data.float(), data.labels), len(data))
