"""Pictures in one file: 80 Million Tiny Images' layout, arrays, what is left out, other shapes; crop and flip at each draw."""

import copy

import numpy as np
import pytest
import torch
from pictures_on_disk import imagenet_samples, write_bin, write_classes, write_shard

from dualat.data.arrays import ArrayPictures, TinyImages, Without, read_array
from dualat.data.augment import augment
from dualat.data.distributions import Images
from dualat.data.draws import Draws
from dualat.data.folder import FolderFiles
from dualat.data.images import ImageData
from dualat.data.in_distribution import open_pictures
from dualat.data.initial import build_initial, restore_initial
from dualat.data.names import write_positions
from dualat.data.settings import AugmentSettings, InitialSettings

SHAPE = (3, 32, 32)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def levels(images: torch.Tensor) -> torch.Tensor:
    return (images * 255).round().to(torch.uint8)


def test_tiny_images_bytes_are_row_plus_32_column_plus_1024_channel(tmp_path):
    path = tmp_path / "tiny_images.bin"
    pictures = write_bin(path, 50)
    content = path.read_bytes()
    assert len(content) == 50 * 3072
    assert content[7 * 3072 + 5 + 32 * 9 + 1024 * 2] == pictures[7, 5, 9, 2]
    found = TinyImages(path)
    assert len(found) == 50 and found.shape == SHAPE
    images = found.gather(torch.tensor([49, 7, 7, 0]))
    assert images.dtype == torch.uint8 and images.is_contiguous()
    assert torch.equal(images, torch.from_numpy(pictures[[49, 7, 7, 0]]).permute(0, 3, 1, 2))
    assert copy.deepcopy(found) is found


def test_tiny_images_of_another_size_are_refused(tmp_path):
    path = tmp_path / "tiny_images.bin"
    for size in (0, 3071, 3073):
        path.write_bytes(b"\1" * size)
        with pytest.raises(ValueError, match=f"has {size} bytes.*3072"):
            TinyImages(path)
    with pytest.raises(FileNotFoundError, match=r"none.bin does not exist"):
        TinyImages(tmp_path / "none.bin")


@pytest.mark.parametrize("excluded", [[], [0], [49], [3, 4, 5, 20], [0, 1, 48, 49], list(range(1, 50))])
def test_without_gives_every_other_picture_in_order(excluded):
    pictures = ArrayPictures(np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1))
    rest = Without(pictures, np.array(excluded, dtype=np.int64))
    found = rest.gather(torch.arange(len(rest))).flatten().tolist()
    assert found == [i for i in range(50) if i not in excluded]


def test_excluded_pictures_are_never_drawn(tmp_path):
    pictures = write_bin(tmp_path / "tiny.bin", 50)
    (tmp_path / "cifar.txt").write_text("1\n50\n11\n")  # counted from 1: 0, 49, 10
    (tmp_path / "ratio.txt").write_text("3\n10\n")  # counted from 0
    write_positions(tmp_path / "ours.txt", np.array([20, 21]))
    lists = (
        f"one-based:{tmp_path / 'cifar.txt'}",
        f"zero-based:{tmp_path / 'ratio.txt'}",
        str(tmp_path / "ours.txt"),
    )
    settings = InitialSettings(kind="images", source=str(tmp_path / "tiny.bin"), exclude=lists)
    initial = build_initial(settings, SHAPE, None)
    assert isinstance(initial, Images) and initial.count == 44
    drawn = levels(initial.sample(3000, None, seeded()))
    known = {p.transpose(2, 0, 1).tobytes(): i for i, p in enumerate(pictures)}
    seen = {known[image.numpy().tobytes()] for image in drawn}
    assert seen == set(range(50)) - {0, 3, 10, 20, 21, 49}
    with pytest.raises(ValueError, match="counts from 0 or 1.*one-based"):
        open_pictures(str(tmp_path / "tiny.bin"), None, SHAPE, (), (str(tmp_path / "cifar.txt"),))
    (tmp_path / "cifar.txt").write_text("51\n")
    with pytest.raises(ValueError, match="names image 51, but .*tiny.bin has 50 images, counted from 1"):
        open_pictures(str(tmp_path / "tiny.bin"), None, SHAPE, (), lists)
    write_positions(tmp_path / "ours.txt", np.arange(50))
    with pytest.raises(ValueError, match="exclude all 50"):
        open_pictures(str(tmp_path / "tiny.bin"), None, SHAPE, (), lists[2:])
    with pytest.raises(ValueError, match="include does nothing for the file"):
        open_pictures(str(tmp_path / "tiny.bin"), None, SHAPE, lists[2:])


def test_arrays_of_pictures(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "300K_random_images.npy", colour)
    np.savez(tmp_path / "a.npz", colour)
    np.savez(tmp_path / "b.npz", other=colour[..., 0])
    for name in ("300K_random_images.npy", "a.npz"):
        found = read_array(tmp_path / name)
        assert torch.equal(
            found.gather(torch.tensor([8, 1])), torch.from_numpy(colour[[8, 1]]).permute(0, 3, 1, 2)
        )
    assert read_array(tmp_path / "b.npz").shape == (1, 32, 32)
    grey = open_pictures(str(tmp_path / "300K_random_images.npy"), None, (1, 16, 16))
    assert not isinstance(grey, torch.Tensor) and len(grey) == 9 and grey.shape == (1, 16, 16)
    data = ImageData(
        torch.from_numpy(colour).permute(0, 3, 1, 2), torch.zeros(9, dtype=torch.int64), ("a",), "x"
    )
    assert torch.equal(grey.gather(torch.arange(9)), data.fitted((1, 16, 16)).images)


