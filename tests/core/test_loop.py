"""The gradient loop: closed-form worst cases, directions, independence of images, and a model left as it was found."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import dualat
from dualat.core.geometry import ThreatModel, image_norm
from dualat.core.loop import frozen, pgd, step_sizes
from dualat.core.objectives import lower_energy, raise_cross_entropy, target_class
from dualat.models.wide_resnet import WideResNet

SHAPE = (2, 3, 4)
DIMENSION = 24
NORMS = ("L2", "Linf")
DUAL = {"L2": 2, "Linf": 1}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(classes: int = 2, shape: tuple[int, ...] = SHAPE) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))


def smooth(classes: int = 3) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(DIMENSION, 16), nn.Tanh(), nn.Linear(16, classes))


def wrn() -> WideResNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = WideResNet(10, 1, 3, 1, "silu")
        with torch.no_grad():  # statistics and scales that differ from their defaults
            network(torch.rand(16, 1, 8, 8))
        return network


def middle(count: int = 6, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Images so far from 0 and 1 that a small ball stays inside the box."""
    return 0.4 + 0.2 * torch.rand(count, *shape, generator=seeded())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("random_start", [False, True])
def test_attack_on_a_linear_classifier_reaches_the_worst_case(norm, random_start):
    """The margin w.x + b falls by exactly eps ||w||_q, 1/p + 1/q = 1, w the difference of the two rows."""
    model, x, labels, eps = linear(), middle(), torch.tensor([0, 1, 0, 1, 0, 1]), 0.1
    weight = model[1].weight.detach()
    adversarial = pgd(
        model,
        x,
        raise_cross_entropy(labels),
        ThreatModel(norm, eps),
        steps=20,
        step_size=0.03,
        random_start=random_start,
        generator=seeded(),
    )

    def margin(images: Tensor) -> Tensor:
        logits = model(images).detach()
        own = logits.gather(1, labels[:, None])[:, 0]
        return own - logits.gather(1, 1 - labels[:, None])[:, 0]

    fall = eps * torch.linalg.vector_norm(weight[0] - weight[1], ord=DUAL[norm])
    torch.testing.assert_close(margin(x) - margin(adversarial), fall.expand(6), rtol=2e-3, atol=1e-5)
    assert (image_norm(adversarial - x, norm) <= eps + 1e-6).all()


def test_linf_worst_case_at_the_boxs_edge():
    model, labels, eps = linear(), torch.zeros(6, dtype=torch.long), 0.3
    x = torch.rand(6, *SHAPE, generator=seeded())
    weight = model[1].weight.detach()
    best = (x - eps * (weight[0] - weight[1]).sign().view(SHAPE)).clamp(0, 1)
    found = pgd(model, x, raise_cross_entropy(labels), ThreatModel("Linf", eps), steps=10, step_size=0.05)
    torch.testing.assert_close(found, best)


@pytest.mark.parametrize("norm", NORMS)
def test_energy_of_a_linear_classifier_falls_to_its_least_in_the_ball(norm):
    model, x, labels, eps = linear(4), middle(4), torch.arange(4), 0.1
    low = pgd(model, x, lower_energy(labels), ThreatModel(norm, eps), steps=10, step_size=0.02)
    fall = (model(low) - model(x)).gather(1, labels[:, None])[:, 0].detach()
    expected = eps * torch.linalg.vector_norm(model[1].weight.detach(), ord=DUAL[norm], dim=1)
    torch.testing.assert_close(fall, expected, rtol=1e-4, atol=1e-6)


def test_without_a_ball_the_path_is_steps_times_step_size():
    model, x, labels = linear(), middle(3), torch.tensor([0, 1, 1])
    moved = pgd(model, x, lower_energy(labels), steps=5, step_size=0.02)
    direction = nn.functional.normalize(model[1].weight.detach()[labels])
    torch.testing.assert_close(moved, x + 0.1 * direction.view(x.shape))


