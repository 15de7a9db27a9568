"""Pictures: rounding, places in the grid, colours of a signed difference."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dualat.data.grids import grid, save_picture, signed_difference, strip, to_uint8


def test_pixels_are_rounded_and_clipped():
    x = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0, 1.7, -0.2]).view(1, 1, 1, 7)
    assert to_uint8(x).flatten().tolist() == [0, 0, 1, 255, 255, 255, 0]


def test_bytes_survive_the_round_trip_and_channels_go_last():
    pixels = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5) % 256
    back = to_uint8(pixels / 255)
    assert back.shape == (2, 4, 5, 3) and back.dtype == np.uint8
    assert np.array_equal(back, pixels.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_goes_row_by_row_with_grey_gaps(channels):
    x = (torch.arange(5) * 50 / 255).view(5, 1, 1, 1).expand(5, channels, 3, 4)
    picture = grid(x, columns=3, gap=1, smallest=1)
    assert picture.size == (3 * 5 - 1, 2 * 4 - 1) and picture.mode == ("L" if channels == 1 else "RGB")
    pixels = np.array(picture).reshape(7, 14, channels)
    for i in range(5):
        top, left = (i // 3) * 4, (i % 3) * 5
        assert (pixels[top : top + 3, left : left + 4] == 50 * i).all()
    assert (pixels[3] == 128).all() and (pixels[:, 4] == 128).all()
    assert (pixels[4:, 10:] == 128).all()  # no sixth image


def test_small_images_are_enlarged_by_whole_factors_without_blur():
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(1, 1, 2, 2)
    pixels = np.array(grid(x, columns=1, smallest=5))
    assert pixels.shape == (6, 6) and set(pixels.flatten()) == {0, 255}
    assert pixels[2, 2] == 0 and pixels[2, 3] == 255
    assert grid(torch.zeros(1, 3, 64, 64), columns=1, smallest=40).size == (64, 64)


def test_saved_png_reads_back(tmp_path: Path):
    picture = grid(torch.rand(4, 3, 5, 5), columns=2, smallest=1)
    save_picture(picture, tmp_path / "new" / "grid.png")
    with Image.open(tmp_path / "new" / "grid.png") as read:
        assert read.format == "PNG" and np.array_equal(np.array(read), np.array(picture))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["grid.png"]


def test_signed_difference_is_white_red_and_blue():
    before = torch.full((1, 1, 4), 0.5)
    after = before + torch.tensor([0.0, 0.4, -0.4, 0.2]).view(1, 1, 4)
    colours = signed_difference(before, after)[:, 0].T
    expected = [[1, 1, 1], [1, 0, 0], [0, 0, 1], [1, 0.5, 0.5]]
    torch.testing.assert_close(colours, torch.tensor(expected).float(), rtol=0, atol=1e-5)
    assert torch.equal(signed_difference(before, before), torch.ones(3, 1, 4))


def test_signed_difference_averages_colours():
    before, after = torch.zeros(3, 1, 2), torch.zeros(3, 1, 2)
    after[0, 0, 0] = 0.3  # one channel of three
    after[:, 0, 1] = 0.3
    torch.testing.assert_close(
        signed_difference(before, after)[:, 0, 0], torch.tensor([1, 2 / 3, 2 / 3]), rtol=0, atol=1e-5
    )


def test_strip_places_columns_of_panels():
    red = torch.ones(3, 8, 8) * torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    picture = strip([[(torch.zeros(1, 8, 8), ["a", "b"])], [(red, []), (1 - red, ["c"])]], side=32)
    assert picture.mode == "RGB" and picture.size == (2 * 32 + 3 * 6, 2 * (32 + 6 + 2 * 13) + 6)
    pixels = np.array(picture)
    assert (pixels[6:38, 6:38] == 0).all()
    assert (pixels[6:38, 44:76] == [255, 0, 0]).all() and (pixels[70:102, 44:76] == [0, 255, 255]).all()
    assert (pixels[38:70, 6:38] < 128).any() and (
        pixels[38:70, 44:76] == 255
    ).all()  # text under the first alone
    assert (pixels[70:, 6:38] == 255).all() and (pixels[102:, 44:76] < 128).any()
