"""Figures of Inception features are torch-fidelity's own, and say whose weights they are of."""

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from PIL import Image

from dualat.evaluation.features import InceptionFeatures, cached_features
from dualat.evaluation.metrics.inception import inception_records
from dualat.evaluation.reference import Reference, Statistics, read_reference
from dualat.evaluation.samples import ImageSet, read_samples
from dualat.system.files import sha256


def pictures(count: int, seed: int, noise: float = 0.0, side: int = 2, name: str = "toy") -> ImageSet:
    """Smooth colours, with noise of this deviation."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.3 + 0.4 * torch.rand(count, 3, 1, 1, generator=generator).expand(-1, -1, side, side)
    x = x + noise * torch.randn(count, 3, side, side, generator=generator)
    return ImageSet((x.clamp(0, 1) * 255).round().to(torch.uint8), None, name, {"origin": "toy"})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights for torch-fidelity's network, scaled so that features neither vanish nor explode."""
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    network_class = inception.FeatureExtractorInceptionV3
    with (
        torch.random.fork_rng(devices=[]),
        patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}),
        patch.object(network_class, "load_state_dict", lambda *_, **__: None),
    ):
        torch.manual_seed(0)
        tensors = network_class("x", ["2048"]).state_dict()
        for tensor in tensors.values():
            if tensor.ndim == 4:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(tensors, path)
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    found = []
    for name, count, noise in (("samples", 20, 0.02), ("real", 6, 0.0)):
        folder = tmp_path_factory.mktemp(name)
        for i, image in enumerate(pictures(count, count, noise, side=16).images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:03d}.png")
        found.append(folder)
    return found[0], found[1]


@pytest.mark.slow
def test_inception_figures_are_torch_fidelitys_own(weights, folders, tmp_path):
    from torch_fidelity import calculate_metrics

    samples, reference = read_samples(folders[0]), read_reference(folders[1])
    found = inception_records(samples, reference, weights, seed=1, cache_folder=tmp_path, resamples=5)
    theirs = calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        feature_extractor="inception-v3-compat",  # without it, precision and recall are of another network
        feature_extractor_weights_path=str(weights),
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=6,
        cuda=False,
        save_cpu_ram=True,  # no processes of its own to read 26 pictures
        cache=False,
        verbose=False,
    )
    names = {
        "fid": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "inception_score": "inception_score_mean",
        "precision": "precision",
        "recall": "recall",
    }
    assert [r.metric for r in found] == list(names)
    for record in found:
        assert record.value == pytest.approx(theirs[names[record.metric]], rel=1e-5, abs=1e-9), record.metric
        if record.metric == "recall":
            assert record.ci95 is None and record.settings["interval"].startswith("none")
        else:
            assert record.ci95[0] - 1e-12 <= record.value <= record.ci95[1]
        settings = record.settings
        assert settings["weights"] == "custom" and settings["weights_sha256"] == sha256(weights)
        assert settings["features"] == "inception-v3-custom-weights"
        assert "torch-fidelity" in record.versions and settings["origin"] == "folder"
    assert found[0].value > 0.01  # the random network does tell noise from none
    check_statistics(samples, reference, weights, tmp_path, found)


def check_statistics(samples, reference, weights, cache, found) -> None:
    """Published statistics give the same FID, and no figure that needs images; of another length they are refused."""

    features = cached_features(InceptionFeatures(weights), reference.images, cache).double()
    given = Reference(None, Statistics(features.mean(0), torch.cov(features.T)), "published")
    records = inception_records(samples, given, weights, cache_folder=cache, resamples=0)
    assert [r.metric for r in records] == ["fid", "inception_score"]
    assert records[0].value == pytest.approx(found[0].value, rel=1e-4)
    wrong = Reference(None, Statistics(torch.zeros(5), torch.eye(5)), "s")
    with pytest.raises(ValueError, match="statistics of 5 features"):
        inception_records(samples, wrong, weights, cache_folder=cache)