@pytest.mark.parametrize("labels", [torch.arange(6) % 3, None], ids=["joint", "marginal"])
@pytest.mark.parametrize("norm", NORMS)
def test_each_step_lowers_the_energy_of_every_image_on_a_smooth_model(labels, norm):
    values: list[Tensor] = []
    energies: list[Tensor] = []
    model = smooth()
    wrapped = dualat.JointEnergyModel(model)

    def see(t: int, x: Tensor, value: Tensor) -> None:
        values.append(value)
        energies.append(wrapped.energy(x, labels).detach())

    pgd(model, middle(), lower_energy(labels), ThreatModel(norm), steps=15, step_size=0.004, callback=see)
    energy = torch.stack(energies)
    assert (energy.diff(dim=0) < 0).all()
    torch.testing.assert_close(torch.stack(values), -energy)


@pytest.mark.parametrize("objective", [raise_cross_entropy, target_class])
def test_attacks_move_the_posterior_the_right_way(objective):
    model, x, labels = smooth(), middle(), torch.arange(6) % 3
    after = pgd(model, x, objective(labels), ThreatModel("L2", 0.5), steps=5, step_size=0.1)
    before, now = (torch.softmax(model(v), 1).gather(1, labels[:, None]) for v in (x, after))
    assert ((now > before) == (objective is target_class)).all()


@pytest.mark.parametrize("threat", [None, ThreatModel("L2", 0.3), ThreatModel("Linf", 0.05)], ids=str)
@pytest.mark.parametrize("keep", ["last", "best"])
def test_an_image_gives_the_same_result_alone_and_in_a_batch(threat, keep):
    model = wrn().double()  # double, so that rounding cannot flip a sign
    x = torch.rand(5, 1, 8, 8, generator=seeded(), dtype=torch.float64)
    labels = torch.arange(5) % 3
    for make in (lower_energy, raise_cross_entropy):
        together = pgd(model, x, make(labels), threat, steps=4, step_size=0.05, keep=keep)
        for i in range(5):
            one = slice(i, i + 1)
            alone = pgd(model, x[one], make(labels[one]), threat, steps=4, step_size=0.05, keep=keep)
            torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-5)


class Breaks(nn.Module):
    """A network that fails at its third pass."""

    def __init__(self):
        super().__init__()
        self.network, self.passes = wrn(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == 3:
            raise RuntimeError("broken")
        return self.network(x)


def everything(model: nn.Module) -> tuple[list[bool], list[bool], list[Tensor | None], dict[str, Tensor]]:
    return (
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        {k: v.clone() for k, v in model.state_dict().items()},
    )


def assert_same(before: tuple, after: tuple) -> None:
    assert before[0] == after[0], "a module's mode changed"
    assert before[1] == after[1], "a requires_grad flag changed"
    for old, new in zip(before[2], after[2], strict=True):
        assert (old is None) == (new is None), "a gradient came or went"
        assert old is None or torch.equal(old, new)
    assert all(torch.equal(before[3][k], after[3][k]) for k in before[3]), "weights or statistics changed"


def mixed(model: nn.Module) -> nn.Module:
    """Train mode but for every third module, some weights frozen, some with gradients."""
    model.train()
    for i, module in enumerate(model.modules()):
        module.training = i % 3 != 1
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 2 == 0)
        parameter.grad = torch.full_like(parameter, float(i)) if i % 3 == 0 else None
    return model


@pytest.mark.parametrize("fails", ["nothing", "model", "objective", "callback"])
def test_the_model_is_left_as_it_was_found(fails):
    model = mixed(Breaks() if fails == "model" else wrn())
    x = torch.rand(4, 1, 8, 8, generator=seeded())
    kept = x.clone()

    def objective(logits: Tensor) -> Tensor:
        if fails == "objective":
            raise RuntimeError("broken")
        return lower_energy()(logits)

    def callback(t: int, x: Tensor, value: Tensor) -> None:
        assert not any(m.training for m in model.modules())
        if fails == "callback":
            raise RuntimeError("broken")

    before = everything(model)
    if fails == "nothing":
        assert not pgd(model, x, objective, steps=3, step_size=0.1, callback=callback).requires_grad
    else:
        with pytest.raises(RuntimeError, match="broken"):
            pgd(model, x, objective, steps=3, step_size=0.1, callback=callback)
    assert_same(before, everything(model))
    assert torch.equal(x, kept) and not x.requires_grad and x.grad is None


