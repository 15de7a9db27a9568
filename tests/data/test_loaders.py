"""Batches by step: each epoch a permutation, each batch a pure function of the step; seeds that do not collide."""

import pytest
import torch

from dualat.data.images import ImageData
from dualat.data.loaders import BatchStream
from dualat.system.seeds import mix_seed


def numbered(n: int) -> ImageData:
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)
    return ImageData(images, torch.arange(n) % 3, ("a", "b", "c"), "numbered")


def test_an_epoch_sees_every_image_at_most_once_and_drops_the_rest():
    stream = BatchStream(numbered(10), 3, seed=0)
    assert stream.steps_per_epoch == 3
    for epoch in range(3):
        seen = torch.cat([stream.indices(3 * epoch + i) for i in range(3)])
        assert len(seen) == 9 == len(seen.unique())
    assert not torch.equal(stream.indices(0), stream.indices(3))


def test_any_step_is_the_same_whatever_was_asked_before():
    data = numbered(20)
    forward = BatchStream(data, 4, seed=5)
    batches = [forward.batch(step) for step in range(17)]
    for step in (16, 3, 9, 0):
        x, y = BatchStream(data, 4, seed=5).batch(step)
        again = forward.batch(step)
        assert torch.equal(x, batches[step][0]) and torch.equal(y, batches[step][1])
        assert torch.equal(again[0], x) and x.dtype == torch.uint8
        assert torch.equal(data.labels[x.flatten().long()], y)
    assert any(not torch.equal(BatchStream(data, 4, 6).indices(s), forward.indices(s)) for s in range(5))


def test_a_callers_change_does_not_reach_the_stream():
    stream = BatchStream(numbered(6), 2, seed=0)
    first = stream.indices(0)
    kept = first.clone()
    first.zero_()
    assert torch.equal(stream.indices(0), kept)


def test_small_data_and_user_errors():
    stream = BatchStream(numbered(3), 128, seed=0)
    assert stream.batch_size == 3 and stream.steps_per_epoch == 1
    assert sorted(stream.indices(7).tolist()) == [0, 1, 2]
    with pytest.raises(ValueError, match="batch size is 0"):
        BatchStream(numbered(3), 0, seed=0)
    with pytest.raises(ValueError, match="no images"):
        BatchStream(numbered(0), 2, seed=0)
    with pytest.raises(ValueError, match="step is -1"):
        stream.indices(-1)


def test_mix_seed_is_fixed_distinct_and_fits_a_generator():
    parts = [(0,), (1,), ("1",), (0, 0), (1, 0), (0, 1), ("a", "b"), ("ab",), (-1,), (2**70,)]
    seeds = [mix_seed(*part) for part in parts]
    assert len(set(seeds)) == len(parts) and all(0 <= seed < 2**63 for seed in seeds)
    assert mix_seed("batches", 0, 0) == mix_seed("batches", 0, 0)
    torch.Generator().manual_seed(max(seeds))
    for bad in ((), (1.5,)):
        with pytest.raises(ValueError, match="integers and strings"):
            mix_seed(*bad)
