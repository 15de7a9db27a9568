"""Fidelity: closed forms, SciPy and torch-fidelity agree; every figure points the right way; intervals cover."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from dualat.evaluation import frechet as frechet_module
from dualat.evaluation.features import FeatureExtractor
from dualat.evaluation.fidelity import fidelity_records
from dualat.evaluation.frechet import Gaussian, frechet_distance, frechet_interval, gaussian_distance
from dualat.evaluation.intervals import normal_interval, resampled_counts
from dualat.evaluation.kernel import kernel_distance, kernel_interval
from dualat.evaluation.metrics.inception import inception_score, score_interval
from dualat.evaluation.precision_recall import precision_recall
from dualat.evaluation.reference import Reference, Statistics
from dualat.evaluation.samples import ImageSet


def normal(count: int, size: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(count, size, generator=generator, dtype=torch.float64)


class Pixels(FeatureExtractor):
    """The pixels themselves, from -5 to 5."""

    def __init__(self, dimension: int = 12):
        self.dimension, self.name, self.identity = dimension, "pixels", f"pixels {dimension}"
        self.settings = {"resize": "none"}

    def _features(self, images):
        return images.flatten(1).float() / 25.5 - 5


def pictures(count: int, seed: int, noise: float = 0.0, side: int = 2, name: str = "toy") -> ImageSet:
    """Smooth colours, with noise of this deviation."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.3 + 0.4 * torch.rand(count, 3, 1, 1, generator=generator).expand(-1, -1, side, side)
    x = x + noise * torch.randn(count, 3, side, side, generator=generator)
    return ImageSet((x.clamp(0, 1) * 255).round().to(torch.uint8), None, name, {"origin": "toy"})


def by_name(records):
    return {record.metric: record for record in records}


# Frechet


@pytest.mark.parametrize("count", [200, 15])
def test_frechet_of_statistics_agrees_with_scipy(count):
    a, b = normal(count, 20, 0) @ normal(20, 20, 2), normal(300, 20, 1, 0.3) @ normal(20, 20, 3)
    first, second = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    gap = float((a.mean(0) - b.mean(0)).square().sum())
    expected = gap + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    given = Gaussian.of_statistics(b.mean(0), torch.from_numpy(second))
    found = gaussian_distance(Gaussian.of_features(a), given)
    assert found == pytest.approx(expected, rel=1e-6)
    assert found == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_frechet_of_two_known_gaussians():
    """Diagonal covariances: sum of (m1 - m2)^2 + (s1 - s2)^2; a singular one too."""
    for deviations in ([1.0, 2.0, 3.0], [0.0, 2.0, 3.0]):
        s, t = torch.tensor(deviations).double(), torch.tensor([2.0, 2.0, 1.0]).double()
        p = Gaussian.of_statistics(torch.zeros(3), s.square().diag())
        q = Gaussian.of_statistics(torch.tensor([1.0, 0.0, 2.0]), t.square().diag())
        assert gaussian_distance(p, q) == pytest.approx(5 + float((s - t).square().sum()), rel=1e-6)


def test_frechet_bootstrap_recomputes_the_distance_of_each_resample():
    for count, size, others in ((30, 5, 40), (8, 20, 12), (40, 6, 4)):
        a, reference = normal(count, size, 0, 0.5), Gaussian.of_features(normal(others, size, 1))
        draws = []
        for counts in resampled_counts(count, 7, 3):
            copies = a.repeat_interleave(counts.long(), 0)
            draws.append(gaussian_distance(Gaussian.of_features(copies), reference))
        value = gaussian_distance(Gaussian.of_features(a), reference)
        expected = normal_interval(value, draws, lowest=0.0)
        assert frechet_interval(value, a, reference, 3, 7) == pytest.approx(expected, rel=1e-4)


def coverage(interval, value, sample) -> float:
    """Share of 60 sample sets whose interval covers the figure's mean at that number of samples."""
    found = [(value(x), interval(value(x), x)) for x in map(sample, range(100, 160))]
    mean = sum(v for v, _ in found) / len(found)
    assert all(low <= v <= high for v, (low, high) in found)
    return sum(low <= mean <= high for _, (low, high) in found) / len(found)


def test_frechet_interval_covers():
    reference = Gaussian.of_features(normal(2000, 4, 0))
    share = coverage(
        lambda value, x: frechet_interval(value, x, reference, 0),
        lambda x: gaussian_distance(Gaussian.of_features(x), reference),
        lambda seed: normal(100, 4, seed, 0.5),
    )
    assert share >= 0.85


