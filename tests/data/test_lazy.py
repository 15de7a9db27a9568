"""Images that stay on disk: bit for bit those in memory, whatever the threads; splits, lists and views; bad files."""

import copy
import time
from pathlib import Path

import pytest
import torch
from pictures_on_disk import write_classes
from torchvision.transforms.v2 import functional as V

from dualat.data.check import check_images
from dualat.data.decode import View, decode_image
from dualat.data.files import default_workers
from dualat.data.folder import FolderFiles, open_class_folder
from dualat.data.images import ImageData, channel_statistics
from dualat.data.in_distribution import load_images, load_splits
from dualat.data.loaders import BatchStream
from dualat.data.settings import DataSettings

COUNTS = {"ant": 9, "bee": 7, "cow": 8}


def settings(root: Path, **values) -> DataSettings:
    return DataSettings(source=str(root), image_size=8, **values)


def lazily(root: Path, **values) -> ImageData:
    train = load_splits(settings(root, memory_gib=0, **values)).train
    assert not train.in_memory
    return train


def test_lazily_decoded_splits_are_those_in_memory_bit_for_bit(tmp_path):
    write_classes(tmp_path, COUNTS)
    held, on_disk = load_splits(settings(tmp_path)), load_splits(settings(tmp_path, memory_gib=0, workers=2))
    for name in ("train", "validation", "test"):
        memory, disk = getattr(held, name), getattr(on_disk, name)
        assert memory.in_memory and not disk.in_memory
        assert (len(memory), memory.shape, memory.class_names, memory.name) == (
            len(disk),
            disk.shape,
            disk.class_names,
            disk.name,
        )
        assert torch.equal(memory.labels, disk.labels)
        assert torch.equal(memory.pixels(), disk.pixels())
        some = torch.arange(len(memory)).flip(0)[:2]
        assert torch.equal(memory.float(some), disk.float(some))
        assert torch.equal(memory.float(slice(1, 2)), disk.float(slice(1, 2)))
        assert torch.equal(memory.take(some).images, disk.take(some).images)
        assert torch.equal(memory.float(memory.labels == 1), disk.float(disk.labels == 1))
    assert sum(len(getattr(on_disk, name)) for name in ("train", "validation", "test")) == 24


def test_the_size_decides_and_nothing_is_decoded_before_it_is_needed(tmp_path, monkeypatch):
    write_classes(tmp_path, COUNTS)
    exactly = 24 * 3 * 8 * 8 / 2**30
    assert load_splits(settings(tmp_path, memory_gib=exactly)).train.in_memory
    smaller = settings(tmp_path, memory_gib=exactly * 0.5, limit=2)
    assert load_splits(smaller).train.in_memory, "what is not used takes no memory"
    read = []
    monkeypatch.setattr(FolderFiles, "read", lambda self, position: read.append(position))
    train = load_splits(settings(tmp_path, memory_gib=exactly * 0.99)).train
    assert not train.in_memory and not read


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_in_memory_from_any_step_on(tmp_path, workers):
    write_classes(tmp_path, COUNTS)
    memory = BatchStream(load_splits(settings(tmp_path)).train, 5, seed=4)
    expected = [memory.batch(step) for step in range(12)]
    data = lazily(tmp_path, workers=workers)
    stream = BatchStream(data, 5, seed=4)
    resumed = BatchStream(data, 5, seed=4)  # starts in the middle of an epoch, and jumps
    steps = [*range(12)], [7, 8, 9, 2, 11, 11]
    assert stream.steps_per_epoch == 3
    for one, order in zip((stream, resumed), steps, strict=True):
        for step in order:
            images, labels = one.batch(step)
            assert images.dtype == torch.uint8 and torch.equal(images, expected[step][0])
            assert torch.equal(labels, expected[step][1])


def test_the_next_two_batches_are_decoded_meanwhile_and_no_others(tmp_path, monkeypatch):
    write_classes(tmp_path, COUNTS)
    data = lazily(tmp_path, workers=2)
    read, real = [], FolderFiles.read

    def counted(self, position):
        read.append(position)
        return real(self, position)

    monkeypatch.setattr(FolderFiles, "read", counted)
    stream = BatchStream(data, 4, seed=0)
    wanted = {step: set(data.positions[stream.indices(step)].tolist()) for step in range(4)}
    stream.batch(0)
    deadline = time.monotonic() + 10
    while len(read) < 12 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(read) == wanted[0] | wanted[1] | wanted[2] and len(read) == 12
    stream.batch(1)
    while len(read) < 16 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(read[12:]) == sorted(wanted[3])


