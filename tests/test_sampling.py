"""Samples: the closed form on a linear model, batches and seeds, labels, and initial distributions by name."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import dualat
from dualat.config import load_recipe
from dualat.core.loop import pgd
from dualat.core.objectives import lower_energy
from dualat.data.distributions import Gaussian, InitialDistribution
from dualat.data.images import ImageData
from dualat.data.initial import build_initial
from dualat.data.settings import InitialSettings
from dualat.models.model import LoadedModel, ModelDescription, SamplingSettings
from dualat.models.settings import NetworkSettings
from dualat.sampling import descend, draw

SHAPE = (1, 4, 5)
CLASSES = 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loaded(network: nn.Module | None = None, initial: str | None = "uniform") -> LoadedModel:
    settings = InitialSettings(kind=initial) if initial else None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = network or nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), CLASSES))
    description = ModelDescription(
        network=NetworkSettings(name="wrn-10-1"),
        class_names=["a", "b", "c"],
        shape=SHAPE,
        normalized=False,
        initial=settings,
        sampling=SamplingSettings(steps=6, step_size=0.07),
    )
    return LoadedModel(network, description, build_initial(settings, SHAPE, None) if settings else None)


class Grey(InitialDistribution):
    """Grey images, each a little different."""

    def sample(
        self, n: int, labels: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        return 0.45 + 0.1 * torch.rand(n, *self.shape, generator=generator)


def normalised() -> nn.Module:
    """A network whose running statistics are far from any batch's."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(20), nn.Linear(20, CLASSES)).eval()


def test_chains_with_the_statistics_of_the_batch():
    """As the loss of JEM++ and SADA-JEM sees them: a step is that of the network in train mode, which learns nothing by it."""
    network, labels = normalised(), torch.tensor([0, 1, 2, 1])
    model, starts = loaded(network), Grey(SHAPE).sample(4, generator=seeded())
    before = {k: v.clone() for k, v in network.state_dict().items()}
    own = SamplingSettings(steps=1, step_size=0.3, batch_statistics=True)
    found = descend(model, starts, labels, own)
    x = starts.clone().requires_grad_()
    scores = network[2](nn.functional.batch_norm(x.flatten(1), None, None, training=True))
    (g,) = torch.autograd.grad(scores[torch.arange(4), labels].sum(), x)
    step = 0.3 * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(found, (starts + step).clamp(0, 1), rtol=1e-4, atol=1e-5)
    plain = descend(model, starts, labels, replace(own, batch_statistics=False))
    assert (plain - found).abs().max() > 0.01
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert own.recorded()["batch_statistics"] is True
    assert not {"batch_statistics", "start"} & replace(own, batch_statistics=False).recorded().keys()


@pytest.mark.parametrize(
    ("method", "overrides", "expected"),
    [
        ("sada-jem", {}, True),
        ("jempp", {}, True),
        ("eb-jdat", {}, True),
        ("jem", {}, False),
        ("dat", {}, False),
        ("sada-jem", {"stage1.freeze_batchnorm": True}, False),
        ("sada-jem", {"sampling.batch_statistics": False}, False),
        ("dat", {"sampling.batch_statistics": True}, True),
    ],
)
def test_each_system_is_sampled_as_its_authors_do(method, overrides, expected):
    config = load_recipe("digits", {"method": method, **overrides})
    assert config.sampling.batch_statistics is expected


def test_samples_of_a_linear_model_are_the_starts_moved_along_the_classs_weights():
    model, labels = loaded(), torch.tensor([2, 0, 1, 1])
    starts = Grey(SHAPE).sample(4, generator=seeded())
    x = dualat.sample(model, labels, steps=4, step_size=0.05, initial=Grey(SHAPE), generator=seeded())
    direction = nn.functional.normalize(model.network[1].weight.detach()[labels]).view(starts.shape)
    torch.testing.assert_close(x, starts + 0.2 * direction)


def test_samples_have_lower_energy_than_their_starts():
    model, labels = loaded(), torch.arange(9) % 3
    starts = dualat.sample(model, labels, steps=0, generator=seeded())
    x = dualat.sample(model, labels, generator=seeded())
    assert (model.energy(x, labels) < model.energy(starts, labels)).all()
    free = dualat.sample(model, 9, conditional=False, generator=seeded())
    assert (model.energy(free) < model.energy(starts)).all()
    assert x.min() >= 0 and x.max() <= 1 and x.shape == (9, *SHAPE) and not x.requires_grad


def test_marginal_samples_descend_the_marginal_energy():
    model = loaded()
    starts = model.initial.sample(4, None, seeded())
    expected = pgd(model, starts, lower_energy(), steps=6, step_size=0.07)
    assert torch.equal(dualat.sample(model, 4, conditional=False, generator=seeded()), expected)
    assert torch.equal(dualat.sample(model, [0, 1, 2, 0], conditional=False, generator=seeded()), expected)


