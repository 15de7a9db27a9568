"""Clean accuracy: the share of images whose largest logit is that of their label."""

import torch
from torch import nn

from dualat.core.classifier import check_logits, device_of, logits_of
from dualat.core.loop import frozen
from dualat.data.in_distribution import ImageData
from dualat.results.record import Record, share_correct
from dualat.system.distributed import mine, summed


def clean_accuracy(model: nn.Module, data: ImageData, batch_size: int = 500) -> Record:
    """Record `clean_accuracy` over all images of `data`. ValueError where logits are not finite."""
    with frozen(model), torch.no_grad():
        return _clean_accuracy(model, data, batch_size)


def _clean_accuracy(model: nn.Module, data: ImageData, batch_size: int) -> Record:
    device = device_of(model)
    correct = torch.zeros(len(data), dtype=torch.int64)
    for first in mine(range(0, len(data), batch_size)):
        part = slice(first, first + batch_size)
        logits = check_logits(logits_of(model, data.float(part).to(device)))
        correct[part] = (logits.argmax(dim=1).cpu() == data.labels[part]).long()
    return share_correct("clean_accuracy", summed(correct).numpy())
