"""The replay buffer: what it gives back, how often it starts anew, and that a checkpoint holds it whole."""

import pytest
import torch

from dualat.methods.replay_buffer import ReplayBuffer

START = -1.0


def starts(count: int) -> torch.Tensor:
    return torch.full((count, 1, 2, 2), START)


def numbered(places: torch.Tensor) -> torch.Tensor:
    return places.float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def test_unused_places_are_draws_of_the_initial_distribution():
    places, images = ReplayBuffer(8, 0.0).draw(starts(4))
    assert torch.equal(images, starts(4)) and len(set(places.tolist())) == 4


def test_a_chain_goes_on_from_its_own_place():
    torch.manual_seed(0)
    buffer = ReplayBuffer(6, 0.0)
    places = torch.arange(6)
    buffer.keep(places, numbered(places))
    for _ in range(5):
        places, images = buffer.draw(starts(4))
        assert torch.equal(images, numbered(places))
    buffer.keep(places, numbered(places) + 10)
    again, images = buffer.draw(starts(6))
    expected = torch.where(torch.isin(again, places), again + 10, again)
    assert torch.equal(images, numbered(expected))


def test_places_are_drawn_at_random():
    torch.manual_seed(0)
    buffer = ReplayBuffer(40, 0.0)
    drawn = [tuple(buffer.draw(starts(10))[0].tolist()) for _ in range(60)]
    assert len(set(drawn)) == 60 and {place for places in drawn for place in places} == set(range(40))


@pytest.mark.parametrize("restart", [0.05, 0.5, 1.0])
def test_the_share_of_chains_that_start_anew(restart):
    torch.manual_seed(0)
    buffer = ReplayBuffer(4000, restart)
    buffer.keep(torch.arange(4000), numbered(torch.arange(4000)))
    _, images = buffer.draw(starts(4000))
    assert (images == START)[:, 0, 0, 0].float().mean().item() == pytest.approx(restart, abs=0.02)


def test_a_buffer_smaller_than_the_batch_is_drawn_with_replacement():
    places, images = ReplayBuffer(2, 0.0).draw(starts(5))
    assert len(places) == len(images) == 5 and places.max() < 2


def test_a_restored_buffer_is_the_same():
    buffer, other = ReplayBuffer(8, 0.1), ReplayBuffer(8, 0.1)
    buffer.keep(torch.tensor([5, 2]), numbered(torch.tensor([5, 2])))
    other.restore(buffer.tensors())
    torch.manual_seed(3)
    first = buffer.draw(starts(8))
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(first, other.draw(starts(8)), strict=True))
    assert other.tensors().keys() == buffer.tensors().keys() and ReplayBuffer(8, 0.1).tensors() == {}
