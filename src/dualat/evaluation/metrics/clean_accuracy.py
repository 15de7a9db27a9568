"""Clean accuracy: the share of images whose largest logit is that of their label.

acc = 1/N sum_i [ argmax_y f(x_i)[y] = y_i ]
"""

from torch import Tensor, nn

from dualat.data.images import ImageData
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.logits import shared_logits
from dualat.results.record import Record, share_correct


def measure(context: EvaluationContext) -> list[Record]:
    return [accuracy_record(context.logits(), context.held_out().labels)]


def clean_accuracy(model: nn.Module, data: ImageData, batch_size: int = 500) -> Record:
    """Record `clean_accuracy` over all images of `data`. ValueError where logits are not finite."""
    return accuracy_record(shared_logits(model, data, batch_size), data.labels)


def accuracy_record(logits: Tensor, labels: Tensor) -> Record:
    """Record `clean_accuracy` of logits (N, K) with labels (N,)."""
    return share_correct("clean_accuracy", (logits.argmax(dim=1) == labels).long().numpy())