def test_parts_of_a_batch_make_the_whole(tmp_path):
    write_classes(tmp_path, COUNTS)
    for data in (lazily(tmp_path, workers=2), load_splits(settings(tmp_path)).train):
        whole = BatchStream(data, 6, seed=1)
        parts = [BatchStream(data, 6, seed=1, part=slice(rank, None, 2)) for rank in range(2)]
        for step in (0, 4):
            images, labels = whole.batch(step)
            for rank, part in enumerate(parts):
                assert part.batch_size == 6 and torch.equal(part.indices(step), whole.indices(step))
                assert torch.equal(part.batch(step)[0], images[rank::2])
                assert torch.equal(part.batch(step)[1], labels[rank::2])


def test_a_bad_file_is_named_when_it_is_met(tmp_path):
    paths = write_classes(tmp_path, COUNTS)
    bad = tmp_path / "bee" / "3.jpg"
    bad.write_bytes(bad.read_bytes()[:-100])
    sentence = r"bee/3.jpg cannot be read as an image .*truncated.*dualat data prepare images.*`exclude`\.$"
    for workers in (0, 2):
        data = lazily(tmp_path, workers=workers, validation_fraction=0.01, test_fraction=0.01)
        stream = BatchStream(data, len(data), seed=0)
        with pytest.raises(ValueError, match=sentence):
            stream.batch(0)
        with pytest.raises(ValueError, match=sentence):
            data.pixels()
    with pytest.raises(ValueError, match="not in memory.*prepare images"):
        load_splits(settings(tmp_path, memory_gib=0, on_bad_image="skip"))
    (tmp_path / "ant" / "0.jpg").write_text("no image")
    found = check_images(str(tmp_path), tmp_path / "bad.txt", workers=2)
    assert found.count == len(paths) and list(found.bad) == ["ant/0.jpg", "bee/3.jpg"]
    assert "0x" not in found.bad["ant/0.jpg"] and "format is unknown" in found.bad["ant/0.jpg"]
    good = load_splits(settings(tmp_path, memory_gib=0, exclude=(str(tmp_path / "bad.txt"),)))
    assert sum(len(part.pixels()) for part in (good.train, good.validation, good.test)) == len(paths) - 2