def test_an_input_that_carries_gradients_is_cut_off():
    model, weight = linear(), torch.tensor(1.0, requires_grad=True)
    x = middle() * weight
    moved = pgd(model, x, lower_energy(), steps=2, step_size=0.1)
    assert not moved.requires_grad and weight.grad is None
    assert not pgd(model, x, lower_energy(), steps=0, step_size=0.1).requires_grad


def test_frozen_blocks_weight_gradients_and_restores_them():
    model = mixed(wrn())
    before = everything(model)
    with frozen(model):
        assert not any(m.training for m in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
    assert_same(before, everything(model))


def test_gradients_are_on_inside_the_loop_even_under_no_grad():
    model, x = linear(), middle()
    expected = pgd(model, x, lower_energy(), steps=3, step_size=0.05)
    with torch.no_grad():
        assert torch.equal(pgd(model, x, lower_energy(), steps=3, step_size=0.05), expected)
        assert not torch.is_grad_enabled()


class Parabola(nn.Module):
    """logits (-50 (x - top)^2, 0) of one-pixel images, with `top` half-way through a step: a long step overshoots."""

    def __init__(self, top: float):
        super().__init__()
        self.top = nn.Parameter(torch.tensor(top))

    def forward(self, x: Tensor) -> Tensor:
        value = -50 * (x.flatten(1)[:, 0] - self.top) ** 2
        return torch.stack([value, torch.zeros_like(value)], dim=1)


def test_best_keeps_each_images_highest_iterate():
    model = Parabola(0.5)
    x = torch.tensor([0.1, 0.45, 0.9]).view(3, 1, 1, 1)  # steps of 0.3: 0.4; start; 0.6
    loop = {"steps": 4, "step_size": 0.3}
    objective = lower_energy(torch.zeros(3, dtype=torch.long))
    best = pgd(model, x, objective, keep="best", **loop)
    last = pgd(model, x, objective, keep="last", **loop)
    torch.testing.assert_close(best.flatten(), torch.tensor([0.4, 0.45, 0.6]), rtol=0, atol=1e-4)
    assert (objective(model(best)) >= objective(model(last))).all()
    assert (objective(model(best)) > objective(model(last)) + 0.1)[0]


def test_best_counts_the_last_iterate_too():
    model, x = linear(), middle(3)
    objective = lower_energy(torch.tensor([0, 1, 1]))
    # On a linear classifier the last iterate is the highest.
    last = pgd(model, x, objective, steps=3, step_size=0.02)
    assert torch.equal(pgd(model, x, objective, steps=3, step_size=0.02, keep="best"), last)


def test_callback_sees_every_iterate_from_start_to_result():
    seen: list[tuple[int, Tensor, Tensor]] = []
    model, x = smooth(), middle()
    objective = lower_energy(torch.zeros(6, dtype=torch.long))
    result = pgd(model, x, objective, steps=4, step_size=0.05, callback=lambda *a: seen.append(a))
    assert [t for t, _, _ in seen] == [0, 1, 2, 3, 4]
    assert torch.equal(seen[0][1], x) and torch.equal(seen[-1][1], result)
    for _, images, value in seen:
        assert not images.requires_grad and not value.requires_grad
        torch.testing.assert_close(value, objective(model(images)).detach())
    assert torch.equal(result, pgd(model, x, objective, steps=4, step_size=0.05))


def test_no_steps_return_the_images_and_one_call():
    seen: list[int] = []
    x = middle()
    assert torch.equal(
        pgd(linear(), x, lower_energy(), steps=0, step_size=0.1, callback=lambda t, *_: seen.append(t)), x
    )
    assert seen == [0]


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_is_inside_the_ball_and_not_its_centre(norm):
    starts: list[Tensor] = []
    x, threat = torch.rand(6, *SHAPE, generator=seeded()), ThreatModel(norm, 0.2)

    def loop() -> Tensor:
        return pgd(
            linear(),
            x,
            lower_energy(),
            threat,
            steps=2,
            step_size=0.05,
            random_start=True,
            generator=seeded(7),
            callback=lambda t, v, _: starts.append(v) if t == 0 else None,
        )

    first, second = loop(), loop()
    assert torch.equal(first, second)
    distance = image_norm(starts[0] - x, norm)
    assert (distance > 0.02).all() and (distance <= 0.2 + 1e-6).all()
    assert (image_norm(first - x, norm) <= 0.2 + 1e-6).all()  # the ball's centre is x, not the random start


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 7), (3, 2, 2), (5, 9, 3)], ids=str)
def test_any_module_of_any_size(shape):
    x = torch.rand(3, *shape, generator=seeded())
    moved = pgd(linear(2, shape), x, lower_energy(torch.tensor([0, 1, 0])), steps=4, step_size=0.5)
    assert moved.shape == x.shape and moved.min() >= 0 and moved.max() <= 1 and not torch.equal(moved, x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": -1, "step_size": 0.1}, "-1"),
        ({"steps": 1, "step_size": 0.0}, "step_size"),
        ({"steps": 1, "step_size": math.nan}, "nan"),
        ({"steps": 1, "step_size": 0.1, "keep": "first"}, "'first'.*'last' or 'best'"),
        ({"steps": 1, "step_size": 0.1, "random_start": True}, "finite eps"),
    ],
    ids=str,
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        pgd(linear(), middle(), lower_energy(), **settings)


