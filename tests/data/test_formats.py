"""Formats of pictures: all that Pillow decodes are read, what is left out is counted and named, hidden names are skipped."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from pictures_on_disk import picture, write_classes
from PIL import Image

from dualat.data.check import all_files
from dualat.data.decode import BadImage
from dualat.data.folder import read_image
from dualat.data.formats import formats, suffixes
from dualat.data.in_distribution import load_images, load_splits
from dualat.data.listing import list_images
from dualat.data.settings import DataSettings
from dualat.evaluation.samples import read_samples
from dualat.planning.data import data_facts

# endings and, for those that Pillow writes, whether it keeps every pixel
WRITTEN = {
    ".png": True, ".apng": True, ".bmp": True, ".dib": True, ".ppm": True, ".pnm": True, ".tif": True, ".tiff": True,
    ".tga": True, ".sgi": True, ".pcx": True, ".j2k": True, ".jp2": True, ".dds": True,
    ".jpg": False, ".jpeg": False, ".jpe": False, ".jfif": False, ".mpo": False, ".gif": False, ".webp": False,
}  # fmt: skip


@pytest.mark.parametrize("suffix", WRITTEN)
def test_every_format_that_pillow_writes_is_read(tmp_path, suffix):
    image = picture(3, 32, 32)
    name = {".mpo": "MPO", ".apng": "PNG", ".jpe": "JPEG", ".jfif": "JPEG", ".j2k": "JPEG2000"}.get(suffix)
    image.save(tmp_path / f"x{suffix.upper()}", format=name)
    ((found, size),) = list_images(tmp_path)
    assert found == f"x{suffix.upper()}" and size == (tmp_path / found).stat().st_size
    pixels = read_image(tmp_path / found, (3, 32, 32)).transpose(1, 2, 0).astype(int)
    difference = np.abs(pixels - np.asarray(image)).max()
    assert difference == 0 if WRITTEN[suffix] else difference < 90


def test_of_several_frames_the_first_is_read(tmp_path):
    red, blue = (Image.new("RGB", (6, 6), colour) for colour in ("red", "blue"))
    for suffix in (".gif", ".tif", ".png"):
        red.save(tmp_path / f"x{suffix}", save_all=True, append_images=[blue])
        assert read_image(tmp_path / f"x{suffix}", (3, 6, 6))[:, 2, 2].tolist() == [255, 0, 0]


def test_formats_that_run_programs_or_have_no_decoder_are_not_read(tmp_path):
    assert not {".eps", ".ps", ".wmf", ".emf", ".mpg", ".h5", ".pdf", ".txt", ""} & suffixes()
    assert {".png", ".jpg", ".jpeg", ".gif", ".ppm", ".jfif", ".webp", ".mpo"} <= suffixes()
    assert "EPS" not in formats()
    Image.new("RGB", (6, 6)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")  # the content would be handed to Ghostscript
    with pytest.raises(BadImage, match="its format is unknown"):
        read_image(tmp_path / "x.png", (3, 6, 6))


def test_a_class_keeps_its_pictures_of_every_format(tmp_path):
    """Half of a class in .gif, .ppm, .jfif was lost without a word."""
    write_classes(tmp_path, {"ant": 4, "bee": 4})
    for i, (suffix, name) in enumerate(
        ((".gif", "GIF"), (".ppm", "PPM"), (".jfif", "JPEG"), (".jpe", "JPEG"))
    ):
        picture(100 + i).save(tmp_path / "ant" / f"more{suffix}", format=name)
    settings = DataSettings(source=str(tmp_path), image_size=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = load_splits(settings)
    labels = [
        label for part in (splits.train, splits.validation, splits.test) for label in part.labels.tolist()
    ]
    assert (labels.count(0), labels.count(1)) == (8, 4)
    whole = settings.__class__(
        source=str(tmp_path), image_size=8, test_fraction=0.01, validation_fraction=0.01
    )
    assert data_facts(whole, None, None).train == 12  # the plan counts the same files


def told(reads, folder: Path) -> str:
    """The one warning of what is left out."""
    with pytest.warns(UserWarning) as caught:
        reads()
    (message,) = [str(w.message) for w in caught if "left out" in str(w.message)]
    assert message.startswith(f"{folder}") and message.endswith(".") and "\n" not in message
    return message


def test_what_is_left_out_is_counted_and_named_once(tmp_path):
    write_classes(tmp_path, {"ant": 5, "bee": 5})
    for name in ("ant/a.heic", "ant/b.HEIC", "bee/c.heic", "bee/notes.txt", "bee/plain", ".hidden.heic"):
        (tmp_path / name).write_bytes(b"x")
    os.symlink(tmp_path / "nowhere.jpg", tmp_path / "bee" / "gone.jpg")
    settings = DataSettings(source=str(tmp_path), image_size=8)
    kinds = "(3 .heic, 1 link to nothing, 1 .txt, 1 without an ending), the first is ant/a.heic."
    for reads in (
        lambda: load_splits(settings),
        lambda: load_images(str(tmp_path), None, (3, 8, 8)),
        lambda: all_files(str(tmp_path)),
    ):
        message = told(reads, tmp_path)
        assert "6 files are left out" in message and kinds in message
    picture(1, 8, 8).save(tmp_path / "loose.png")
    with pytest.warns(UserWarning, match="1 picture is left out, .* in no class folder: loose.png"):
        load_splits(settings)


def test_what_samples_and_references_leave_out_is_named(tmp_path):
    for i in range(4):
        picture(i, 8, 8).save(tmp_path / f"{i}.png")
    (tmp_path / "4.heic").write_bytes(b"x")
    assert "1 file is left out, as Pillow reads no such pictures (1 .heic)" in told(
        lambda: read_samples(tmp_path), tmp_path
    )


def test_names_that_begin_with_a_dot_are_skipped_everywhere(tmp_path):
    write_classes(tmp_path, {"ant": 5, "bee": 5})
    for hidden in (".ipynb_checkpoints/0-checkpoint.jpg", ".AppleDouble/x/y.jpg"):
        path = tmp_path / "ant" / hidden
        path.parent.mkdir(parents=True)
        path.write_bytes((tmp_path / "ant" / "0.jpg").read_bytes())
    for folder in ("ant", "bee", "."):
        (tmp_path / folder / "._0.jpg").write_bytes(b"\0\5\26\7 no picture")
        (tmp_path / folder / ".DS_Store").write_bytes(b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = load_splits(DataSettings(source=str(tmp_path), image_size=8))
        assert len(load_images(str(tmp_path), None, (3, 8, 8))) == len(all_files(str(tmp_path))) == 10
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 10


def test_linked_folders_are_read_like_others_and_loops_end(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    write_classes(root, {"ant": 2})
    write_classes(elsewhere, {"bee": 3, "more": 4, "deep": 1})
    os.symlink(elsewhere / "bee", root / "bee")  # a class that is a link
    os.symlink(elsewhere / "more", root / "ant" / "more")  # a subfolder that is a link
    os.symlink(elsewhere / "deep", elsewhere / "more" / "deep")
    os.symlink(root, root / "ant" / "up")  # leads back
    os.symlink(root / "ant", root / "ant" / "self")
    os.symlink(root / "ant" / "more", elsewhere / "deep" / "round")
    names = [name for name, _ in list_images(root)]
    assert names == [
        "ant/0.jpg", "ant/1.jpg", "ant/more/0.jpg", "ant/more/1.jpg", "ant/more/2.jpg", "ant/more/3.jpg",
        "ant/more/deep/0.jpg", "bee/0.jpg", "bee/1.jpg", "bee/2.jpg",
    ]  # fmt: skip
    data = load_images(str(root), None, (3, 8, 8))
    assert data.labels.tolist() == [0] * 7 + [1] * 3
    settings = DataSettings(source=str(root), image_size=8, test_fraction=0.01, validation_fraction=0.01)
    assert data_facts(settings, None, None).train == 10


def test_a_real_folder_keeps_its_name_beside_a_link_to_it(tmp_path):
    write_classes(tmp_path / "ant", {"z": 1})
    os.symlink(tmp_path / "ant" / "z", tmp_path / "ant" / "a")
    assert [name for name, _ in list_images(tmp_path)] == ["ant/z/0.jpg"]