def test_an_interval_that_would_take_minutes_is_left_out(monkeypatch):
    a = normal(10, 3, 0)
    reference = Gaussian.of_features(a)
    assert frechet_interval(0.0, a, reference, 0) is not None
    monkeypatch.setattr(frechet_module, "_TOO_DEAR", 10)
    assert frechet_interval(0.0, a, reference, 0) is None


# Kernel


def test_kernel_distance_agrees_with_a_plain_sum():
    a, b = normal(6, 3, 0), normal(6, 3, 1, 1.0)
    k = lambda x, y: (float(x @ y) / 3 + 1) ** 3  # noqa: E731
    among = sum(k(s[i], s[j]) for s in (a, b) for i in range(6) for j in range(6) if i != j) / 30
    across = sum(k(x, y) for x in a for y in b) / 36
    assert kernel_distance(a, b) == pytest.approx(among - 2 * across, rel=1e-9)


def test_kernel_distance_agrees_with_torch_fidelity_on_subsets():
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    a, b = normal(40, 5, 0), normal(60, 5, 1, 0.5)
    theirs = kid_features_to_metric(a, b, kid_subset_size=40, rng_seed=9, verbose=False)
    assert kernel_distance(a, b, seed=9) == pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-9)


def test_kernel_distance_points_the_right_way_and_is_near_zero_for_equals():
    real = normal(500, 4, 0)
    near, far = (kernel_distance(normal(500, 4, 1, shift), real) for shift in (0.2, 1.0))
    assert abs(kernel_distance(normal(500, 4, 1), real)) < near < far
    with pytest.raises(ValueError, match="kernel distance"):
        kernel_distance(real, real[:, :2])


def test_kernel_interval_covers(monkeypatch):
    real = normal(400, 4, 0)
    share = coverage(
        lambda value, x: kernel_interval(value, x, real, 0),
        lambda x: kernel_distance(x, real[:100]),
        lambda seed: normal(100, 4, seed, 0.5),
    )
    assert share >= 0.85


# Precision and recall


def test_precision_and_recall_of_points_on_a_line():
    real = torch.arange(8.0)[:, None] * 10
    precise, recalled = precision_recall(torch.tensor([[0.0], [5.0], [39.0], [101.0], [1e4]]), real, k=3)
    assert precise.tolist() == [True, True, True, False, False]  # the last real ball reaches from 40 to 100
    packed = torch.arange(8.0)[:, None] / 100
    precise, recalled = precision_recall(packed, real)
    assert precise.all() and recalled.tolist() == [True] + [False] * 7


def test_which_way_precision_and_recall_point():
    real = normal(200, 3, 0)
    collapsed, spread = normal(200, 3, 1, scale=0.05), normal(200, 3, 1, scale=4.0)
    precise, recalled = (float(x.float().mean()) for x in precision_recall(collapsed, real))
    assert precise > 0.95 and recalled < 0.1
    precise, recalled = (float(x.float().mean()) for x in precision_recall(spread, real))
    assert precise < 0.4 and recalled > 0.8
    with pytest.raises(ValueError, match="more than 3"):
        precision_recall(real[:3], real)


def test_precision_and_recall_agree_with_torch_fidelity():
    """Its versions differ in which of the two sets they take for the real one: eight points within 0.07 of the first of
    eight real ones 10 apart tell, as their precision is 1 and their recall 1/8."""
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    def theirs(x: torch.Tensor, y: torch.Tensor) -> list[float]:
        found = prc_features_to_metric(
            x, y, prc_neighborhood=3, prc_batch_size=1000, save_cpu_ram=True, verbose=False
        )
        return [found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]]

    a, b = normal(50, 3, 1, scale=0.7).float(), normal(80, 3, 0).float()
    ours = [float(x.double().mean()) for x in precision_recall(a, b)]
    assert ours[0] != ours[1]
    line = torch.arange(8.0)[:, None]
    precision, recall = theirs(line / 100, line * 10)
    assert theirs(*((a, b) if precision > recall else (b, a))) == pytest.approx(ours, abs=1e-6)


# Inception Score