@pytest.mark.parametrize("count", [1, 5])
def test_labels_that_are_not_one_per_image_are_refused(count):
    """Too few would leave the images at the end where they are, without a word."""
    with pytest.raises(ValueError, match="label"):
        pgd(linear(), middle(), lower_energy(torch.zeros(count, dtype=torch.long)), steps=1, step_size=0.1)


def test_schedules_have_the_same_path_and_fall():
    for schedule in ("constant", "linear", "cosine", "exponential"):
        sizes = step_sizes(schedule, 8, 0.3)
        assert sum(sizes) == pytest.approx(8 * 0.3) and len(sizes) == 8 and min(sizes) > 0
        assert sizes == sorted(sizes, reverse=True)
    assert step_sizes("linear", 2, 1.0) == [1.5, 0.5] and step_sizes("constant", 0, 1.0) == []
    # DDIM's steps sigma_t (sigma_t - sigma_{t+1}) of levels that fall to a hundredth
    ratio, first = 0.01 ** (1 / 8), 0.5
    ddim = [first**2 * ratio ** (2 * t) * (1 - ratio) for t in range(8)]
    assert step_sizes("exponential", 8, sum(ddim) / 8) == pytest.approx(ddim)
    with pytest.raises(ValueError, match="schedule is 'steep'"):
        step_sizes("steep", 3, 0.1)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "exponential"])
def test_steps_have_the_scheduled_lengths(schedule):
    """On a linear model far from the box's walls every step has exactly its length."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x, path = torch.full((2, 1, 4, 4), 0.5), []
    objective = lower_energy(torch.tensor([0, 2]))
    pgd(
        model,
        x,
        objective,
        steps=4,
        step_size=0.02,
        schedule=schedule,
        callback=lambda t, x, value: path.append(x),
    )
    lengths = [(b - a).flatten(1).norm(dim=1) for a, b in itertools.pairwise(path)]
    for length, size in zip(lengths, step_sizes(schedule, 4, 0.02), strict=True):
        torch.testing.assert_close(length, torch.full((2,), size), rtol=1e-3, atol=1e-6)


def test_momentum_is_that_of_the_formula_and_per_image():
    """v <- 0.5 v + g / ||g||_1, each step along v with length eta; against a loop written out in NumPy's manner."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))
    x, labels = torch.rand(3, 1, 4, 4) * 0.2 + 0.4, torch.tensor([0, 1, 2])
    found = pgd(model, x, lower_energy(labels), steps=3, step_size=0.05, momentum=0.5)
    for i in range(3):
        point, velocity = x[i : i + 1].clone(), torch.zeros(1, 1, 4, 4)
        for _ in range(3):
            point.requires_grad_(True)
            (gradient,) = torch.autograd.grad(model(point)[0, labels[i]], point)
            velocity = 0.5 * velocity + gradient / gradient.abs().sum()
            point = (point.detach() + 0.05 * velocity / velocity.norm()).clamp(0, 1)
        torch.testing.assert_close(found[i : i + 1], point, rtol=0, atol=1e-6)
    plain = pgd(model, x, lower_energy(labels), steps=3, step_size=0.05)
    assert not torch.allclose(found, plain, atol=1e-4)
    with pytest.raises(ValueError, match="momentum is 1"):
        pgd(model, x, lower_energy(labels), steps=1, step_size=0.1, momentum=1.0)