def test_checking_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    write_classes(tmp_path / "in", COUNTS)
    (tmp_path / "in" / "ant" / "1.jpg").write_bytes(b"")
    read, real = [], FolderFiles.read

    def killed(self, position):
        if len(read) == 10:
            raise KeyboardInterrupt
        read.append(position)
        return real(self, position)

    monkeypatch.setattr(FolderFiles, "read", killed)
    output = tmp_path / "bad.txt"
    with pytest.raises(KeyboardInterrupt):
        check_images(str(tmp_path / "in"), output, workers=0)
    assert not output.exists()
    monkeypatch.setattr(
        FolderFiles, "read", lambda self, position: (read.append(position), real(self, position))[1]
    )
    found = check_images(str(tmp_path / "in"), output, workers=0)
    assert read == list(range(24)) and list(found.bad) == ["ant/1.jpg"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.txt", "in"]
    check_images(str(tmp_path / "in"), output, workers=0)
    assert len(read) == 48, "a finished check begins anew"


def test_imagenets_layout_with_val_as_test(tmp_path):
    write_classes(tmp_path / "train", COUNTS)
    write_classes(tmp_path / "val", dict.fromkeys(COUNTS, 2), first_seed=100)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.jpg").write_bytes(b"unlabelled")
    with pytest.raises(ValueError, match="no class folders"):
        load_splits(settings(tmp_path))
    splits = load_splits(settings(tmp_path, val_as="test", memory_gib=0))
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [21, 3, 6]
    with pytest.raises(ValueError, match="has no val/"):
        load_splits(settings(tmp_path / "train", val_as="test"))
    names = tmp_path / "names.txt"
    names.write_text("# two pictures\nval/bee/1.jpg\nval/ant/0.jpg\n")
    some = load_splits(settings(tmp_path, val_as="test", test_list=str(names))).test
    assert some.labels.tolist() == [0, 1]
    assert torch.equal(some.images, splits.test.pixels(torch.tensor([0, 3])))
    with pytest.raises(ValueError, match="no test images of its own"):
        load_splits(settings(tmp_path / "train", test_list=str(names)))


@pytest.mark.parametrize("memory_gib", [0, 8])
def test_held_out_images_have_a_view_of_their_own(tmp_path, memory_gib):
    """Resize(12), CenterCrop(8) of torchvision, as published evaluations have it (bicubic)."""
    paths = write_classes(tmp_path, COUNTS)
    values = {"memory_gib": memory_gib, "test_resize": 12, "test_interpolation": "bicubic"}
    splits, plain = load_splits(settings(tmp_path, **values)), load_splits(settings(tmp_path))
    assert torch.equal(splits.train.pixels(), plain.train.pixels())
    for part in (splits.validation, splits.test):
        assert part.shape == (3, 8, 8)
    expected = {decode_image(path, View((3, 8, 8), 12, True), "x").tobytes() for path in paths}
    assert {image.numpy().tobytes() for image in splits.test.pixels()} <= expected
    from PIL import Image

    with Image.open(paths[0]) as image:
        square = image.crop((0, 0, 16, 16))
    square.save(tmp_path / "square.png")
    ours = decode_image(tmp_path / "square.png", View((3, 8, 8), 12, True), "x")
    theirs = V.center_crop(V.resize(square, [12], interpolation=V.InterpolationMode.BICUBIC), [8])
    assert torch.equal(torch.from_numpy(ours.copy()), V.pil_to_tensor(theirs))


def test_what_needs_all_images_gets_them_once(tmp_path, monkeypatch):
    write_classes(tmp_path, COUNTS)
    data = lazily(tmp_path, workers=0)
    first = data.images
    monkeypatch.setattr(FolderFiles, "read", None)
    assert data.images is first and torch.equal(data.float(slice(0, 3)) * 255, first[:3].float())
    monkeypatch.undo()
    monkeypatch.setattr("dualat.data.pictures.MEMORY_LIMIT", 100)
    with pytest.raises(ValueError, match="more than the"):
        _ = lazily(tmp_path).images


def test_content_tells_files_labels_and_view(tmp_path):
    paths = write_classes(tmp_path, COUNTS)
    data = lazily(tmp_path)
    assert data.content == lazily(tmp_path).content != data.take(torch.arange(3)).content
    assert data.seen(View((3, 8, 8), 12)).content != data.content
    paths[0].write_bytes(paths[0].read_bytes() + b"\0")
    whole = [open_class_folder(tmp_path, View((3, 8, 8))) for _ in range(2)]
    paths[1].write_bytes(paths[1].read_bytes() + b"\0")
    assert whole[0].content == whole[1].content != open_class_folder(tmp_path, View((3, 8, 8))).content


def test_another_shape_is_decoded_and_copies_share_the_files(tmp_path):
    write_classes(tmp_path, COUNTS)
    data = lazily(tmp_path)
    grey = data.fitted((1, 6, 6))
    assert not grey.in_memory and grey.shape == (1, 6, 6) and grey.pixels().shape == (len(data), 1, 6, 6)
    assert data.fitted((3, 8, 8)) is data
    assert copy.deepcopy(data.files) is data.files
    assert [grey.renamed("x").name, grey.take(torch.tensor([1]), "y").name] == ["x", "y"]


def test_more_than_the_limit_is_not_held_by_load_images(tmp_path, monkeypatch):
    write_classes(tmp_path, COUNTS)
    held = load_images(str(tmp_path), None, (3, 8, 8))
    monkeypatch.setattr("dualat.data.in_distribution.MEMORY_LIMIT", 24 * 3 * 8 * 8 - 1)
    on_disk = load_images(str(tmp_path), None, (3, 8, 8))
    assert not on_disk.in_memory and held.in_memory
    assert torch.equal(held.images, on_disk.pixels()) and torch.equal(held.labels, on_disk.labels)


def test_channel_statistics_are_those_of_all_pixels(tmp_path):
    write_classes(tmp_path, COUNTS)
    data = lazily(tmp_path)
    flat = data.float().transpose(0, 1).flatten(1).double()
    for found, expected in zip(channel_statistics(data, chunk=5), (flat.mean(1), flat.std(1)), strict=True):
        assert found == pytest.approx(expected.tolist(), rel=1e-3)
    one = ImageData(torch.full((2, 1, 2, 2), 51, dtype=torch.uint8), torch.tensor([0, 0]), ("a",), "grey")
    assert channel_statistics(one)[0] == pytest.approx([0.2])


def test_default_workers_are_few():
    assert 1 <= default_workers() <= 16
