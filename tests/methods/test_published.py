"""The systems as published: their constants, and their samplers and attacks step by step on landscapes with known gradients.

The JEM family's papers and code have pixels x' in [-1, 1], ours x = (x' + 1) / 2. A factor eta' of the gradient with
respect to x' is eta' / 4 of that with respect to x, a deviation sigma' is sigma' / 2, and a limit of the gradient doubles.
"""

import math
from dataclasses import asdict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualat.core.geometry import LIMIT, ThreatModel
from dualat.methods.base import Batch, Method
from dualat.methods.jem import JEM
from dualat.methods.registry import METHODS, build_method, method_settings
from dualat.methods.settings import (
    AttackSettings,
    BallSettings,
    ContrastiveSettings,
    CurriculumSettings,
    DiffusionSettings,
    DualLossSettings,
    EnergyLossSettings,
    JointLossSettings,
    OutSettings,
    PositiveSettings,
    SharpnessSettings,
)
from dualat.models.normalize import Normalized

CLASSES, SIDE, COUNT = 3, 4, 6


def factor(eta: float) -> float:
    """eta' on [-1, 1] -> eta on [0, 1]: x = (x' + 1) / 2 moves half as far, and d/dx' is half of d/dx."""
    return eta / 4


def deviation(sigma: float) -> float:
    """sigma' on [-1, 1] -> sigma on [0, 1]."""
    return sigma / 2


def limit(derivative: float) -> float:
    """Largest d/dx' -> largest d/dx."""
    return 2 * derivative


@pytest.mark.parametrize(
    ("name", "steps", "inner", "eta", "sigma", "input_sigma"),
    [
        ("jem", 20, None, 1.0, 0.01, 0.03),
        ("robust-jem", 20, None, 1.0, 0.01, 0.03),
        ("jempp", 10, 5, 0.2, 0.0, 0.03),
        ("sada-jem", 5, None, 1.0, 0.0, 0.0),
        ("eb-jdat", 10, None, 1.0, 0.0, 0.0),
    ],
)
def test_published_chains_are_those_of_the_papers(name, steps, inner, eta, sigma, input_sigma):
    expected = {
        "steps": steps,
        "step_size": factor(eta),
        "noise": deviation(sigma),
        "input_noise": deviation(input_sigma),
        "buffer": 10_000,
        "restart": 0.05,
    } | ({} if inner is None else {"inner_steps": inner})
    assert asdict(chains(name).chain) == expected
    assert chains(name, steps=3).chain.steps == 3


def test_every_method_with_chains_is_in_the_list_above():
    family = {name for name in METHODS if isinstance(made(name), JEM)}
    assert family == set(CHAINS)


def test_other_published_constants():
    assert limit(1.0) == LIMIT
    assert made("sada-jem").sharpness == SharpnessSettings().rho == 2
    assert PositiveSettings() == PositiveSettings(steps=5, step_size=0.1)
    assert EnergyLossSettings() == EnergyLossSettings(energy=1.0, r1=0.01)
    assert CurriculumSettings().auc_threshold == 0.8 and CurriculumSettings().step_size == 0.1
    assert ContrastiveSettings().energy == "joint"
    assert AttackSettings() == AttackSettings(norm="L2", eps=0.5, steps=10, step_size=0.1, random_start=False)
    assert OutSettings() == OutSettings(eps=1.0, steps=20, step_size=0.1, momentum=0.9)
    assert DualLossSettings() == DualLossSettings(cross_entropy=1.0, energy=1.0, robust=True, r1=0.0)
    assert JointLossSettings().adversarial_energy == 0.1
    assert DiffusionSettings().label_smoothing == 0.2


def made(name: str, **groups: Any) -> Method:
    """A method as published, but for some groups of its settings."""
    return build_method(method_settings({"name": name, **groups}), COUNT)


def chains(name: str, **chain: Any) -> JEM:
    """A method of the JEM family as published, but for some settings of its chains."""
    method = made(name, chain=chain)
    assert isinstance(method, JEM)
    return method