def test_the_models_own_steps_are_the_default():
    model, labels = loaded(), torch.tensor([0, 1])
    own = dualat.sample(model, labels, generator=seeded())
    assert torch.equal(own, dualat.sample(model, labels, steps=6, step_size=0.07, generator=seeded()))
    assert not torch.equal(own, dualat.sample(model, labels, steps=5, generator=seeded()))
    assert not torch.equal(own, dualat.sample(model, labels, step_size=0.02, generator=seeded()))
    for other in ({"schedule": "linear"}, {"momentum": 0.5}):
        assert not torch.equal(own, dualat.sample(model, labels, **other, generator=seeded()))


def test_noise_at_the_start_is_the_generators_and_of_its_size():
    model, labels = loaded(), torch.zeros(400, dtype=torch.long)
    settings = SamplingSettings(steps=0, start_noise=0.1, clip=False)
    first, again = (draw(model, model.initial, 400, labels, settings, generator=seeded()) for _ in range(2))
    plain = draw(model, model.initial, 400, labels, replace(settings, start_noise=0.0), generator=seeded())
    assert torch.equal(first, again)
    inside = (plain > 0.4) & (plain < 0.6)  # where nothing is cut off
    assert (first - plain)[inside].std().item() == pytest.approx(0.1, rel=0.15)
    with pytest.raises(ValueError, match="sampling.start_noise is -1"):
        SamplingSettings(start_noise=-1.0)


def test_seeds_decide_the_samples():
    model = loaded()
    first = dualat.sample(model, [0, 1], generator=seeded(1))
    assert torch.equal(first, dualat.sample(model, [0, 1], generator=seeded(1)))
    assert not torch.equal(first, dualat.sample(model, [0, 1], generator=seeded(2)))


def test_batch_size_does_not_change_samples():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(24, 3)
        )
    model, labels = loaded(network.train()), torch.arange(7) % 3

    def drawn(size: int) -> Tensor:
        settings = SamplingSettings(steps=5, step_size=0.1)
        return draw(model, model.initial, 7, labels, settings, generator=seeded(), batch_size=size)

    for size in (1, 3):
        torch.testing.assert_close(drawn(size), drawn(500), rtol=0, atol=1e-5)


def test_mixed_labels_are_each_their_own_class():
    model = loaded()
    starts = model.initial.sample(3, None, seeded())
    x = dualat.sample(model, [2, 0, 2], generator=seeded())
    for i, label in enumerate([2, 0, 2]):
        objective = lower_energy(torch.tensor([label]))
        alone = pgd(model, starts[i : i + 1], objective, steps=6, step_size=0.07)
        torch.testing.assert_close(x[i : i + 1], alone)


def test_callback_follows_the_whole_path():
    seen: list[int] = []
    dualat.sample(loaded(), [0, 1], steps=3, callback=lambda t, x, value: seen.append(t))
    assert seen == [0, 1, 2, 3]


def test_no_labels_give_no_images():
    assert dualat.sample(loaded(), []).shape == (0, *SHAPE)


def test_initial_distributions_by_name():
    model = loaded(initial=None)
    noise = dualat.sample(model, [0, 1], steps=0, initial="noise", generator=seeded())
    assert torch.equal(noise, dualat.sample(model, [0, 1], steps=0, initial="uniform", generator=seeded()))
    assert torch.equal(noise, torch.rand(2, *SHAPE, generator=seeded()))
    normal = InitialSettings(kind="normal", mean=0.3, std=0.01)
    x = dualat.sample(model, [0] * 50, steps=0, initial=normal, generator=seeded())
    assert x.mean().item() == pytest.approx(0.3, abs=0.005)


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ([0, 3], {}, "label 3 does not exist"),
        ([-1], {}, "label -1 does not exist"),
        (4, {}, "conditional=False"),
        ([0], {"initial": "unifrom"}, "'unifrom' is unknown.*uniform"),
        ([0], {"initial": "images"}, "source"),
        ([0], {"initial": "gaussian"}, "fitted to training images"),
        (-4, {"conditional": False}, "-4"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_refused(labels, settings, message):
    with pytest.raises(ValueError, match=message):
        dualat.sample(loaded(), labels, **settings)


def test_a_model_without_an_initial_distribution_asks_for_one():
    with pytest.raises(ValueError, match="initial"):
        dualat.sample(loaded(initial=None), [0])


def test_without_a_class_starts_from_class_gaussians_are_of_any_class():
    mean = torch.tensor([0.2, 0.5, 0.8])[:, None].expand(3, math.prod(SHAPE))
    start = Gaussian(SHAPE, mean, torch.zeros(3, math.prod(SHAPE), 1), per_class=True)
    images = dualat.sample(loaded(), 60, conditional=False, initial=start, steps=0, generator=seeded())
    assert sorted({round(v, 3) for v in images.flatten().tolist()}) == [0.2, 0.5, 0.8]
    again = dualat.sample(loaded(), 60, conditional=False, initial=start, steps=0, generator=seeded())
    assert torch.equal(images, again)


SAMPLERS = {
    "L2": {},
    "start noise": {"start_noise": 0.3},
    "Langevin": {"rule": "gradient", "noise": 0.05, "clip": False},
    "clipped": {"rule": "clipped", "noise": 0.05},
    "unclipped from noise": {"rule": "gradient", "start_noise": 0.3, "clip": False},
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_every_precision_are_sampled_by_every_rule(name, dtype):
    model = loaded()
    model.description.sampling = replace(model.sampling, **SAMPLERS[name])
    expected = dualat.sample(model, [0, 1, 2], generator=seeded(2))
    found = dualat.sample(model.to(dtype), [0, 1, 2], generator=seeded(2))
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.01)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_default_type_does_not_change_how_starts_are_carried(name, double_by_default):
    model = loaded().float()
    sampler = replace(model.sampling, **SAMPLERS[name])
    starts = torch.rand(3, *SHAPE, generator=seeded(), dtype=torch.float32)
    found = descend(model, starts, torch.arange(3), sampler, seeded(1))
    torch.set_default_dtype(torch.float32)
    assert torch.equal(found, descend(model, starts, torch.arange(3), sampler, seeded(1)))


def test_noise_added_to_the_start_may_leave_the_box_but_the_start_may_not():
    model, x = loaded(), torch.rand(3, *SHAPE, generator=seeded())
    for sampling in ({"start_noise": 0.5}, {"start_noise": 0.5, "clip": False}, {}):
        sampler = replace(model.sampling, **sampling)
        assert descend(model, x, torch.arange(3), sampler, seeded()).aminmax().max <= 1
        with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], but go from "):
            descend(model, 255 * x, torch.arange(3), sampler, seeded())


