"""Sources, splits, IDX and CIFAR files, folders: known contents in, known tensors out; damage is named."""

import gzip
import pickle
import struct
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dualat.data.cifar import read_arrays
from dualat.data.fashion import read_idx
from dualat.data.folder import read_image
from dualat.data.images import ImageData, Splits, split_indices
from dualat.data.in_distribution import load_images, load_splits
from dualat.data.registry import SOURCES
from dualat.data.settings import DataSettings


def test_digits_are_split_by_class_without_overlap_and_deterministically():
    splits = load_splits(DataSettings())
    parts = (splits.train, splits.validation, splits.test)
    assert [part.shape for part in parts] == [(1, 8, 8)] * 3
    assert sum(map(len, parts)) == 1797
    assert len(splits.test) == pytest.approx(0.2 * 1797, abs=10)
    assert len(splits.validation) == pytest.approx(0.1 * 0.8 * 1797, abs=10)
    shares = torch.bincount(splits.test.labels) / torch.bincount(torch.cat([p.labels for p in parts]))
    assert shares.sub(0.2).abs().max() < 0.01
    again = load_splits(DataSettings())
    assert torch.equal(again.train.images, splits.train.images)
    other = load_splits(DataSettings(split_seed=1))
    assert not torch.equal(other.test.images, splits.test.images)
    assert splits.train.images.max() == 255 and splits.train.float(torch.tensor([0, 1])).shape == (2, 1, 8, 8)


def test_digits_levels_are_the_known_ones():
    from sklearn.datasets import load_digits

    raw = load_digits().images
    splits = load_splits(DataSettings())
    total = sum(int(part.images.sum()) for part in (splits.train, splits.validation, splits.test))
    assert total == int(np.round(raw / 16 * 255).sum())


def test_split_indices_partition_every_class():
    labels = torch.tensor([0] * 10 + [1] * 3 + [2] * 50)
    rest, part = split_indices(labels, 0.2, seed=3)
    assert sorted(torch.cat([rest, part]).tolist()) == list(range(63))
    assert torch.bincount(labels[part]).tolist() == [2, 1, 10]


def test_limit_takes_from_training_only():
    full, some = load_splits(DataSettings()), load_splits(DataSettings(limit=50))
    assert len(some.train) == 50 and torch.equal(full.test.images, some.test.images)
    known = {image.numpy().tobytes() for image in full.train.images}
    assert all(image.numpy().tobytes() in known for image in some.train.images)


def test_a_limit_that_leaves_one_class_is_refused_in_our_words():
    with pytest.raises(ValueError, match="limit is 1, which leaves training images of one class: give more"):
        load_splits(DataSettings(limit=1))


def test_image_data_and_splits_refuse_what_does_not_fit():
    images, labels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1])
    data = ImageData(images, labels, ("a", "b"), "toy")
    with pytest.raises(ValueError, match="uint8"):
        ImageData(images.float(), labels, ("a", "b"), "toy")
    with pytest.raises(ValueError, match="one per image"):
        ImageData(images, labels[:1], ("a", "b"), "toy")
    with pytest.raises(ValueError, match="0 to 0"):
        ImageData(images, labels, ("a",), "toy")
    with pytest.raises(ValueError, match="same image shape"):
        Splits(data, data, ImageData(images[..., :2], labels, ("a", "b"), "small"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"validation_fraction": 0.0}, "validation_fraction"),
        ({"source": "some/folder"}, "image_size is missing"),
        ({"image_size": 32}, "image_size is for folders"),
        ({"workers": 2}, "workers is for folders"),
        ({"source": "x", "image_size": 8, "workers": -1}, "workers is -1"),
        ({"source": "x", "image_size": 8, "memory_gib": -1}, "memory_gib is -1"),
        ({"source": "x", "image_size": 8, "test_resize": 7}, "at least image_size, 8"),
        ({"source": "x", "image_size": 8, "channels": 2}, "channels is 2"),
        ({"source": "cifar10", "test_fraction": 0.5}, "own test split"),
        ({"limit": 0}, "limit is 0"),
        ({"download": True}, "come with scikit-learn"),
        ({"sources": "digits"}, "sources"),
    ],
)
def test_settings_refuse_contradictions(values, message):
    with pytest.raises(ValueError, match=message):
        DataSettings(**values)


# IDX and Fashion-MNIST


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion(place: Path, n: int = 40, gz: bool = True) -> np.ndarray:
    place.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (n, 28, 28), dtype=np.uint8)
    labels = (np.arange(n) % 10).astype(np.uint8)
    for prefix in ("train", "t10k"):
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            content = idx_bytes(array)
            (place / (name + ".gz" * gz)).write_bytes(gzip.compress(content) if gz else content)
    return images