def test_inception_score_of_known_outputs():
    """One class for sure: 1. K classes in turn, each for sure: K. Never sure: 1."""
    labels = torch.arange(400) % 4
    assert inception_score(100 * torch.nn.functional.one_hot(labels, 4).float()) == pytest.approx(4, rel=0.1)
    assert inception_score(100 * torch.nn.functional.one_hot(labels * 0, 4).float()) == pytest.approx(1)
    assert inception_score(torch.zeros(400, 4)) == pytest.approx(1)


def test_score_interval_covers():
    share = coverage(
        lambda value, x: score_interval(value, x, 0),
        inception_score,
        lambda seed: 2 * normal(200, 5, seed),
    )
    assert share >= 0.85


# Records in other features


def test_records_say_all_and_are_never_called_fid(tmp_path):
    reference = Reference(pictures(40, 1, name="toy train"), None, "toy train")
    records = fidelity_records(pictures(30, 0), reference, Pixels(), seed=5, cache_folder=tmp_path)
    assert [r.metric for r in records] == ["frechet_distance", "kernel_distance", "precision", "recall"]
    assert [r.n for r in records] == [30, 30, 30, 40]
    for record in records:
        settings = record.settings
        assert settings["features"] == "pixels" and settings["resize"] == "none"
        assert settings["reference"] == "toy train" and settings["reference_images"] == 40
        assert settings["origin"] == "toy" and len(settings["samples_sha256"]) == 16
        assert record.seed == 5 and record.split == "train"
        if record.metric == "recall":
            assert record.ci95 is None and record.settings["interval"].startswith("none")
        else:
            assert record.ci95[0] - 1e-12 <= record.value <= record.ci95[1]
        assert "fid" not in str(settings).lower()


def test_figures_point_the_right_way(tmp_path):
    reference = Reference(pictures(200, 1), None, "toy")
    clean, some, much = (
        by_name(
            fidelity_records(pictures(200, 0, noise), reference, Pixels(), cache_folder=tmp_path, resamples=0)
        )
        for noise in (0.0, 0.15, 0.5)
    )
    for metric in ("frechet_distance", "kernel_distance"):
        assert clean[metric].value < some[metric].value < much[metric].value
        assert clean[metric].ci95 is None
    assert clean["precision"].value > much["precision"].value
    one = pictures(200, 0)
    one.images[:] = one.images[:1]
    collapsed = by_name(fidelity_records(one, reference, Pixels(), cache_folder=tmp_path, resamples=0))
    assert collapsed["recall"].value < 0.1 < 0.6 < clean["recall"].value


def statistics_of(images: ImageSet, extractor: FeatureExtractor) -> Statistics:
    features = extractor(images.images).double()
    return Statistics(features.mean(0), torch.cov(features.T))


def test_statistics_give_the_same_frechet_distance_as_their_images(tmp_path):
    real, samples = pictures(60, 1, 0.1), pictures(50, 0, 0.1)
    images = fidelity_records(samples, Reference(real, None, "r"), Pixels(), cache_folder=tmp_path)
    given = Reference(None, statistics_of(real, Pixels()), "r.npz")
    (record,) = fidelity_records(samples, given, Pixels(), cache_folder=tmp_path)
    assert record.metric == "frechet_distance"
    assert record.value == pytest.approx(images[0].value, rel=1e-6)
    assert record.settings["reference_images"] == "published mean and covariance"


def test_what_cannot_be_compared_is_refused(tmp_path):
    samples, real = pictures(20, 0), pictures(20, 1)
    with pytest.raises(ValueError, match="statistics of 5 features, but pixels are 12"):
        fidelity_records(
            samples,
            Reference(None, Statistics(torch.zeros(5), torch.eye(5)), "s"),
            Pixels(),
            cache_folder=tmp_path,
        )
    with pytest.raises(ValueError, match="2x2 pixels, but those of toy have 3x3"):
        fidelity_records(samples, Reference(pictures(20, 1, side=3), None, "toy"), Pixels())
    few = ImageSet(real.images[:3], None, "few")
    with pytest.raises(ValueError, match="more than 3"):
        fidelity_records(samples, Reference(few, None, "few"), Pixels())
    one = ImageSet(real.images[:1], None, "one")
    with pytest.raises(ValueError, match="one has 1 images"):
        fidelity_records(one, Reference(real, None, "real"), Pixels())


def test_the_kernel_distances_interval_of_very_few_samples():
    """Of two samples half of all resamples have but one of them, and no pair."""
    a, b = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    interval = kernel_interval(0.5, a, b, seed=0)
    assert interval is not None and interval[0] <= 0.5 <= interval[1]