def test_a_model_that_is_not_finite_gives_no_samples():
    model = loaded()
    model.network[1].weight.data[2, 3] = math.nan
    with pytest.raises(ValueError, match="logits of 2 of 2 images are not finite"):
        dualat.sample(model, [0, 1])
    with pytest.raises(ValueError, match="not finite"):
        dualat.sample(model, 2, conditional=False)


def test_a_network_without_parameters_is_sampled_too():
    class Bright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            total = x.flatten(1).sum(1)
            return torch.stack([-total, torch.zeros_like(total), total], dim=1)

    x = dualat.sample(loaded(Bright()), [0, 2], steps=60, generator=seeded())
    assert x[0].mean() < 0.1 and x[1].mean() > 0.9


@pytest.mark.parametrize("kind", ["gaussian", "class-gaussian", "uniform", "normal", "smooth-noise"])
def test_the_default_type_does_not_change_samples(kind, double_by_default):
    model = loaded().float()
    images = torch.randint(0, 256, (30, *SHAPE), dtype=torch.uint8, generator=seeded())
    data = ImageData(images, torch.arange(30) % 3, ("a", "b", "c"), "toy")
    torch.set_default_dtype(torch.float32)
    initial = build_initial(InitialSettings(kind=kind), SHAPE, data)
    expected = dualat.sample(model, [0, 1, 2], initial=initial, generator=seeded())
    torch.set_default_dtype(torch.float64)
    found = dualat.sample(model, [0, 1, 2], initial=initial, generator=seeded())
    assert torch.equal(found, expected)


def bare() -> nn.Module:
    return loaded().network.train()


def test_a_bare_module_is_sampled_from_given_starts_in_their_order():
    module, labels = bare(), torch.tensor([2, 0, 1, 1])
    starts = Grey(SHAPE).sample(4, generator=seeded())
    x = dualat.sample(module, labels, steps=4, step_size=0.05, initial=starts)
    direction = nn.functional.normalize(module[1].weight.detach()[labels]).view(starts.shape)
    torch.testing.assert_close(x, starts + 0.2 * direction)
    assert torch.equal(dualat.sample(module, labels, steps=0, initial=starts), starts) and module.training
    for initial, given in ((Grey(SHAPE), {}), ("uniform", {"shape": SHAPE})):
        own, whole = (
            dualat.sample(m, labels, steps=3, step_size=0.1, initial=initial, generator=seeded(), **given)
            for m in (module, loaded(module))
        )
        assert torch.equal(own, whole)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {},
            r"a bare module carries no initial distribution .*: pass one, as in initial='uniform' with shape=",
        ),
        ({"initial": "uniform"}, r"does not tell the shape of its images: pass shape=\(C, H, W\)\.$"),
        ({"initial": "gaussian", "shape": SHAPE}, "fitted to training images"),
        (
            {"initial": torch.rand(3, *SHAPE)},
            "initial holds 3 images to start from, but 2 samples are wanted",
        ),
        ({"initial": torch.rand(2, *SHAPE) + 1}, r"initial must lie in \[0, 1\]"),
        ({"initial": torch.rand(2, 1, 9, 9)}, r"the model cannot take images of shape \(1, 9, 9\)"),
        ({"initial": torch.rand(2, *SHAPE), "shape": (3, 4, 5)}, r"initial has images of shape \(1, 4, 5\)"),
    ],
)
def test_what_a_bare_module_lacks_is_asked_for(given, told):
    with pytest.raises(ValueError, match=told):
        dualat.sample(bare(), [0, 1], **given)


def test_labels_that_a_bare_module_lacks_are_refused():
    with pytest.raises(ValueError, match="label 3 does not exist: this model has the classes 0 to 2"):
        dualat.sample(bare(), [0, 3], initial=torch.rand(2, *SHAPE))
