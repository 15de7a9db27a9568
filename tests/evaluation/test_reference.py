"""References: images in their shape, or statistics in the formats of pytorch-fid and of OpenAI."""

import numpy as np
import pytest
import torch
from PIL import Image

from dualat.data.images import ImageData
from dualat.evaluation.reference import Reference, read_reference

RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.randint(0, 256, (8, 6, 6, 3)).astype(np.uint8)
MU, FACTOR = RANDOM.randn(5), RANDOM.randn(5, 5)
SIGMA = FACTOR @ FACTOR.T


def data(name: str = "toy train") -> ImageData:
    images = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).contiguous()
    return ImageData(images, torch.arange(8) % 2, ("a", "b"), name)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def folder(path):
    path.mkdir()
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(path / f"{i}.png")
    return path


def test_data_folder_and_npz_give_the_same_images(tmp_path):
    sources = (data(), folder(tmp_path / "a"), saved(tmp_path / "b.npz", arr_0=IMAGES, arr_1=np.arange(8)))
    found = [read_reference(source) for source in sources]
    assert len({r.images.content for r in found}) == 1
    assert all(r.statistics is None for r in found)
    assert found[0].name == "toy train" and found[0].split == "train" and found[1].split == ""
    assert found[2].images.labels.tolist() == list(range(8))
    settings = found[0].settings()
    assert settings["reference"] == "toy train" and settings["reference_images"] == 8
    assert settings["reference_sha256"] == found[1].settings()["reference_sha256"]


def test_images_are_brought_to_a_shape_and_records_tell(tmp_path):
    for source in (data(), folder(tmp_path / "a"), saved(tmp_path / "b.npz", arr_0=IMAGES)):
        found = read_reference(source, shape=(1, 4, 4))
        assert found.images.shape == (1, 4, 4)
        assert found.settings()["reference_resize"] == "to 1x4x4, bilinear, antialiased"
    assert "reference_resize" not in read_reference(data(), shape=(3, 6, 6)).settings()


def test_a_named_source_needs_a_shape():
    found = read_reference("digits", shape=(1, 8, 8))
    assert found.images.shape == (1, 8, 8) and found.name.startswith("digits")
    with pytest.raises(ValueError, match="pass shape"):
        read_reference("digits")


@pytest.mark.parametrize("extra", [{}, {"mu_s": MU, "sigma_s": SIGMA}], ids=["pytorch-fid", "openai"])
def test_published_statistics(tmp_path, extra):
    found = read_reference(saved(tmp_path / "s.npz", mu=MU.astype(np.float32), sigma=SIGMA, **extra))
    assert found.images is None and found.statistics.dimension == 5
    assert found.statistics.mean.dtype == torch.float64
    np.testing.assert_allclose(found.statistics.covariance.numpy(), SIGMA)
    assert found.settings(statistics=True)["reference_images"] == "published mean and covariance"
    assert found.require_statistics(5, "x") is found.statistics
    with pytest.raises(ValueError, match="statistics of 5 features, but inception-v3-fid are 2048"):
        found.require_statistics(2048, "inception-v3-fid")


def test_a_file_of_both_keeps_both(tmp_path):
    found = read_reference(saved(tmp_path / "s.npz", mu=MU, sigma=SIGMA, arr_0=IMAGES))
    assert len(found.images) == 8 and found.statistics.dimension == 5


def test_what_is_no_reference_is_refused(tmp_path):
    bad = {
        "no arrays": ({"x": MU}, "mu and sigma"),
        "half": ({"mu": MU}, "mu and sigma"),
        "shapes": ({"mu": MU, "sigma": SIGMA[:4]}, r"must be \(D,\) and \(D, D\)"),
        "nan": ({"mu": MU * np.nan, "sigma": SIGMA}, "finite"),
        "integers": ({"mu": MU.astype(int), "sigma": SIGMA}, "floating-point"),
        "skew": ({"mu": MU, "sigma": FACTOR}, "symmetric"),
        "objects": ({"mu": np.array([object()]), "sigma": SIGMA}, "run code"),
    }
    for name, (arrays, match) in bad.items():
        with pytest.raises(ValueError, match=match):
            read_reference(saved(tmp_path / f"{name}.npz", **arrays))
    (tmp_path / "t.npz").write_bytes((tmp_path / "shapes.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged"):
        read_reference(tmp_path / "t.npz")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_reference(tmp_path / "absent.npz")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="neither"):
        read_reference(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="no mean and covariance"):
        Reference(None, None, "x").require_statistics(3, "y")