@pytest.mark.parametrize(("below", "gz"), [("", True), ("FashionMNIST/raw", False)])
def test_fashion_mnist_from_a_root(tmp_path, below, gz):
    images = write_fashion(tmp_path / below, gz=gz)
    splits = load_splits(DataSettings(source="fashion-mnist", root=str(tmp_path)))
    assert torch.equal(splits.test.images, torch.from_numpy(images).unsqueeze(1))
    assert splits.test.labels[:12].tolist() == [*range(10), 0, 1]
    assert len(splits.validation) == 10 and len(splits.train) == 30
    assert splits.train.class_names[9] == "Ankle boot"


def test_fashion_mnist_missing_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"apt-get install dataset-fashion-mnist.*--data.download`"):
        load_splits(DataSettings(source="fashion-mnist", root=str(tmp_path)))


@pytest.mark.skipif(
    not Path(SOURCES["fashion-mnist"].elsewhere).is_dir(),
    reason="Debian's dataset-fashion-mnist is not installed",
)
def test_fashion_mnist_of_debian():
    splits = load_splits(DataSettings(source="fashion-mnist"))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (54000, 6000, 10000)
    assert torch.bincount(splits.test.labels).tolist() == [1000] * 10
    assert splits.test.labels[0] == 9  # the first test image is the known ankle boot
    mean = (splits.train.images.double().sum() + splits.validation.images.double().sum()) / (
        60000 * 784 * 255
    )
    assert float(mean) == pytest.approx(0.2860, abs=5e-5)  # the known mean of the training images


def test_an_idx_header_asks_for_no_memory_that_the_file_does_not_have(tmp_path):
    for name, pack in (("a", bytes), ("a.gz", lambda content: gzip.compress(content))):
        (tmp_path / name).write_bytes(pack(struct.pack(">4I", 0x803, 2**11, 2**11, 2**11) + b"1234"))
        tracemalloc.start()
        with pytest.raises(ValueError, match="is truncated: it should hold 8589934592 bytes"):
            read_idx(tmp_path / name, 3)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 2**26


def test_idx_damage_is_named(tmp_path):
    good = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    path = tmp_path / "images"
    for content, message in [
        (good[:-1], "is truncated"),
        (good[:10], "within its header"),
        (good + b"x", "longer than"),
        (b"\x89PNG" + good[4:], "starts with 89504e47"),
        (b"", "starts with nothing"),
        (good[:4] + b"\xff" * 12, "claims to hold"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"images.*{message}"):
            read_idx(path, 3)
    path.write_bytes(good)
    assert read_idx(path, 3).flatten().tolist() == list(range(24))
    with pytest.raises(ValueError, match="1 axes"):
        read_idx(path, 1)
    packed = tmp_path / "images.gz"
    flipped = bytearray(gzip.compress(good))
    flipped[-8] ^= 1  # in the checksum
    for content in (gzip.compress(good)[:-9], b"plain text", bytes(flipped)):
        packed.write_bytes(content)
        with pytest.raises(ValueError, match="truncated or damaged"):
            read_idx(packed, 3)
    with pytest.raises(FileNotFoundError, match="is missing"):
        read_idx(tmp_path / "none", 3)


# CIFAR


def write_cifar(root: Path, source: str, protocol: int = 2) -> np.ndarray:
    rng = np.random.default_rng(1)
    if source == "cifar10":
        place, files, label_key, meta, names_key = (
            root / "cifar-10-batches-py",
            [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"],
            "labels",
            "batches.meta",
            "label_names",
        )
    else:
        place, files = root / "cifar-100-python", ["train", "test"]
        label_key, meta, names_key = "fine_labels", "meta", "fine_label_names"
    place.mkdir(parents=True)
    for file in files:
        data = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        content = {"data": data, label_key: [i % 4 for i in range(20)], "batch_label": "x"}
        (place / file).write_bytes(pickle.dumps(content, protocol))
    (place / meta).write_bytes(pickle.dumps({names_key: ["cat", "dog", "ship", "car"]}, protocol))
    return data


@pytest.mark.parametrize("source", ["cifar10", "cifar100"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_cifar_layout(tmp_path, source, protocol):
    last = write_cifar(tmp_path, source, protocol)
    splits = load_splits(DataSettings(source=source, root=str(tmp_path)))
    assert torch.equal(splits.test.images.flatten(1), torch.from_numpy(last))
    assert (
        splits.test.images[0, 1, 2, 3] == last[0, 1024 + 2 * 32 + 3]
    )  # planes of red, green, blue, row by row
    assert len(splits.train) + len(splits.validation) == (100 if source == "cifar10" else 20)
    assert splits.train.class_names == ("cat", "dog", "ship", "car")


class Hostile:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_cifar_hostile_or_damaged_pickle_is_refused(tmp_path):
    write_cifar(tmp_path, "cifar10")
    batch, marker = tmp_path / "cifar-10-batches-py" / "data_batch_3", tmp_path / "ran"
    settings = DataSettings(source="cifar10", root=str(tmp_path))
    for content, message in [
        (pickle.dumps({"data": Hostile(marker)}), "refused, because"),
        (b"cos\nsystem\n(S'touch ran'\ntR.", "os.system"),
        (batch.read_bytes()[:500], "refused, because"),
        (pickle.dumps([1, 2]), "no dict"),
        (pickle.dumps({"data": np.zeros((2, 5), np.uint8), "labels": [0, 0]}), "3072 columns"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 7]}), "one class per image"),
    ]:
        batch.write_bytes(content)
        with pytest.raises(ValueError, match=f"data_batch_3.*{message}"):
            load_splits(settings)
    assert not marker.exists()
    batch.unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_3 is missing"):
        load_splits(settings)
    with pytest.raises(FileNotFoundError, match=r"--data.download`"):
        load_splits(DataSettings(source="cifar10", root=str(tmp_path / "elsewhere")))


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\nndarray\n((I1099511627776\nttR.",  # an array of 8 TiB
        b"Nr\xff\xff\xff\x7f.",  # a memo of 2^31 entries
        b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b".",  # a bytearray of 8 GiB
        b"X\xff\xff\xff\x7fabc.",  # a text of 2 GiB
        b"c\x1b[31m\nx\n.",  # a name that colours the terminal
        b"}]a.",
        b"",
    ],
)
def test_a_pickle_asks_for_no_memory_that_the_file_does_not_have(tmp_path, content):
    (tmp_path / "meta").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match="meta (is refused, because .*|holds no dict): fetch") as refused:
        read_arrays(tmp_path / "meta")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    text = str(refused.value)
    assert most < 2**24 and text.isprintable() and "()" not in text and "object" not in text