def quadratic(x: Tensor) -> Tensor:
    """-s(x) = 1/2 ||x - 1/2||^2: one logit, so that the marginal energy is a bowl around 1/2."""
    return -0.5 * (x - 0.5).flatten(1).square().sum(1, keepdim=True)


class Bowl(nn.Module):
    forward = staticmethod(quadratic)


def test_a_gradient_step_is_the_gradient_times_its_size():
    x = middle()
    found = pgd(Bowl(), x, lower_energy(), steps=1, step_size=0.3, rule="gradient", clip=False)
    torch.testing.assert_close(found, x + 0.3 * (0.5 - x))


def test_a_clipped_step_is_the_clipped_gradient_times_its_size():
    class Steep(nn.Module):
        forward = staticmethod(lambda x: 100 * quadratic(x))

    x = torch.tensor([0.1, 0.495, 0.9]).view(1, 1, 1, 3)
    found = pgd(Steep(), x, lower_energy(), steps=1, step_size=0.05, rule="clipped")
    torch.testing.assert_close(found.flatten(), torch.tensor([0.1 + 0.1, 0.495 + 0.05 * 0.5, 0.9 - 0.1]))


def test_langevin_dynamics_reaches_the_bowls_density():
    """x <- x + eta g + sigma z on E = 1/2 ||x - 1/2||^2 tends to N(1/2, sigma^2 / (1 - (1 - eta)^2))."""
    eta, sigma, generator = 0.3, 0.2, seeded(3)
    x = pgd(
        Bowl(),
        torch.rand(400, *SHAPE, generator=generator),
        lower_energy(),
        steps=40,
        step_size=eta,
        rule="gradient",
        noise=sigma,
        clip=False,
        generator=generator,
    )
    deviation = sigma / math.sqrt(1 - (1 - eta) ** 2)
    assert x.mean().item() == pytest.approx(0.5, abs=0.01)
    assert x.std().item() == pytest.approx(deviation, rel=0.03)


def test_iterates_leave_the_box_only_without_clip():
    class Outward(nn.Module):
        forward = staticmethod(lambda x: x.flatten(1).sum(1, keepdim=True))

    kept = pgd(Outward(), middle(), lower_energy(), steps=3, step_size=1.0, rule="gradient")
    free = pgd(Outward(), middle(), lower_energy(), steps=3, step_size=1.0, rule="gradient", clip=False)
    assert torch.equal(kept, torch.ones_like(kept))
    torch.testing.assert_close(free, middle() + 3)
    noisy = pgd(Outward(), middle(), lower_energy(), steps=2, step_size=0.1, noise=0.5, generator=seeded())
    assert noisy.min() >= 0 and noisy.max() <= 1


def test_noise_comes_from_the_generator():
    def run(seed: int) -> Tensor:
        return pgd(
            Bowl(), middle(), lower_energy(), steps=2, step_size=0.1, noise=0.1, generator=seeded(seed)
        )

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))


@pytest.mark.parametrize("noise", [-0.1, math.inf, math.nan])
def test_impossible_noise_is_refused(noise):
    with pytest.raises(ValueError, match="noise is"):
        pgd(Bowl(), middle(), lower_energy(), steps=1, step_size=0.1, noise=noise)


