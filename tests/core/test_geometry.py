"""Steps, projections and random starts: closed forms, image by image."""

import math

import pytest
import torch

from dualat.core.geometry import ThreatModel, accumulate, ascent, image_norm

NORMS = ("L2", "Linf")
SHAPE = (5, 2, 3, 4)
DIMENSION = 24


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(SHAPE, generator=seeded())


def test_image_norms_by_hand():
    x = torch.tensor([[3.0, -4.0], [1.0, 0.0]]).view(2, 1, 1, 2)
    assert image_norm(x, "L2").tolist() == [5.0, 1.0]
    assert image_norm(x, "Linf").tolist() == [4.0, 1.0]


def test_l2_step_has_its_length_and_the_gradients_direction():
    gradient = noise() * torch.tensor([1e-3, 1.0, 1e3, 5.0, 2.0]).view(-1, 1, 1, 1)
    step = ThreatModel("L2", 1.0).step(gradient, 0.3)
    torch.testing.assert_close(image_norm(step, "L2"), torch.full((5,), 0.3))
    cosine = torch.cosine_similarity(step.flatten(1), gradient.flatten(1))
    torch.testing.assert_close(cosine, torch.ones(5))


def test_linf_step_is_the_sign():
    gradient = torch.tensor([[0.001, -7.0, 0.0]]).view(1, 1, 1, 3)
    assert ThreatModel("Linf", 1.0).step(gradient, 0.25).flatten().tolist() == [0.25, -0.25, 0.0]


@pytest.mark.parametrize("norm", NORMS)
def test_a_vanishing_gradient_gives_no_step(norm):
    assert torch.equal(ThreatModel(norm, 1.0).step(torch.zeros(SHAPE), 0.5), torch.zeros(SHAPE))


def test_l2_projection_is_the_nearest_point_of_the_ball():
    centre = torch.full((2, 1, 1, 2), 0.5)
    x = centre + torch.tensor([[0.3, 0.4], [0.03, 0.04]]).view(2, 1, 1, 2)
    projected = ThreatModel("L2", 0.1).project(x, centre) - centre
    torch.testing.assert_close(projected.flatten(1), torch.tensor([[0.06, 0.08], [0.03, 0.04]]))


def test_linf_projection_clamps_each_pixel():
    centre = torch.full((1, 1, 1, 3), 0.5)
    x = centre + torch.tensor([0.3, -0.4, 0.05]).view(1, 1, 1, 3)
    projected = ThreatModel("Linf", 0.1).project(x, centre)
    torch.testing.assert_close(projected.flatten(), torch.tensor([0.6, 0.4, 0.55]))


@pytest.mark.parametrize("norm", NORMS)
def test_projection_stays_in_ball_and_box_even_at_the_boxs_corner(norm):
    centre = torch.rand(SHAPE, generator=seeded(1)).round()  # corners of the box
    threat = ThreatModel(norm, 0.2)
    x = threat.project(centre + noise(), centre)
    assert x.min() >= 0 and x.max() <= 1
    assert (image_norm(x - centre, norm) <= 0.2 + 1e-6).all()
    torch.testing.assert_close(threat.project(x, centre), x)


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_ball_projection_is_the_box_alone(norm):
    x = noise(3.0)
    assert torch.equal(ThreatModel(norm, math.inf).project(x, torch.zeros(SHAPE)), x.clamp(0, 1))


@pytest.mark.parametrize("norm", NORMS)
def test_one_image_does_not_change_anothers_step_or_projection(norm):
    threat, centre, gradient = ThreatModel(norm, 0.2), torch.full(SHAPE, 0.5), noise()
    for i in range(SHAPE[0]):
        one = slice(i, i + 1)
        torch.testing.assert_close(threat.step(gradient, 0.1)[one], threat.step(gradient[one], 0.1))
        torch.testing.assert_close(
            threat.project(gradient, centre)[one], threat.project(gradient[one], centre[one])
        )


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_is_uniform_in_the_ball(norm):
    centre = torch.full((4000, *SHAPE[1:]), 0.5)
    offset = ThreatModel(norm, 0.1).random_start(centre, seeded()) - centre
    radius = image_norm(offset, norm) / 0.1
    assert radius.max() <= 1 + 1e-5
    # In D dimensions, P(radius <= r) = r^D for both balls: mean D / (D + 1), not 1 (surface) and not 1/2.
    assert radius.mean().item() == pytest.approx(DIMENSION / (DIMENSION + 1), abs=4e-3)
    assert radius.std().item() == pytest.approx(
        math.sqrt(DIMENSION / (DIMENSION + 2)) / (DIMENSION + 1), rel=0.1
    )
    assert offset.mean(0).abs().max() < 0.01


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_respects_the_box_and_the_seed(norm):
    centre = torch.rand(SHAPE, generator=seeded(1)).round()
    threat = ThreatModel(norm, 0.5)
    x = threat.random_start(centre, seeded(3))
    assert x.min() >= 0 and x.max() <= 1 and (image_norm(x - centre, norm) <= 0.5 + 1e-6).all()
    assert torch.equal(x, threat.random_start(centre, seeded(3)))
    assert not torch.equal(x, threat.random_start(centre, seeded(4)))
    assert torch.equal(ThreatModel(norm, 0.0).random_start(centre), centre)