def test_read_pickle_lets_python_2_strings_through(tmp_path):
    path = tmp_path / "meta"
    path.write_bytes(b"(dp0\nS'label_names'\np1\n(lp2\nS'cat'\np3\nas.")
    assert read_arrays(path) == {"label_names": ["cat"]}


def test_an_array_as_python_2_wrote_it(tmp_path):
    """The published files: an array's bytes are a string."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    raw = pixels.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x02M\x00\x0ctcnumpy\ndtype\n"
        b"(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
    )
    content = (
        b"\x80\x02}(U\x04data" + array + struct.pack("<I", len(raw)) + raw + b"tbU\x06labels](K\x03K\x01eu."
    )
    assert pickle.loads(content, encoding="latin1")["data"].tobytes() == raw
    write_cifar(tmp_path, "cifar10")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    test = load_splits(DataSettings(source="cifar10", root=str(tmp_path))).test
    assert test.images.flatten().numpy().tobytes() == raw and test.labels.tolist() == [3, 1]


# Folders


def save(path: Path, colour, size=(6, 6), mode="RGB", **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


def write_classes(root: Path, count: int = 5) -> None:
    for label, name in enumerate(("ant", "bee")):
        for i in range(count):
            save(root / name / f"{i}.png", (10 * i, 100 * label, 0))


def test_folder_of_classes(tmp_path):
    write_classes(tmp_path)
    splits = load_splits(DataSettings(source=str(tmp_path), image_size=4))
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [6, 2, 2] and splits.train.shape == (3, 4, 4)
    assert splits.train.class_names == ("ant", "bee")
    colours = [tuple(image[:, 0, 0].tolist()) for part in parts for image in part.images]
    assert sorted(colours) == sorted(
        (10 * i, 100 * y, 0) for i in range(5) for y in range(2)
    )  # each exactly once
    for part in parts:
        assert torch.equal(part.labels * 100, part.images[:, 1, 0, 0].long())


def test_folder_with_own_splits(tmp_path):
    for part, count in (("train", 4), ("val", 1), ("test", 2)):
        write_classes(tmp_path / part, count)
    settings = DataSettings(source=str(tmp_path), image_size=6, channels=1)
    splits = load_splits(settings)
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [8, 2, 4]
    save(tmp_path / "test" / "cat" / "0.png", 0)
    with pytest.raises(ValueError, match="'cat', which train/ lacks"):
        load_splits(settings)


def test_truncated_image_is_refused_or_skipped(tmp_path):
    write_classes(tmp_path)
    bad = tmp_path / "ant" / "2.png"
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(bad)
    bad.write_bytes(bad.read_bytes()[:400])
    (tmp_path / "bee" / "0.png").write_text("no image at all")
    with pytest.raises(ValueError, match=r"ant/2.png cannot be read.*--data.on-bad-image skip"):
        load_splits(DataSettings(source=str(tmp_path), image_size=4))
    with pytest.warns(UserWarning) as caught:
        splits = load_splits(DataSettings(source=str(tmp_path), image_size=4, on_bad_image="skip"))
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 2 and "ant/2.png" in messages[0] and "bee/0.png" in messages[1]
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 8
    with pytest.raises(ValueError, match=r"ant/2\.png"):
        load_images(str(tmp_path), None, (3, 4, 4))


def test_folder_errors_are_sentences(tmp_path):
    settings = DataSettings(source=str(tmp_path), image_size=4)
    with pytest.raises(ValueError, match="no class folders"):
        load_splits(settings)
    (tmp_path / "ant").mkdir()
    with pytest.raises(ValueError, match="no images"):
        load_splits(settings)
    write_classes(tmp_path)
    save(tmp_path / "cow" / "0.png", 0)
    with pytest.raises(ValueError, match=r"'cow'.* has 1 readable images, but needs at least 3"):
        load_splits(settings)
    with pytest.raises(FileNotFoundError, match="did you mean 'cifar10'"):
        load_splits(DataSettings(source="cifar-10", image_size=4))
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match="test/ but no train/"):
        load_splits(settings)


def test_modes_are_converted(tmp_path):
    path = tmp_path / "x.png"
    save(path, 77, mode="L")
    assert read_image(path, (3, 6, 6)).reshape(3, -1)[:, 0].tolist() == [77] * 3
    save(path, (200, 0, 0, 0), mode="RGBA")  # fully transparent: the white behind shows
    assert read_image(path, (3, 6, 6)).min() == 255
    save(path, (200, 10, 20, 255), mode="RGBA")
    assert read_image(path, (3, 6, 6))[:, 0, 0].tolist() == [200, 10, 20]
    palette = Image.new("P", (6, 6), 1)
    palette.putpalette([0, 0, 0, 9, 50, 250])
    palette.save(path)
    assert read_image(path, (3, 6, 6))[:, 3, 3].tolist() == [9, 50, 250]
    save(path, (255, 0, 0))
    assert read_image(path, (1, 6, 6))[0, 0, 0] == 76  # 0.299 * 255
    Image.fromarray(np.full((6, 6), 257 * 130, dtype=np.uint16)).save(path)
    assert read_image(path, (1, 6, 6))[0, 0, 0] == 130
    save(tmp_path / "x.tif", 0.5, mode="F")
    with pytest.raises(ValueError, match="floating-point"):
        read_image(tmp_path / "x.tif", (1, 6, 6))


def test_exif_orientation_and_centre_crop(tmp_path):
    pixels = np.zeros((4, 8, 3), dtype=np.uint8)
    pixels[:, 4:] = 200  # right half bright
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise: the right half becomes the lower half
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    image = read_image(tmp_path / "x.png", (1, 4, 4))[0]
    assert image[:2].max() == 0 and image[2:].min() == 200  # rows 2 to 5 of 8 are the centre


# Images of any source in a wanted shape


def test_load_images_named_and_flat(tmp_path):
    digits = load_images("digits", None, (3, 16, 16))
    assert digits.shape == (3, 16, 16) and torch.equal(digits.images[:, 0], digits.images[:, 2])
    for i in range(3):
        save(tmp_path / f"{i}.jpg", (50 * i,) * 3, size=(20, 10))
    flat = load_images(str(tmp_path), None, (1, 5, 5))
    assert flat.labels.tolist() == [0, 0, 0] and flat.images[:, 0, 2, 2].tolist() == [0, 50, 100]
    write_classes(tmp_path / "train", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_images(str(tmp_path), None, (3, 5, 5))) == 2
    with pytest.raises(ValueError, match="leave root out"):
        load_images(str(tmp_path), "x", (1, 5, 5))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no readable image"):
        load_images(str(tmp_path / "empty"), None, (1, 5, 5))


def test_fit_to_shape_known_values():
    colour = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2).contiguous()
    grey = ImageData(colour, torch.tensor([0]), ("a",), "red").fitted((1, 4, 4))
    assert grey.images.unique().tolist() == [76]
    checks = torch.tensor([[0, 200], [200, 0]], dtype=torch.uint8).repeat(2, 2).view(1, 1, 4, 4)
    small = ImageData(checks, torch.tensor([0]), ("a",), "checks").fitted((1, 1, 1))
    assert abs(int(small.images) - 100) <= 1
    with pytest.raises(ValueError, match="cannot become 3"):
        ImageData(colour[:, :2], torch.tensor([0]), ("a",), "two").fitted((3, 2, 2))
