"""Activation checkpointing: the same logits, gradients and statistics, with less kept for the backward pass."""

import copy
import math

import pytest
import torch
from torch import nn

from dualat.core.loop import GradientLoop, frozen, pgd
from dualat.core.losses import denoising, gradient_penalty
from dualat.core.objectives import lower_energy
from dualat.models.batchnorm import as_the_loss_sees_it
from dualat.models.checkpointing import checkpoint_blocks
from dualat.models.registry import build_network
from dualat.models.settings import NetworkSettings

NAMES = ["wrn-10-1", "timm/resnet18", "timm/convnext_atto", "timm/vit_tiny_patch16_224"]


def pair(name: str, training: bool) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = build_network(NetworkSettings(name=name), (3, 32, 32), 4).train(training)
    saving = copy.deepcopy(plain)
    checkpoint_blocks(saving)
    return plain, saving


def kept(network: nn.Module, x: torch.Tensor) -> int:
    """Bytes that the forward pass keeps for the backward pass."""
    size = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal size
        size += math.prod(tensor.shape) * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(x)
    return size


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [False, True])
def test_logits_gradients_and_statistics_are_the_same(name, training):
    plain, saving = pair(name, training)
    x = torch.rand(4, 3, 32, 32)
    gradients = []
    for network in (plain, saving):
        start = x.clone().requires_grad_()
        network(start).square().sum().backward()
        gradients.append([start.grad, *(p.grad for p in network.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(saving.state_dict()[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "training"), [("wrn-10-1", False), ("wrn-10-1", True), ("timm/vit_tiny_patch16_224", True)]
)
def test_a_loss_that_is_differentiated_twice(name, training):
    """R1, and the score of egc: the backward pass has a backward pass. Fused attention has none: another kernel is taken."""
    plain, saving = pair(name, training)
    x, gradients = torch.rand(4, 3, 32, 32), []
    for network in (plain, saving):
        loss = gradient_penalty(network, x)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        (loss + denoising(network, x, noise, torch.full((4, 1, 1, 1), 0.1))[0]).backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(saving.state_dict()[key], value, rtol=1e-5, atol=1e-6)


def test_chains_in_train_mode_whose_network_is_back_in_eval_mode_before_the_backward_pass():
    plain, saving = pair("wrn-10-1", True)
    x, found = torch.rand(4, 3, 32, 32), []
    for network in (plain, saving):
        before = {k: v.clone() for k, v in network.state_dict().items()}
        with frozen(network):
            seen = as_the_loss_sees_it(network.train()).model
            network.eval()
            start = x.clone().requires_grad_()
            found.append(torch.autograd.grad(seen(start).logsumexp(dim=1).sum(), start)[0])
        assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_less_is_kept(name):
    plain, saving = pair(name, False)
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    assert kept(saving, x) < 0.6 * kept(plain, x)


def test_the_setting_reaches_the_network_and_leaves_the_names():
    settings = NetworkSettings(name="wrn-10-1", checkpoint_activations=True)
    network = build_network(settings, (3, 32, 32), 4)
    assert any(type(m).__name__ == "CheckpointedBlock" for m in network.modules())
    plain = build_network(NetworkSettings(name="wrn-10-1"), (3, 32, 32), 4)
    assert list(network.state_dict()) == list(plain.state_dict())


def test_a_network_without_blocks_is_refused():
    with pytest.raises(ValueError, match="no blocks in Sequential"):
        checkpoint_blocks(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))


@pytest.mark.parametrize(
    "name", ["wrn-10-1", pytest.param("timm/vit_tiny_patch16_224", marks=pytest.mark.slow)]
)
def test_the_compiled_loop_runs_on_the_plain_blocks(name, recwarn):
    """Checkpoints save nothing where no gradient of weights is taken, and no compiler sees through them."""
    saving = pair(name, False)[1]
    loop = GradientLoop(saving, compile=True, batch_size=4)
    x, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
    settings = {"steps": 2, "step_size": 0.1}
    found = loop.climb(x, lower_energy(labels), **settings)
    assert loop.compiled and loop.steps.graphs, [str(w.message) for w in recwarn]
    torch.testing.assert_close(found, pgd(saving, x, lower_energy(labels), **settings), rtol=0, atol=1e-5)
    assert any(type(m).__name__.startswith("Checkpointed") for m in saving.modules())