def draws(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Linear:
    """f = W x' with x' = 2 x - 1: d s / dx' = W^T softmax( f ). The first layer of the network is all of it."""

    def __init__(self, scale: float, classes: int = CLASSES):
        self.rows = scale * draws(0, classes, SIDE * SIDE)
        convolution = nn.Conv2d(1, classes, SIDE, bias=False)
        convolution.weight.data = self.rows.view(classes, 1, SIDE, SIDE)
        self.network = Normalized(nn.Sequential(convolution, nn.Flatten()), [0.5], [0.5])

    def posterior(self, pixels: Tensor) -> Tensor:
        """softmax( W x' ): (N, D) -> (N, K)."""
        return (pixels @ self.rows.T).softmax(1)

    def slope(self, pixels: Tensor) -> Tensor:
        """d s / dx' at x': (N, D) -> (N, D)."""
        return self.posterior(pixels) @ self.rows


def langevin(f: Linear, x: Tensor, steps: int) -> Tensor:
    """JEM: x' <- x' + 1 * grad s + 0.01 * noise, no clipping."""
    for _ in range(steps):
        x = x + f.slope(x) + 0.01 * torch.randn(COUNT, 1, SIDE, SIDE).flatten(1)
    return x


def clipped(f: Linear, x: Tensor, steps: int) -> Tensor:
    """SADA-JEM, EB-JDAT: x' <- clip( x' + clip( grad s, +-1 ) ), no noise."""
    for _ in range(steps):
        x = (x + f.slope(x).clamp(-1, 1)).clamp(-1, 1)
    return x


def proximal(f: Linear, x: Tensor, steps: int) -> Tensor:
    """JEM++: p = d s / d f = softmax( W x' ), held for 5 steps x' <- clip( x' + 0.2 * clip( W^T p, +-1 ) )."""
    for _ in range(steps):
        slope = f.posterior(x) @ f.rows
        for _ in range(5):
            x = (x + 0.2 * slope.clamp(-1, 1)).clamp(-1, 1)
    return x


CHAINS = {
    "jem": (langevin, 20),
    "robust-jem": (langevin, 20),
    "jempp": (proximal, 10),
    "sada-jem": (clipped, 5),
    "eb-jdat": (clipped, 10),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(("scale", "steps"), [(0.05, None), (2.0, 1), (2.0, 2)])
def test_a_chain_is_the_papers(name, scale, steps):
    """On a gentle slope all published steps, which reach no wall; on a steep one each of the first, where limits bite."""
    f, (chain, published) = Linear(scale), CHAINS[name]
    start = torch.rand(COUNT, SIDE * SIDE, generator=torch.Generator().manual_seed(1))
    with torch.random.fork_rng():
        torch.manual_seed(2)
        expected = chain(f, 2 * start - 1, steps or published)
        torch.manual_seed(2)
        found = chains(name, **({"steps": steps} if steps else {})).walk(
            f.network, start.view(COUNT, 1, SIDE, SIDE)
        )
    torch.testing.assert_close(2 * found.flatten(1) - 1, expected, rtol=1e-4, atol=2e-5)
    if steps:
        assert (f.slope(2 * start - 1).abs() > 1).any() and (f.slope(2 * start - 1).abs() < 1).any()
        assert bool((expected.abs() > 1).any()) == (chain is langevin)


def test_langevin_noise_on_a_flat_energy_has_the_papers_deviation():
    """0.01 in each of 20 steps: 0.01 * sqrt(20) of x', half of it of x; the others' chains stay where they start."""
    start = torch.full((200, 1, SIDE, SIDE), 0.5)
    for name in CHAINS:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            moved = chains(name).walk(Linear(0.0).network, start) - start
        expected = deviation(0.01 * math.sqrt(20)) if name in ("jem", "robust-jem") else 0.0
        assert moved.std().item() == pytest.approx(expected, rel=0.05)


def images(seed: int) -> Tensor:
    return torch.rand(COUNT, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def batch() -> Batch:
    labels = torch.arange(COUNT) % CLASSES
    return Batch(images(1), labels, images(2), labels.flip(0), images(3))


def unit(gradient: Tensor) -> Tensor:
    return F.normalize(gradient.flatten(1), dim=1).view_as(gradient)


def climb(f: Linear, x: Tensor, steps: int, size: float) -> Tensor:
    """x <- clip( x + eta grad s / ||grad s|| ), down where eta is negative."""
    for _ in range(steps):
        x = (x + size * unit(f.slope(2 * x.flatten(1) - 1).view_as(x))).clamp(0, 1)
    return x


def test_at_ebms_samples_climb_and_its_real_images_descend():
    f, b = Linear(1.0), batch()
    method = made("at-ebm")
    assert b.starts is not None and b.energy_images is not None and method.curriculum is not None
    method.curriculum.steps = 4
    found = method.generate(f.network, b)
    torch.testing.assert_close(found["contrastive"], climb(f, b.starts, 4, 0.1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["positive"], climb(f, b.energy_images, 5, -0.1), rtol=1e-4, atol=1e-5)


def test_dats_samples_go_straight_along_the_labels_row():
    f, b = Linear(1.0), batch()
    method = made("dat", contrastive={"step_size": 0.2})
    assert method.curriculum is not None
    method.curriculum.steps = 4
    assert b.starts is not None and b.energy_labels is not None
    expected = (b.starts + 4 * 0.2 * unit(f.rows[b.energy_labels].view_as(b.starts))).clamp(0, 1)
    torch.testing.assert_close(method.generate(f.network, b)["contrastive"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["L2", "Linf"])
@pytest.mark.parametrize("name", ["standard-at", "dat", "robust-jem"])
def test_attacks_on_two_linear_classes_reach_the_balls_edge_straight(name, norm):
    """x_adv = x + eps * direction of the other's row less the label's; the ball cuts the fourth step short."""
    f, labels = Linear(1.0, classes=2), torch.arange(COUNT) % 2
    x = 0.4 + 0.2 * images(1)
    size = 0.1 if norm == "L2" else 0.02
    attack = AttackSettings(norm=norm, eps=3.5 * size, steps=4, step_size=size)
    method, key = made(name, attack=attack), "classified" if name == "robust-jem" else "adversarial"
    against = (f.rows[1 - labels] - f.rows[labels]).view_as(x)
    direction = against.sign() if norm == "Linf" else unit(against)
    found = method.generate(f.network, Batch(x, labels, x, labels, x))[key]
    torch.testing.assert_close(found, x + 3.5 * size * direction, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_eb_jdats_raised_images_climb_the_energy_from_a_random_start(norm):
    f, b = Linear(1.0), batch()
    attack = BallSettings(norm=norm, eps=0.3, steps=3, step_size=0.1)
    ball = ThreatModel(norm, attack.eps)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        x = ball.random_start(b.robust_images)
        torch.manual_seed(4)
        found = made("eb-jdat", attack=attack).generate(f.network, b)["raised"]
    for _ in range(attack.steps):
        down = -f.slope(2 * x.flatten(1) - 1).view_as(x)
        x = ball.project(x + 0.1 * (unit(down) if norm == "L2" else down.sign()), b.robust_images)
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-5)


class Hill(nn.Module):
    """Logits h(x) = 3 - sum a (x - c)^2 and 0: near c KL(uniform, p) and the cross-entropy of class 1 are highest."""

    curvature = torch.linspace(0.5, 12, SIDE * SIDE)

    def __init__(self):
        super().__init__()
        self.peak = 0.5 + 0.04 * draws(5, 1, SIDE * SIDE)

    def forward(self, x: Tensor) -> Tensor:
        height = 3 - (self.curvature * (x.flatten(1) - self.peak) ** 2).sum(1)
        return torch.stack([height, torch.zeros_like(height)], 1)


def ratio_attack(
    objective: Any,
    x: Tensor,
    norm: str,
    eps: float,
    steps: int,
    size: float,
    momentum: float = 0.9,
    best: bool = True,
) -> Tensor:
    """v <- 0.9 v + g / ||g||_1, x <- clip( project( x + eta v / ||v|| ) ), and the best of all iterates of each image."""
    ball, centre, seen = ThreatModel(norm, eps), x, []  # pyright: ignore[reportArgumentType]
    velocity = torch.zeros_like(x)
    for _ in range(steps):
        seen.append((objective(x), x))
        moving = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(moving).sum(), moving)
        velocity = momentum * velocity + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        x = ball.project(x + size * (unit(velocity) if norm == "L2" else velocity.sign()), centre)
    seen.append((objective(x), x))
    if not best:
        return x
    index = torch.stack([value for value, _ in seen]).argmax(0)
    return torch.stack([image for _, image in seen])[index, torch.arange(len(x))]


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_ratios_attacks_have_momentum_and_keep_the_best_iterate(norm):
    """A step is longer than the way to the top allows: iterates overshoot, and the last one is not the best."""
    hill, labels = Hill(), torch.ones(COUNT, dtype=torch.long)
    sizes = {"L2": (0.5, 0.1), "Linf": (0.2, 0.03)}
    eps, size = sizes[norm]
    attack = AttackSettings(norm=norm, eps=eps, steps=10, step_size=size)  # pyright: ignore[reportArgumentType]
    near = 0.5 + 0.08 * draws(6, COUNT, 1, SIDE, SIDE)
    far = 0.5 + 0.1 * draws(7, COUNT, 1, SIDE, SIDE)
    found = made("ratio", attack=attack).generate(hill, Batch(near, labels, near, labels, far))

    def entropy(x: Tensor) -> Tensor:
        return F.cross_entropy(hill(x), labels, reduction="none")

    def divergence(x: Tensor) -> Tensor:
        p = hill(x).softmax(1)
        return (0.5 * (0.5 / p).log()).sum(1)

    cases = {
        "adversarial": (entropy, near, norm, eps, 10, size),
        "out": (divergence, far, "L2", 1.0, 20, 0.1),
    }
    for name, case in cases.items():
        torch.testing.assert_close(found[name], ratio_attack(*case), rtol=1e-4, atol=1e-4)
        for other in ({"momentum": 0.0}, {"best": False}, {"momentum": 0.0, "best": False}):
            apart = (ratio_attack(*case, **other) - found[name]).flatten(1).norm(dim=1)
            assert (apart > 1e-2).sum() >= COUNT / 2, (name, other)