def test_bad_threat_models_are_refused():
    with pytest.raises(ValueError, match=r"'l3'.*'L2' or 'Linf'"):
        ThreatModel("l3", 1.0)  # type: ignore[arg-type]
    for eps in (-0.1, math.nan):
        with pytest.raises(ValueError, match="eps"):
            ThreatModel("L2", eps)
    with pytest.raises(ValueError, match="finite eps"):
        ThreatModel("L2").random_start(torch.zeros(SHAPE))


@pytest.mark.parametrize("norm", NORMS)
def test_a_random_start_is_drawn_where_its_generator_is(norm, monkeypatch):
    """Images on a GPU with a CPU's generator; PyTorch itself refuses to draw there. "meta" stands for the GPU."""
    drawn = []

    def drawing(function):
        def draw(*args, generator=None, device=None, **kwargs):
            drawn.append(device)
            return function(*args, generator=generator, device=device, **kwargs)

        return draw

    monkeypatch.setattr(torch, "rand", drawing(torch.rand))
    monkeypatch.setattr(torch, "randn", drawing(torch.randn))
    threat = ThreatModel(norm, 0.1)
    start = threat.random_start(torch.empty(SHAPE, device="meta"), seeded())
    assert start.device.type == "meta" and {torch.device(d).type for d in drawn} == {"cpu"}
    drawn.clear()
    threat.random_start(torch.empty(SHAPE, device="meta"))
    assert {torch.device(d).type for d in drawn} == {"meta"}


HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("rule", ["L2", "Linf", "gradient", "clipped"])
def test_in_half_precision_a_vanishing_gradient_gives_no_step(rule, dtype):
    """The constant that guards the division is 0 in float16."""
    nothing = torch.zeros(SHAPE, dtype=dtype)
    assert torch.equal(ascent(nothing, rule, 0.5).float(), torch.zeros(SHAPE))
    assert torch.equal(accumulate(nothing, nothing, 0.9).float(), torch.zeros(SHAPE))


@pytest.mark.parametrize("dtype", HALVES)
def test_norms_and_steps_of_half_precision_are_taken_in_float32(dtype):
    large = torch.full(SHAPE, 3e4, dtype=dtype)  # its norm is beyond float16
    assert image_norm(large, "L2").dtype == torch.float32
    torch.testing.assert_close(
        image_norm(large, "L2"), large.float().flatten(1).norm(dim=1), rtol=1e-6, atol=0
    )
    for gradient in (large, noise().to(dtype), 1e-6 * noise().to(dtype)):
        torch.testing.assert_close(ascent(gradient, "L2", 0.3), ascent(gradient.float(), "L2", 0.3))
    centre = torch.rand(SHAPE, generator=seeded()).to(dtype)
    for norm in NORMS:
        threat = ThreatModel(norm, 0.1)
        start = threat.random_start(centre, seeded(1))
        torch.testing.assert_close(start, threat.random_start(centre.float(), seeded(1)))
        assert start.dtype == torch.float32 and (image_norm(start - centre, norm) <= 0.1 + 1e-6).all()


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_do_not_depend_on_the_default_type(norm, double_by_default):
    centre, threat = torch.rand(SHAPE, generator=seeded(), dtype=torch.float32), ThreatModel(norm, 0.1)
    start = threat.random_start(centre, seeded(1))
    torch.set_default_dtype(torch.float32)
    assert torch.equal(start, threat.random_start(centre, seeded(1)))