PRECISIONS = [torch.float16, torch.bfloat16]
RULES = [None, "L2", "Linf", "gradient", "clipped"]
STARTS = {
    "image": {},
    "random": {"random_start": True},
    "noise": {"noise": 0.02},
    "momentum": {"momentum": 0.5},
    "unclipped": {"clip": False, "noise": 0.02},
    "best": {"keep": "best", "random_start": True, "momentum": 0.5},
}


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("how", STARTS)
def test_a_half_precision_model_is_walked_in_float32(how, rule, norm, dtype):
    """As the same model in float32, up to the rounding of images and gradients; ball and box as exactly as there."""
    model, labels = linear(3), torch.arange(6) % 3
    half = linear(3).to(dtype)
    half.load_state_dict(model.state_dict())
    x, threat = middle(), ThreatModel(norm, 0.1)
    settings = {"steps": 4, "step_size": 0.02, "rule": rule, **STARTS[how]}
    expected = pgd(model, x, lower_energy(labels), threat, generator=seeded(3), **settings)
    for images in (x, x.to(dtype)):
        found = pgd(half, images, lower_energy(labels), threat, generator=seeded(3), **settings)
        assert found.dtype == torch.float32
        assert (image_norm(found - images, norm) <= 0.1 + 1e-6).all()
        if how == "best":  # rounding may choose among iterates of nearly the same value
            near = lower_energy(labels)(model(found)) > lower_energy(labels)(model(expected)) - 0.02
            assert near.all()
        else:
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)
    assert all(p.dtype == dtype for p in half.parameters())


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_where_the_gradient_of_a_half_precision_model_vanishes_images_stay(momentum, rule, dtype):
    model, x = linear().to(dtype), middle()
    nn.init.zeros_(model[1].weight)
    found = pgd(model, x, lower_energy(), steps=3, step_size=0.1, rule=rule, momentum=momentum)
    assert torch.equal(found, x)


@pytest.mark.parametrize("how", STARTS)
def test_the_default_type_changes_nothing(how, double_by_default):
    x, labels = middle().float(), torch.arange(6) % 3
    model, threat = linear(3).float(), ThreatModel("L2", 0.1)
    settings = {"steps": 3, "step_size": 0.02, **STARTS[how]}
    found = pgd(model, x, lower_energy(labels), threat, generator=seeded(3), **settings)
    torch.set_default_dtype(torch.float32)
    assert torch.equal(found, pgd(model, x, lower_energy(labels), threat, generator=seeded(3), **settings))


@pytest.mark.parametrize("how", STARTS)
def test_a_float64_model_is_walked_in_float64(how):
    seen: list[torch.dtype] = []
    model, labels = linear(3).double(), torch.arange(6) % 3
    settings = {"steps": 3, "step_size": 0.02, **STARTS[how]}
    for x in (middle(), middle().double()):
        found = pgd(
            model,
            x,
            lower_energy(labels),
            ThreatModel("L2", 0.1),
            callback=lambda t, x, value: seen.append(x.dtype),
            **settings,
        )
        assert found.dtype == torch.float64
    assert set(seen) == {torch.float64}
    direction = nn.functional.normalize(model[1].weight.detach()[labels]).view(6, *SHAPE)
    moved = pgd(model, x, lower_energy(labels), steps=4, step_size=0.02)
    torch.testing.assert_close(moved, x + 0.08 * direction, rtol=0, atol=5e-9)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (255 * middle(), r"images must lie in \[0, 1\], but go from 10[0-9.]* to 15"),
        (2 * middle() - 1, r"lie in \[0, 1\]"),
        (middle() * math.nan, "some are not finite"),
        ((255 * middle()).to(torch.uint8), r"in \[0, 1\], not uint8 .*: divide by 255"),
        (middle()[0], r"of shape \(N, C, H, W\)"),
    ],
    ids=["0..255", "-1..1", "nan", "uint8", "one image"],
)
def test_images_outside_0_1_are_refused(x, message):
    """They were clipped at the start without a word: the result lay 1,132 from an image of 0 to 255, and eps was 0.5."""
    for threat in (None, ThreatModel("L2", 0.5)):
        with pytest.raises(ValueError, match=message):
            pgd(linear(), x, lower_energy(), threat, steps=1, step_size=0.1)


