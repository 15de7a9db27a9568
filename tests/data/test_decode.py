"""Long thin pictures are cut before they are resized: the same centre, without the memory of what is cut away."""

import numpy as np
import pytest
import torch
from pictures_on_disk import picture
from PIL import Image

from dualat.data.decode import View, decode_image
from dualat.data.images import fit_pixels

SHAPE = (3, 24, 24)


def whole(image: Image.Image, view: View) -> np.ndarray:
    """Resized as a whole, then cut to the centre."""
    height, width = view.size(image.height, image.width)
    method = Image.Resampling.BICUBIC if view.bicubic else Image.Resampling.BILINEAR
    left, top = (width - view.shape[2]) // 2, (height - view.shape[1]) // 2
    box = (left, top, left + view.shape[2], top + view.shape[1])
    return np.asarray(image.resize((width, height), method).crop(box)).transpose(2, 0, 1)


@pytest.fixture
def pixels_made(monkeypatch) -> list[int]:
    """Pixels of every picture that was resized."""
    made: list[int] = []
    own = Image.Image.resize

    def resize(self, size, *args, **options):
        made.append(size[0] * size[1])
        return own(self, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", resize)
    return made


@pytest.mark.parametrize(
    "view", [View(SHAPE), View(SHAPE, 30, True), View((3, 10, 31)), View((3, 31, 10), 20)]
)
@pytest.mark.parametrize(
    "size", [(300, 30), (30, 300), (31, 7), (7, 31), (1, 90), (90, 1), (777, 13), (2, 2)]
)
def test_the_centre_is_the_same(tmp_path, pixels_made, view, size):
    image = picture(5, size[1], size[0])
    image.save(tmp_path / "x.png")
    expected = whole(image, view)
    pixels_made.clear()
    found = decode_image(tmp_path / "x.png", view, "x")
    assert found.shape == view.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert all(made <= 20 * view.shape[1] * view.shape[2] for made in pixels_made)
    if max(size) <= 4 * min(size):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (26, 20), (96, 24), (24, 24), (500, 375)])
def test_ordinary_pictures_are_resized_whole_bit_for_bit(tmp_path, size):
    image = picture(3, size[1], size[0])
    image.save(tmp_path / "x.png")
    for view in (View(SHAPE), View(SHAPE, 30, True), View(SHAPE, 200)):
        assert np.array_equal(decode_image(tmp_path / "x.png", view, "x"), whole(image, view))


def test_a_thread_of_pixels_takes_no_gigabyte(tmp_path, pixels_made):
    """91 bytes of 1 x 4000 pixels took 1.3 GB on their way to 224."""
    Image.new("RGB", (1, 4000), (9, 80, 200)).save(tmp_path / "x.png")
    assert decode_image(tmp_path / "x.png", View((3, 224, 224)), "x")[:, 100, 100].tolist() == [9, 80, 200]
    assert max(pixels_made) <= 224 * 224


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (3, 100), (90, 4)])
def test_arrays_are_cut_first_too(monkeypatch, size):
    images = torch.from_numpy(np.asarray(picture(2, *size)).copy()).permute(2, 0, 1)[None]
    height, width = size
    scale = max(24 / height, 24 / width)
    large = (max(24, round(height * scale)), max(24, round(width * scale)))
    full = torch.nn.functional.interpolate(
        images.float(), size=large, mode="bilinear", antialias=True, align_corners=False
    )
    top, left = (large[0] - 24) // 2, (large[1] - 24) // 2
    monkeypatch.setattr("dualat.data.images.F.interpolate", None)
    found = fit_pixels(images, SHAPE, "x")
    assert (found.float() - full[:, :, top : top + 24, left : left + 24]).abs().max() <= 1
