"""Pictures decoded: long thin ones are cut before they are resized, 16 bits are rounded to 8, and damage is told in words."""

import numpy as np
import pytest
import torch
from pictures_on_disk import picture
from PIL import Image

from dualat.data import decode
from dualat.data.decode import View, decode_image
from dualat.data.folder import read_image
from dualat.data.pictures import fit_pixels
from dualat.evaluation.read_images import natural_shape

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
    monkeypatch.setattr("dualat.data.pictures.F.interpolate", None)
    found = fit_pixels(images, SHAPE, "x")
    assert (found.float() - full[:, :, top : top + 24, left : left + 24]).abs().max() <= 1


def test_every_level_of_16_bits_is_rounded_to_8(tmp_path):
    levels = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    pixels = read_image(tmp_path / "deep.png", (1, 256, 256))
    assert np.array_equal(pixels[0], np.round(levels.astype(np.float64) / 257).astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.ppm", b"P6 9\xdb 7 255 " + bytes(200), "it is damaged"),  # int()'s words before
        ("a.ppm", b"P6 9 7 255\n" + bytes(20), "image file is truncated"),
        ("a.png", b"nothing known", "its format is unknown"),
        ("a.png", None, "its pixels are floating-point numbers of unknown range"),
    ],
)
def test_why_a_picture_cannot_be_read_is_said_in_words(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is None:
        Image.fromarray(np.zeros((4, 4), np.float32)).save(path, format="TIFF")
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} cannot be read as an image \\({reason}"):
        read_image(path, (3, 4, 4))
    if content is not None and reason != "image file is truncated":  # the header alone is looked at
        with pytest.raises(ValueError, match=f"{name} cannot be read as an image \\({reason}"):
            natural_shape(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_is_laid_on_white_in_strips_as_in_one_piece(tmp_path, monkeypatch, mode, channels):
    rng = np.random.default_rng(0)
    shape = {"RGBA": (13, 17, 4), "LA": (13, 17, 2), "P": (13, 17, 3), "L": (13, 17), "RGB": (13, 17, 3)}[
        mode
    ]
    image = Image.fromarray(rng.integers(0, 3 if mode in ("L", "RGB") else 256, shape, dtype=np.uint8))
    image = image.quantize(9) if mode == "P" else image
    transparent = {"P": bytes(range(0, 250, 28)), "L": 1, "RGB": (1, 0, 1)}.get(mode)
    image.save(tmp_path / "x.png", **({"transparency": transparent} if transparent is not None else {}))
    with Image.open(tmp_path / "x.png") as opened:
        assert opened.mode == mode and opened.has_transparency_data
        whole = opened.convert("RGBA")
    white = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    expected = np.asarray(white.convert("L" if channels == 1 else "RGB")).reshape(13, 17, channels)
    monkeypatch.setattr(decode, "_AT_A_TIME", 50)  # two rows
    pixels = read_image(tmp_path / "x.png", (channels, 13, 17))
    assert np.array_equal(pixels.transpose(1, 2, 0), expected)