def test_a_chain_without_clip_may_begin_anywhere_finite():
    x = 3 * middle() - 2
    found = pgd(linear(), x, lower_energy(), steps=1, step_size=0.1, clip=False)
    torch.testing.assert_close(image_norm(found - x, "L2"), torch.full((6,), 0.1))
    with pytest.raises(ValueError, match="must be finite"):
        pgd(linear(), x * math.inf, lower_energy(), steps=1, step_size=0.1, clip=False)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_weights_that_are_not_finite_are_refused_though_no_label_asks_for_them(keep):
    model = linear(3)
    model[1].weight.data[2, 5] = math.nan
    for objective in (
        lower_energy(torch.zeros(6, dtype=torch.long)),
        raise_cross_entropy(torch.arange(6) % 3),
    ):
        with pytest.raises(ValueError, match="logits of 6 of 6 images are not finite"):
            pgd(model, middle(), objective, steps=2, step_size=0.1, keep=keep)


def test_logits_or_gradients_that_overflow_on_the_way_are_refused():
    class Cliff(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            total = x.flatten(1).sum(1, keepdim=True)
            return torch.where(total > 14, total * math.inf, total).expand(-1, 2)

    class Kink(nn.Module):
        """The gradient of a norm at 0 is 0 / 0."""

        def forward(self, x: Tensor) -> Tensor:
            return (x - x[:, :1]).flatten(1).square().sum(1, keepdim=True).sqrt().expand(-1, 2)

    for keep in ("last", "best"):
        with pytest.raises(ValueError, match="not finite"):
            pgd(Cliff(), middle(), lower_energy(), steps=9, step_size=0.3, keep=keep)
        with pytest.raises(ValueError, match="gradients? .*not finite"):
            pgd(Kink(), torch.full((2, 1, 2, 2), 0.5), lower_energy(), steps=2, step_size=0.3, keep=keep)


def test_finiteness_is_looked_at_once_a_call_and_not_in_every_step(monkeypatch):
    looks = []
    original = Tensor.__bool__
    monkeypatch.setattr(Tensor, "__bool__", lambda self: looks.append(1) or original(self))
    counts = []
    for steps in (2, 12):
        looks.clear()
        pgd(linear(), middle(), lower_energy(), steps=steps, step_size=0.1)
        counts.append(len(looks))
    assert counts[0] == counts[1] > 0
    looks.clear()
    pgd(linear(), middle(), lower_energy(), steps=3, step_size=0.1, checked=False)
    assert not looks


def test_unchecked_as_in_training_it_goes_where_it_goes():
    model = linear()
    model[1].weight.data[0, 0] = math.nan
    assert pgd(model, middle(), lower_energy(), steps=1, step_size=0.1, checked=False).isnan().any()
    x = 3 * middle()
    kept = pgd(linear(), x, lower_energy(), steps=0, step_size=0.1, checked=False)
    assert torch.equal(kept, x.clamp(0, 1))


def test_models_that_give_more_than_logits_and_models_without_parameters():
    class Pair(nn.Module):
        def __init__(self, as_dict: bool):
            super().__init__()
            self.network, self.as_dict = linear(), as_dict

        def forward(self, x: Tensor) -> object:
            logits = self.network(x)
            return {"logits": logits, "features": x.flatten(1)} if self.as_dict else (logits, x)

    expected = pgd(linear(), middle(), lower_energy(), steps=3, step_size=0.05, keep="best")
    for as_dict in (False, True):
        found = pgd(Pair(as_dict), middle(), lower_energy(), steps=3, step_size=0.05, keep="best")
        assert torch.equal(found, expected)
    assert pgd(Bowl(), middle(), lower_energy(), steps=1, step_size=0.1).shape == (6, *SHAPE)