def test_other_arrays_are_refused(tmp_path):
    path = tmp_path / "x.npy"
    for array, message in [
        (np.zeros((2, 4, 4, 3)), "float64 of shape"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"N, H, W, C"),
        (np.zeros((0, 4, 4, 3), np.uint8), "must be one array"),
        (np.array([{}], dtype=object), "plain array"),
    ]:
        np.save(path, array)
        with pytest.raises(ValueError, match=message):
            read_array(path)
    np.save(path, np.zeros((2, 4, 4, 3), np.uint8))
    for damaged in (path.read_bytes()[:-1], b"", b"\x93NUMPY"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x.npy is damaged"):
            read_array(path)
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(ValueError, match="one array"):
        read_array(tmp_path / "two.npz")


@pytest.mark.parametrize("kind", ["memory", "bin", "folder", "shards"])
def test_images_are_augmented_at_each_draw_and_survive_saving(tmp_path, kind, monkeypatch):
    if kind == "bin":
        write_bin(tmp_path / "t.bin", 40)
        source = tmp_path / "t.bin"
    elif kind == "shards":
        source = tmp_path / "a.tar"
        write_shard(source, imagenet_samples(12, 0))
        monkeypatch.setattr("dualat.data.in_distribution.MEMORY_LIMIT", 0)
    else:
        source = tmp_path
        write_classes(tmp_path, {"a": 20, "b": 20})
        monkeypatch.setattr("dualat.data.in_distribution.MEMORY_LIMIT", 0 if kind == "folder" else 2**30)
    plain = InitialSettings(kind="images", source=str(source))
    for augmentation in (AugmentSettings(kind="basic", pad=4), AugmentSettings(kind="imagenet", scale=0.2)):
        settings = InitialSettings(kind="images", source=str(source), augment=augmentation)
        initial = build_initial(settings, SHAPE, None)
        assert isinstance(initial, Images) and (initial.pictures is None) == (kind == "memory")
        start = initial.sample(12, None, seeded(3))
        generator = seeded(3)
        bare = build_initial(plain, SHAPE, None).sample(12, None, generator)
        assert torch.equal(start, augment(bare, augmentation, generator))
        assert torch.equal(start, initial.sample(12, None, seeded(3)))
        assert start.min() >= 0 and start.max() <= 1
        halves = [initial.sample(6, None, Draws(seeded(3), 12, slice(first, first + 6))) for first in (0, 6)]
        assert torch.equal(torch.cat(halves), start), "a process draws its part of the whole batch"
        state = initial.state()
        assert state["images"].shape == (initial.count, *SHAPE) and state["images"].dtype == torch.uint8
        restored = restore_initial(settings, SHAPE, state)
        assert torch.equal(restored.sample(12, None, seeded(3)), start)
        assert copy.deepcopy(initial).sample(2).shape == (2, *SHAPE)


def test_one_picture_is_cropped_differently_at_each_draw(tmp_path):
    np.save(tmp_path / "one.npy", np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8))
    for augmentation in (AugmentSettings(kind="basic", pad=4), AugmentSettings(kind="imagenet")):
        settings = InitialSettings(kind="images", source=str(tmp_path / "one.npy"), augment=augmentation)
        drawn = build_initial(settings, SHAPE, None).sample(30, None, seeded())
        assert len(drawn.flatten(1).unique(dim=0)) > 25


def test_a_saved_model_keeps_a_thousand_pictures_evenly_picked_and_reads_them_once(tmp_path, monkeypatch):
    pictures = write_bin(tmp_path / "t.bin", 2500)
    initial = build_initial(InitialSettings(kind="images", source=str(tmp_path / "t.bin")), SHAPE, None)
    kept = initial.state()["images"]
    expected = torch.from_numpy(pictures[np.arange(1000) * 2500 // 1000]).permute(0, 3, 1, 2)
    assert torch.equal(kept, expected)
    monkeypatch.setattr(TinyImages, "gather", None)
    assert torch.equal(initial.state()["images"], kept)


def test_lists_of_names_choose_among_the_files_of_a_folder(tmp_path, monkeypatch):
    write_classes(tmp_path / "in", {"a": 5, "b": 5})
    (tmp_path / "some.txt").write_text("# Open Images\na/3.jpg\n4\n")
    (tmp_path / "not.txt").write_text("b/4.jpg\n")
    lists = (str(tmp_path / "some.txt"),), (str(tmp_path / "not.txt"),)
    monkeypatch.setattr("dualat.data.in_distribution.MEMORY_LIMIT", 0)
    chosen = open_pictures(str(tmp_path / "in"), None, SHAPE, *lists)
    assert not isinstance(chosen, torch.Tensor) and len(chosen) == 2
    read, real = [], FolderFiles.read
    monkeypatch.setattr(FolderFiles, "read", lambda self, i: (read.append(self.told(i)[0]), real(self, i))[1])
    chosen.gather(torch.arange(2))
    assert sorted(read) == ["a/3.jpg", "a/4.jpg"]
    (tmp_path / "some.txt").write_text("a/3.jpg\nmissing.jpg\n")
    with pytest.warns(UserWarning, match="1 of 2 names in .*some.txt are not in"):
        open_pictures(str(tmp_path / "in"), None, SHAPE, *lists)
    (tmp_path / "some.txt").write_text("missing.jpg\n")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="leave no image"):
        open_pictures(str(tmp_path / "in"), None, SHAPE, *lists)
    with pytest.raises(ValueError, match="not digits: leave them out"):
        open_pictures("digits", None, (1, 8, 8), *lists)
    with pytest.raises(FileNotFoundError, match=r"the list .*none.txt does not exist"):
        open_pictures(str(tmp_path / "in"), None, SHAPE, (str(tmp_path / "none.txt"),))
