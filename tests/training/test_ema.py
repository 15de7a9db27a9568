"""The moving average against its equation, by hand."""

import pytest
import torch
from torch import nn

from dualat.training.ema import EMA


def test_the_first_update_copies_and_the_next_follow_the_warm_up():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 5.0)
    average = EMA(layer, 0.999)
    expected, value = 0.0, {1: 1.0, 2: 3.0, 3: -2.0}
    for n, weight in value.items():
        nn.init.constant_(layer.weight, weight)
        average.update(layer)
        decay = 0.0 if n == 1 else n / (n + 9)  # (1 + n') / (10 + n') of n' = n - 1 updates before
        expected = decay * expected + (1 - decay) * weight
        assert average.average["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_the_decay_has_a_limit_and_counters_are_copied():
    norm = nn.BatchNorm1d(2)
    average = EMA(norm, 0.5)
    for _ in range(100):
        average.update(norm)
    before = average.average["weight"].clone()
    with torch.no_grad():
        norm.weight.add_(1)
        norm.num_batches_tracked.fill_(7)
    average.update(norm)
    torch.testing.assert_close(average.average["weight"], before + 0.5)
    assert average.average["num_batches_tracked"] == 7
