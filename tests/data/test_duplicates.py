"""Identical pictures in two splits are told, whether they are in memory or on disk, and little is read to find them."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from pictures_on_disk import imagenet_samples, picture, write_classes, write_shard
from PIL import Image

from dualat.data import duplicates
from dualat.data.folder import FolderFiles
from dualat.data.in_distribution import load_splits
from dualat.data.settings import DataSettings


def settings(root: Path, **values) -> DataSettings:
    return DataSettings(source=str(root), image_size=8, **values)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """12 pictures to learn from, 4 to validate with and 4 to test on, all different."""
    for k, (split, count) in enumerate((("train", 6), ("val", 2), ("test", 2))):
        write_classes(tmp_path / split, {"ant": count, "bee": count}, first_seed=100 * k)
    return tmp_path


def told(root: Path, **values) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_splits(settings(root, **values))
    return [str(w.message) for w in caught]


@pytest.mark.parametrize("values", [{}, {"memory_gib": 0}, {"test_resize": 12}])
def test_identical_pictures_of_two_splits_are_counted_and_named(root, values):
    assert told(root, **values) == []
    shutil.copy(root / "train" / "ant" / "3.jpg", root / "test" / "bee" / "again.jpg")
    shutil.copy(root / "train" / "bee" / "0.jpg", root / "test" / "bee" / "0.jpg")
    shutil.copy(root / "test" / "ant" / "1.jpg", root / "val" / "ant" / "1.jpg")
    messages = told(root, **values)
    assert len(messages) == 2 and all("\n" not in m and m.endswith(".") for m in messages)
    first, second = sorted(messages, key=lambda m: "validation" in m)
    assert f"{root}: 2 pictures of test are in train too, such as" in first
    assert any(
        pair in first for pair in ("bee/again.jpg and train's ant/3.jpg", "bee/0.jpg and train's bee/0.jpg")
    )
    assert "1 picture of test is in validation too, such as ant/1.jpg and validation's ant/1.jpg" in second


def test_splits_of_one_folder_are_compared(tmp_path):
    write_classes(tmp_path, {"ant": 10, "bee": 10})
    for i in range(10):
        shutil.copy(tmp_path / "ant" / f"{i}.jpg", tmp_path / "ant" / f"{i} (copy).jpg")
    assert any("of test" in message and "in train too" in message for message in told(tmp_path))


def test_in_memory_the_pixels_count_not_the_file(root):
    picture(55, 8, 8).save(root / "train" / "ant" / "x.png")
    picture(55, 8, 8).save(root / "test" / "bee" / "y.bmp")
    assert "bee/y.bmp and train's ant/x.png" in told(root)[0]
    assert told(root, memory_gib=0) == []  # on disk, files are compared byte by byte


def test_shards(tmp_path):
    write_shard(tmp_path / "a-train-0.tar", imagenet_samples(12, 0))
    write_shard(tmp_path / "a-test-0.tar", imagenet_samples(6, 9))
    for values in ({}, {"memory_gib": 0}):
        (message,) = [m for m in told(tmp_path, **values) if "of test" in m and "in train" in m]
        assert "a-test-0.tar/" in message and "a-train-0.tar/" in message


def test_only_files_of_one_size_are_read_and_only_up_to_a_limit(root, monkeypatch):
    read: list[str] = []
    own = FolderFiles.raw
    monkeypatch.setattr(FolderFiles, "raw", lambda self, i: read.append(self.told(i)[0]) or own(self, i))
    shutil.copy(root / "train" / "ant" / "3.jpg", root / "test" / "bee" / "again.jpg")
    sizes = [p.stat().st_size for p in sorted(root.rglob("*.jpg"))]
    assert len(told(root, memory_gib=0)) == 1
    assert len(read) <= sum(sizes.count(size) > 1 for size in sizes) < len(sizes)
    monkeypatch.setattr(duplicates, "MOST_READ", 10)
    read.clear()
    assert told(root, memory_gib=0) == [] and not read


def test_a_source_by_name_is_left_alone():
    """The known repetitions in public data sets are no mistake of whoever uses them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_splits(DataSettings(source="digits"))


def test_a_file_that_cannot_be_read_is_no_identical_picture(root):
    for place in ("train/ant/z.jpg", "test/ant/z.jpg"):
        (root / place).write_bytes(b"broken")
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "test" / "ant" / "n.png")
    assert [m for m in told(root, on_bad_image="skip") if "too" in m] == []
