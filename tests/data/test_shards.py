"""webdataset shards: the same images as in a folder, an index that is made once, and damage that is named."""

import gzip
import io
import os
import random
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures_on_disk import imagenet_samples, jpeg, picture, write_classes, write_shard

from dualat.data import shards
from dualat.data.decode import View, decode_image
from dualat.data.folder import listed
from dualat.data.in_distribution import load_images, load_splits
from dualat.data.loaders import BatchStream
from dualat.data.on_disk import all_shards, find_shards
from dualat.data.settings import DataSettings
from dualat.data.shards import make_index, open_shards, read_index

SHAPE = (3, 8, 8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of its own."""
    monkeypatch.setenv("DUALAT_CACHE", str(tmp_path / "cache"))


def write_two(root: Path) -> list[Path]:
    """Two shards of 12 pictures, 3 classes, in the usual names of ImageNet's shards."""
    paths = [root / f"imagenet1k-train-{i:04d}.tar" for i in range(2)]
    for i, path in enumerate(paths):
        write_shard(path, imagenet_samples(12, 100 * i))
    return paths


def settings(source: Path | str, **values) -> DataSettings:
    return DataSettings(source=str(source), image_size=8, **values)


def test_pictures_of_shards_are_those_of_the_files_in_them(tmp_path):
    write_two(tmp_path / "in")
    expected = {}
    for first in (0, 100):
        for i in range(12):
            pixels = decode_image(io.BytesIO(jpeg(first + i)), View(SHAPE), "x")
            expected[pixels.tobytes()] = i % 3
    for values in ({}, {"memory_gib": 0, "workers": 0}, {"memory_gib": 0, "workers": 2}):
        for source in (tmp_path / "in", tmp_path / "in" / "*-train-*.tar"):
            splits = load_splits(settings(source, **values))
            parts = (splits.train, splits.validation, splits.test)
            assert splits.train.in_memory != bool(values)
            seen = [
                (x.numpy().tobytes(), y)
                for p in parts
                for x, y in zip(p.pixels(), p.labels.tolist(), strict=True)
            ]
            assert len(seen) == 24 and dict(seen) == expected
            assert splits.train.class_names == ("0", "1", "2")


def test_batches_of_shards_do_not_depend_on_threads_or_start(tmp_path):
    write_two(tmp_path)
    held = BatchStream(load_splits(settings(tmp_path)).train, 4, seed=2)
    expected = [held.batch(step) for step in range(9)]
    for workers in (0, 2):
        data = load_splits(settings(tmp_path, memory_gib=0, workers=workers)).train
        for first in (0, 5):
            stream = BatchStream(data, 4, seed=2)
            for step in range(first, 9):
                for found, wanted in zip(stream.batch(step), expected[step], strict=True):
                    assert torch.equal(found, wanted)


def test_the_index_is_made_once_and_anew_when_the_shard_changes(tmp_path, monkeypatch):
    first, second = write_two(tmp_path)
    (index, made), (_, also) = read_index(first), read_index(second)
    assert made and also and len(index) == 12
    assert (tmp_path / ".dualat-index" / f"{first.name}.npz").is_file()
    for name, offset, size, label in zip(index.names, index.offsets, index.sizes, index.labels, strict=True):
        content = first.read_bytes()[offset : offset + size]
        number = int(name.removesuffix(".jpg").rpartition("_")[2])
        assert content == jpeg(number) and label == number % 3
    monkeypatch.setattr(shards, "make_index", None)
    again, made = read_index(first)
    assert not made and again.names == index.names and np.array_equal(again.labels, index.labels)
    monkeypatch.undo()
    state = first.stat()
    os.utime(first, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert read_index(first)[1] and not read_index(first)[1]
    write_shard(first, imagenet_samples(5, 0))
    assert len(read_index(first)[0]) == 5
    place = tmp_path / ".dualat-index" / f"{first.name}.npz"
    odd = io.BytesIO()
    with zipfile.ZipFile(odd, "w") as archive:  # numpy's parser ends in a TokenError
        archive.writestr("state.npy", b"\x93NUMPY\x01\x00\x40\x00" + b"(" * 63 + b"\n")
    for damage in (place.read_bytes()[:-50], b"", b"PK nonsense", odd.getvalue()):
        place.write_bytes(damage)
        assert read_index(first)[1], "a damaged index is made anew"


def test_where_the_folder_cannot_be_written_the_index_goes_to_the_cache(tmp_path, monkeypatch):
    first, _ = write_two(tmp_path / "in")
    (tmp_path / "in" / ".dualat-index").write_text("a file where the folder would be")
    assert read_index(first)[1] and not read_index(first)[1]
    assert len(list((tmp_path / "cache" / "index").iterdir())) == 1
    (tmp_path / "nowhere").write_text("")
    monkeypatch.setenv("DUALAT_CACHE", str(tmp_path / "nowhere"))
    assert read_index(first)[1] and read_index(first)[1]


def test_shards_say_their_split_by_name_or_by_folder(tmp_path):
    write_two(tmp_path / "flat")
    write_shard(tmp_path / "flat" / "imagenet1k-validation-00.tar", imagenet_samples(6, 500))
    (tmp_path / "flat" / "classnames.txt").write_text("tench\ngoldfish\ngreat white shark\n")
    splits = load_splits(settings(tmp_path / "flat"))
    assert len(splits.validation) == 6 and len(splits.train) + len(splits.test) == 24
    assert splits.test.class_names == ("tench", "goldfish", "great white shark")
    as_test = load_splits(settings(tmp_path / "flat", val_as="test"))
    assert torch.equal(as_test.test.images, splits.validation.images) and len(as_test.validation) == 3
    for split, first in (("train", 0), ("val", 300)):
        write_shard(tmp_path / "deep" / split / "000.tar", imagenet_samples(9, first))
    deep = load_splits(settings(tmp_path / "deep", val_as="test"))
    assert len(deep.test) == 9 and len(deep.train) + len(deep.validation) == 9
    write_shard(tmp_path / "flat" / "more.tar", imagenet_samples(3, 600))
    with pytest.raises(ValueError, match="more.tar does not say in its name"):
        load_splits(settings(tmp_path / "flat"))
    with pytest.raises(ValueError, match="no shard with train in its name"):
        load_splits(settings(tmp_path / "flat" / "*validation*.tar"))
    with pytest.raises(FileNotFoundError, match=r"no .tar file matches .*none\*\.tar"):
        load_splits(settings(tmp_path / "none*.tar"))


def test_images_of_shards_without_classes_and_by_lists(tmp_path):
    samples = [(f"sub/{seed:016x}", {"jpg": jpeg(seed)}) for seed in range(6)]
    write_shard(tmp_path / "open.tar", samples)
    assert load_images(str(tmp_path / "open.tar"), None, SHAPE).labels.tolist() == [0] * 6
    with pytest.raises(ValueError, match=r"sub/0+\.jpg in .*open.tar has no .cls file"):
        load_splits(settings(tmp_path))
    lines = tmp_path / "some.txt"
    lines.write_text(f"{2:016x}\nopen.tar/sub/{4:016x}.jpg\n")
    everything = open_shards([tmp_path / "open.tar"], View(SHAPE), "x", labelled=False)
    some = listed(everything, [str(lines)], [])
    assert some.positions.tolist() == [2, 4]
    rest = listed(everything, [], [str(lines)])
    assert rest.positions.tolist() == [0, 1, 3, 5]


def test_damaged_shards_are_named_in_a_sentence(tmp_path):
    path = tmp_path / "a.tar"
    write_shard(path, imagenet_samples(4, 0))
    good = path.read_bytes()
    second_header = 512 * (1 + -(-len(jpeg(0)) // 512))
    for content in (
        b"",
        b"no tar at all" * 100,
        good[: len(jpeg(0)) // 2],
        good[: 512 + len(jpeg(0)) + 700],
        good[:second_header] + b"\x07" * 512 + good[second_header + 512 :],
        gzip.compress(good),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a.tar is (damaged|truncated)") as caught:
            make_index(path)
        assert "\n" not in str(caught.value)
    for samples, message in [
        ([("x", {"txt": b"hello"})], "a.tar has no images"),
        ([("x", {"jpg": jpeg(0), "cls": b"cat"})], "x.cls in .*holds 'cat', but must be a class number"),
        ([("x", {"jpg": jpeg(0), "cls": b"-1"})], "holds '-1'"),
        ([("x", {"jpg": jpeg(0)}), ("y", {"cls": b"1"})], "y.cls, but no image"),
        ([("x", {"jpg": jpeg(0), "png": b""})], "two images named x"),
    ]:
        write_shard(path, samples)
        with pytest.raises(ValueError, match=message):
            make_index(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "headers", [{"size": "x"}, {"size": "-5"}, {"size": "-1536"}, {"mtime": "z"}, {"GNU.sparse.size": "x"}]
)
def test_numbers_that_are_none_in_a_header_are_one_sentence(tmp_path, headers):
    # -1536 leads back to the header itself, which tarfile reads for ever
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, more in (("0.jpg", {}), ("1.jpg", headers), ("2.jpg", {})):
            entry = tarfile.TarInfo(name)
            entry.size, entry.pax_headers = len(jpeg(0)), more
            tar.addfile(entry, io.BytesIO(jpeg(0)))
    if headers == {"mtime": "z"}:  # of no use here, and taken for 0 by tarfile
        assert len(make_index(path)) == 3
        return
    with pytest.raises(ValueError, match=r"a.tar is (damaged|truncated)") as caught:
        make_index(path)
    assert "literal" not in str(caught.value)


def test_damaged_headers_never_lose_a_picture_silently(tmp_path):
    path = tmp_path / "a.tar"
    write_shard(path, imagenet_samples(3, 0))
    good = path.read_bytes()
    headers = [i for i in range(0, len(good), 512) if good[i + 257 : i + 262] == b"ustar"]
    chance = random.Random(0)
    for _ in range(200):
        content = bytearray(good)
        content[chance.choice(headers) + chance.randrange(500)] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a.tar (is damaged|has)"):
            make_index(path)


def test_a_damaged_picture_in_a_shard_is_named(tmp_path):
    samples = imagenet_samples(12, 0)
    samples[5][1]["jpg"] = samples[5][1]["jpg"][:300]
    write_shard(tmp_path / "a.tar", samples)
    sentence = r"n00000002_5.jpg in .*a.tar cannot be read as an image"
    with pytest.raises(ValueError, match=f"{sentence}.*on-bad-image skip"):
        load_splits(settings(tmp_path))
    data = load_splits(settings(tmp_path, memory_gib=0, validation_fraction=0.01, test_fraction=0.01)).train
    with pytest.raises(ValueError, match=f"{sentence}.*prepare images"):
        data.pixels()
    with pytest.warns(UserWarning, match=sentence):
        splits = load_splits(settings(tmp_path, on_bad_image="skip"))
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 11


def test_a_class_beyond_the_names_is_refused(tmp_path):
    write_two(tmp_path)
    (tmp_path / "classnames.txt").write_text("tench\ngoldfish\n")
    with pytest.raises(ValueError, match="class 2, but there are 2 classes"):
        load_splits(settings(tmp_path))


def test_names_as_in_tar_files_of_other_tools(tmp_path):
    """A folder ./ before each name, entries for folders, and endings with several full stops."""
    write_classes(tmp_path / "files", {"ant": 3})
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(tmp_path / "files", "./")
    assert [Path(name).name for name in make_index(tmp_path / "a.tar").names] == ["0.jpg", "1.jpg", "2.jpg"]
    write_shard(tmp_path / "b.tar", [("x", {"left.jpg": jpeg(0), "cls": b"7\n"})])
    index = make_index(tmp_path / "b.tar")
    assert index.names == ["x.left.jpg"] and index.labels.tolist() == [7]


def test_samples_of_other_formats_are_counted_and_hidden_names_are_skipped(tmp_path):
    gif = io.BytesIO()
    picture(5).save(gif, "GIF")
    samples = [(f"x{i}", {"jpg": jpeg(i), "json": b"{}"}) for i in range(3)]
    samples += [("g", {"gif": gif.getvalue()}), ("h", {"heic": b"x", "json": b"{}"}), ("t", {"txt": b"x"})]
    samples += [
        ("./.ipynb_checkpoints/a", {"jpg": jpeg(9)}),
        ("b/._a", {"jpg": b"x"}),
        ("./d/a", {"jpg": jpeg(8)}),
    ]
    write_shard(tmp_path / "a.tar", samples)
    (tmp_path / "._a.tar").write_bytes(b"\0\5\26\7 no shard")
    for _ in range(2):  # made, then kept
        with pytest.warns(UserWarning) as caught:
            data = load_images(str(tmp_path), None, SHAPE)
        assert len(data) == 5
        (message,) = [str(w.message) for w in caught]
        assert "2 samples are left out" in message and "(1 .heic, 1 .txt), the first is h.heic." in message
    assert find_shards(str(tmp_path)) == all_shards(str(tmp_path)) == [tmp_path / "a.tar"]


def test_an_index_of_fewer_formats_is_made_anew(tmp_path, monkeypatch):
    path, _ = write_two(tmp_path)
    read_index(path)
    assert not read_index(path)[1]
    monkeypatch.setattr(shards, "suffixes", lambda: frozenset({".jpg", ".new"}))
    assert read_index(path)[1]


def test_other_names_of_classes_beside_other_splits_are_refused(tmp_path):
    """The numbers of val/ would be read as the names of train/."""
    for split in ("train", "val"):
        write_shard(tmp_path / split / "a.tar", imagenet_samples(12, 0 if split == "train" else 50))
        (tmp_path / split / "classnames.txt").write_text("ant\nbee\ncow\n")
    assert load_splits(settings(tmp_path)).validation.class_names == ("ant", "bee", "cow")
    (tmp_path / "val" / "classnames.txt").write_text("bee\nant\ncow\n")
    with pytest.raises(
        ValueError, match=r"val.classnames.txt calls class 0 'bee', and the training shards 'ant'"
    ):
        load_splits(settings(tmp_path))
