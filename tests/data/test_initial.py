"""Initial distributions: moments against NumPy, saving and restoring, distance and the path warning."""

import numpy as np
import pytest
import torch
from pictures_on_disk import write_classes

from dualat.data import principal
from dualat.data.decode import View
from dualat.data.distance import distance_to_data, path_warning
from dualat.data.draws import Draws
from dualat.data.folder import open_class_folder
from dualat.data.images import ImageData
from dualat.data.in_distribution import load_images, load_splits
from dualat.data.initial import build_initial, part_of, restore_initial
from dualat.data.principal import fit_gaussian
from dualat.data.settings import DataSettings, InitialSettings

SHAPE = (1, 3, 3)
KINDS = {
    "gaussian": {},
    "class-gaussian": {"rank": 4},
    "uniform": {},
    "normal": {"mean": 0.4, "std": 0.1},
    "smooth-noise": {"blur": 1.0},
    "images": {"source": "digits"},
    "mixture": {"parts": {"class-gaussian": 2, "gaussian": 1, "uniform": 1}, "rank": 4},
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def toy(n: int = 300) -> ImageData:
    """Images around class means, with correlated pixels, far from 0 and 255."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    mixing = rng.normal(size=(9, 9)) * 5
    values = 110 + 40 * labels[:, None] + rng.normal(size=(n, 9)) @ mixing
    images = torch.from_numpy(values.clip(0, 255).astype(np.uint8)).view(n, *SHAPE)
    return ImageData(images, torch.from_numpy(labels), ("a", "b"), "toy")


@pytest.mark.parametrize("count", [300, 6])  # more images than pixels, and fewer
def test_full_rank_fit_is_the_sample_mean_and_covariance(count):
    images = toy(count).images
    mean, factor = fit_gaussian(images, rank=9)
    flat = images.flatten(1).double().numpy() / 255
    np.testing.assert_allclose(mean, flat.mean(0), atol=1e-6)
    np.testing.assert_allclose(factor @ factor.T, np.cov(flat.T), atol=1e-7)
    assert torch.equal(factor, fit_gaussian(images, rank=9)[1])


def test_low_rank_keeps_the_largest_variances():
    images = toy().images
    _, factor = fit_gaussian(images, rank=2)
    spectrum = np.linalg.eigvalsh(np.cov(images.flatten(1).double().numpy().T / 255))
    np.testing.assert_allclose(factor.square().sum(0), spectrum[::-1][:2], rtol=1e-4)


@pytest.mark.parametrize("count", [60, 150])  # fewer images than pixels, and more
def test_subspace_iteration_agrees_with_the_exact_components(monkeypatch, count):
    x = torch.randn(count, 100, generator=seeded(), dtype=torch.float64) * torch.logspace(0, -3, 100)
    exact = principal.scaled_components(x, 5)
    _, values, vectors = np.linalg.svd(x.numpy(), full_matrices=False)
    np.testing.assert_allclose(exact.abs(), np.abs(vectors[:5].T * values[:5]), atol=1e-9)
    monkeypatch.setattr(principal, "_EXACT_UP_TO", 10)
    iterated = principal.scaled_components(x, 5)
    torch.testing.assert_close(
        iterated @ iterated.T, exact @ exact.T, atol=1e-6 * float(exact.square().sum()), rtol=0
    )
    assert not torch.equal(iterated, exact) and torch.equal(iterated, principal.scaled_components(x, 5))


def test_one_image_gives_a_point():
    mean, factor = fit_gaussian(toy(1).images, rank=3)
    assert torch.equal(factor, torch.zeros(9, 3)) and torch.allclose(mean, toy(1).float()[0].flatten())


def test_gaussian_samples_have_the_datas_moments():
    data = toy()
    start = (
        build_initial(InitialSettings(kind="gaussian"), SHAPE, data).sample(20_000, None, seeded()).flatten(1)
    )
    flat = data.float().flatten(1)
    assert (start.mean(0) - flat.mean(0)).abs().max() < 0.005
    assert (start.T.cov() - flat.T.cov()).abs().max() < 0.05 * flat.T.cov().max()


def test_class_gaussian_follows_the_labels():
    data = toy()
    initial = build_initial(InitialSettings(kind="class-gaussian"), SHAPE, data)
    labels = torch.arange(4000) % 2
    start = initial.sample(4000, labels, seeded())
    for label in (0, 1):
        own = data.float(data.labels == label)
        assert (start[labels == label].mean(0) - own.mean(0)).abs().max() < 0.02
        assert (start[labels == label].flatten(1).T.cov() - own.flatten(1).T.cov()).abs().max() < 0.003
    with pytest.raises(ValueError, match="needs a label"):
        initial.sample(3)
    with pytest.raises(ValueError, match="0 to 1"):
        initial.sample(2, torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="shape"):
        initial.sample(3, torch.tensor([0, 1]))


def test_every_kind_draws_its_part_of_a_batch():
    data, labels = toy(), torch.arange(8) % 2
    for kind, values in KINDS.items():
        initial = build_initial(InitialSettings(kind=kind, **values), SHAPE, data)
        whole = initial.sample(8, labels, seeded())
        for part in (slice(0, 5), slice(5, 8)):
            some = initial.sample(len(labels[part]), labels[part], Draws(seeded(), 8, part))
            torch.testing.assert_close(some, whole[part])


def test_gaussians_are_fitted_to_images_on_disk(tmp_path):
    write_classes(tmp_path, {"a": 12, "b": 10})
    train = load_images(str(tmp_path), None, (3, 4, 4))
    files = open_class_folder(tmp_path, View((3, 4, 4)))
    for kind in ("gaussian", "class-gaussian"):
        settings = InitialSettings(kind=kind, rank=3)
        held, on_disk = (build_initial(settings, (3, 4, 4), data).state() for data in (train, files))
        assert all(torch.equal(held[name], on_disk[name]) for name in held)
    assert files._images is None, "not all of them were read at once"


def test_class_gaussian_sample_depends_on_its_own_label_only():
    initial = build_initial(InitialSettings(kind="class-gaussian"), SHAPE, toy())
    one = initial.sample(4, torch.tensor([0, 0, 1, 1]), seeded())
    two = initial.sample(4, torch.tensor([0, 1, 0, 1]), seeded())
    torch.testing.assert_close(one[[0, 3]], two[[0, 3]])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_samples_in_range_and_survives_saving(kind):
    settings, data = InitialSettings(kind=kind, **KINDS[kind]), toy()
    initial = build_initial(settings, SHAPE, data).to("cpu")
    labels = torch.tensor([0, 1, 1, 0, 1])
    start = initial.sample(5, labels, seeded())
    assert start.shape == (5, *SHAPE) and start.dtype == torch.float32
    assert start.min() >= 0 and start.max() <= 1 and start.std() > 0
    assert torch.equal(start, initial.sample(5, labels, seeded()))
    assert not torch.equal(start, initial.sample(5, labels, seeded(1)))
    assert initial.sample(2, labels[:2]).shape == (2, *SHAPE)  # PyTorch's own generator
    state = initial.state()
    assert all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in state.values())
    restored = restore_initial(settings, SHAPE, state)
    if kind == "images":
        assert len(state["images"]) == 1000  # of about 1,300
        initial = restore_initial(settings, SHAPE, restored.state())
    assert torch.equal(restored.sample(5, labels, seeded()), initial.sample(5, labels, seeded()))
    with pytest.raises(ValueError, match="save the model again"):
        restore_initial(settings, SHAPE, {"weights": torch.zeros(3)})


def test_a_mixture_draws_its_parts_in_their_shares():
    values = {"parts": {"normal": 3, "uniform": 1}, "mean": 0.0, "std": 1e-6}
    settings = InitialSettings(kind="mixture", **values)
    start = build_initial(settings, SHAPE, None).sample(4000, None, seeded())
    dark = (start.flatten(1).amax(1) < 1e-3).float().mean().item()
    assert abs(dark - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5  # four standard errors


def test_a_part_of_a_mixture_is_what_its_kind_alone_is():
    parts, data = {"class-gaussian": 0.5, "smooth-noise": 0.5}, toy()
    mixed = InitialSettings(kind="mixture", parts=parts, rank=4, blur=1.0)
    initial, labels = build_initial(mixed, SHAPE, data), torch.tensor([0, 1, 1])
    alone = build_initial(InitialSettings(kind="class-gaussian", rank=4), SHAPE, data)
    drawn = part_of(initial, "class-gaussian").sample(3, labels, seeded())
    assert torch.equal(drawn, alone.sample(3, labels, seeded()))
    assert initial.classes == 2 and set(initial.state()) == {"class-gaussian.mean", "class-gaussian.factor"}
    with pytest.raises(ValueError, match="no part 'uniform': give class-gaussian or smooth-noise"):
        part_of(initial, "uniform")
    with pytest.raises(ValueError, match="is no mixture"):
        part_of(alone, "uniform")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"parts": {"uniform": 1}}, "at least two kinds"),
        ({"parts": {"uniform": 1, "mixture": 1}}, "none of them a mixture"),
        ({"parts": {"uniform": 1, "gaussian": 0}}, "shares must be above 0"),
        ({"parts": {"uniform": 1, "images": 1}}, "needs source"),
        ({"parts": {"uniform": 1, "normal": 1}, "rank": 4}, "rank does nothing"),
        ({"parts": {"uniform": 1, "noise": 1}}, "parts"),
        ({"kind": "uniform", "parts": {"uniform": 1, "normal": 1}}, "parts does nothing"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        InitialSettings(**{"kind": "mixture", **values})


def test_restore_refuses_tensors_of_another_shape():
    gaussian = build_initial(InitialSettings(), SHAPE, toy()).state()
    with pytest.raises(ValueError, match="do not fit images"):
        restore_initial(InitialSettings(), (1, 4, 4), gaussian)
    with pytest.raises(ValueError, match="uint8"):
        restore_initial(InitialSettings(kind="images", source="x"), SHAPE, {"images": torch.zeros(2, *SHAPE)})


def test_noise_has_its_known_moments():
    uniform = build_initial(InitialSettings(kind="uniform"), SHAPE, None).sample(10_000, None, seeded())
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(uniform.var()) == pytest.approx(1 / 12, abs=0.002)
    settings = InitialSettings(kind="normal", mean=0.4, std=0.1)
    normal = build_initial(settings, SHAPE, None).sample(10_000, None, seeded())
    assert float(normal.mean()) == pytest.approx(0.4, abs=0.005)
    assert float(normal.std()) == pytest.approx(0.1, abs=0.005)


def test_smooth_noise_is_smooth_and_spans_the_range():
    rough = build_initial(InitialSettings(kind="smooth-noise", blur=0), (3, 16, 16), None).sample(
        8, None, seeded()
    )
    smooth = build_initial(InitialSettings(kind="smooth-noise", blur=2), (3, 16, 16), None).sample(
        8, None, seeded()
    )
    steps = [x.diff(dim=-1).abs().mean() for x in (rough, smooth)]
    assert steps[1] < 0.5 * steps[0]
    assert torch.equal(smooth.flatten(1).amin(1), torch.zeros(8)) and smooth.flatten(1).amax(1).min() > 0.999


def test_images_are_those_of_the_source():
    initial = build_initial(InitialSettings(kind="images", source="digits"), (1, 8, 8), None)
    known = {image.numpy().tobytes() for image in load_splits(DataSettings()).train.images}
    start = (initial.sample(20, None, seeded()) * 255).round().to(torch.uint8)
    assert all(image.numpy().tobytes() in known for image in start)


def test_building_refuses_what_cannot_be_had():
    with pytest.raises(ValueError, match="fitted to training images"):
        build_initial(InitialSettings(), SHAPE, None)
    with pytest.raises(ValueError, match="are wanted"):
        build_initial(InitialSettings(), (1, 4, 4), toy())
    with pytest.raises(ValueError, match="class 'b' has no training images"):
        build_initial(InitialSettings(kind="class-gaussian"), SHAPE, toy(1))
    for values, message in [
        ({"kind": "images"}, "needs source"),
        ({"kind": "uniform", "std": 0.5}, "std does nothing"),
        ({"rank": 0}, "rank is 0"),
        ({"kind": "smooth-noise", "blur": -1}, "blur is -1"),
        ({"exclude": ("x",)}, "exclude does nothing"),
        ({"augment": {"kind": "basic"}}, "augment does nothing"),
    ]:
        with pytest.raises(ValueError, match=message):
            InitialSettings(**values)


def test_distance_to_data_matches_numpy():
    data, start = toy(50), torch.rand(7, *SHAPE, generator=seeded())
    a, b = start.flatten(1).numpy(), data.float().flatten(1).numpy()
    expected = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).min(1).mean()
    assert distance_to_data(start, data) == pytest.approx(expected, rel=1e-5)
    assert distance_to_data(data.float(), data) == 0
    assert distance_to_data(start, data, max_images=5) > expected
    with pytest.raises(ValueError, match="shape"):
        distance_to_data(torch.rand(2, 1, 4, 4), data)


def test_the_gaussian_start_is_nearer_to_the_data_than_noise():
    train = load_splits(DataSettings()).train
    kinds = {
        kind: build_initial(InitialSettings(kind=kind), (1, 8, 8), train) for kind in ("gaussian", "uniform")
    }
    distance = {k: distance_to_data(v.sample(64, None, seeded()), train, 500) for k, v in kinds.items()}
    assert distance["gaussian"] < 0.7 * distance["uniform"]


def test_path_warning():
    assert path_warning(3.0, 2.9) is None
    sentence = path_warning(1.5, 2.25)
    assert sentence and "1.5" in sentence and "2.25" in sentence and "raise T_max or eta" in sentence
