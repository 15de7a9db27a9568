"""The images that a classifier learns, in three splits, and images of any source in a wanted shape."""

import math
import warnings

import numpy as np
import torch

from dualat.data.cifar import load_cifar
from dualat.data.decode import View
from dualat.data.duplicates import tell_duplicates
from dualat.data.fashion import load_fashion_mnist
from dualat.data.images import MEMORY_LIMIT, ImageData, Shape, Splits, fit_to_shape, split_off
from dualat.data.lazy import LazyImages
from dualat.data.settings import NAMED_SOURCES, DataSettings
from dualat.data.sources import open_images, open_splits, require_images
from dualat.system.seeds import mix_seed
from dualat.types import OnBadImage

__all__ = ["ImageData", "Splits", "load_images", "load_splits"]

_SMALLEST_CLASS = 3  # one image for each split


def load_splits(settings: DataSettings) -> Splits:
    """Training, validation and test images of the source; the same settings give the same splits.

    A source's own test split is the test split; where it has none, `test_fraction` of every class is taken. Then
    `validation_fraction` of every class is taken from the training images, unless a folder has its own val/.
    Images of folders and shards are in memory where all of them fit into `memory_gib`, else decoded when needed.

    Raises:
        FileNotFoundError: the files are not there; the sentence says where they should be and how to get them.
        ValueError: damaged files, bad images, too small a class, or images that were given in Python.
    """
    settings.require_source()
    memory = settings.memory_gib * 2**30
    if settings.is_folder:
        opened = open_splits(settings)
        train, validation, test = _good(opened, settings, _fits(opened, memory))
    else:
        train, test = _read_named(settings.source, settings.root, settings.download)
        validation = None
    seed = settings.split_seed
    if test is None:
        train, test = split_off(train, settings.test_fraction, mix_seed("test", seed), train.name, "")
    if validation is None:
        train, validation = split_off(
            train, settings.validation_fraction, mix_seed("validation", seed), "", ""
        )
    if settings.limit is not None:
        generator = torch.Generator().manual_seed(mix_seed("limit", seed))
        train = train.take(torch.randperm(len(train), generator=generator)[: settings.limit])
        if len(train.labels.unique()) < 2:
            raise ValueError(
                f"limit is {settings.limit}, which leaves training images of one class: give more, so that there are two."
            )
    if empty := [n for n, part in (("validation", validation), ("test", test)) if not len(part)]:
        raise ValueError(
            f"the {empty[0]} split of {settings.source} is empty: give more images or other fractions."
        )
    parts = {"train": train, "validation": validation, "test": test}
    held = _fits(tuple(parts.values()), memory)
    parts = {part: _seen(data, part, settings) for part, data in parts.items()}
    listed = {part: data for part, data in parts.items() if isinstance(data, LazyImages)}
    if held:
        parts = {part: listed[part].held() if part in listed else data for part, data in parts.items()}
    if listed:  # what named sources repeat is no mistake of whoever uses them
        tell_duplicates(listed, parts, settings.source)
    return Splits(**{part: data.renamed(f"{settings.source} {part}") for part, data in parts.items()})


def _fits(parts: tuple[ImageData | None, ...], limit: float) -> bool:
    """Whether all images together take no more than `limit` bytes."""
    return sum(len(part) * math.prod(part.shape) for part in parts if part is not None) <= limit


def _good(
    parts: tuple[LazyImages, LazyImages | None, LazyImages | None], settings: DataSettings, held: bool
) -> tuple[ImageData, ImageData | None, ImageData | None]:
    """The parts without bad images, where those are skipped; every class of the training images is large enough."""
    if settings.on_bad_image == "skip":
        if not held:
            raise ValueError(
                f"on_bad_image is skip, but the images of {settings.source} are not in memory: list the bad ones with "
                "`dualat data prepare images` and give the list to `--data.exclude`."
            )
        train, validation, test = (part and _skip(part) for part in parts)
        assert train is not None
        parts = train, validation, test
    train = parts[0]
    counts = torch.bincount(train.labels, minlength=len(train.class_names))
    if int(counts.min()) < _SMALLEST_CLASS:
        worst = int(counts.argmin())
        raise ValueError(
            f"class {train.class_names[worst]!r} in {train.name} has {int(counts[worst])} readable images, but needs at "
            f"least {_SMALLEST_CLASS}: add images or remove its folder."
        )
    return parts


def _skip(data: LazyImages) -> LazyImages:
    """The images that can be read, with a warning about each other."""
    kept, problems = data.readable()
    for problem in problems:
        warnings.warn(f"{problem}: skipped.", stacklevel=2)
    require_images(len(kept), data.name)
    return data.take(kept)


def _seen(data: ImageData, part: str, settings: DataSettings) -> ImageData:
    """A split in its own view: held-out images may be resized in another way."""
    own = settings.test_resize or settings.test_interpolation != "bilinear"
    if part == "train" or not own or not isinstance(data, LazyImages):
        return data
    return data.seen(View(data.shape, settings.test_resize, settings.test_interpolation == "bicubic"))


def load_images(
    source: str, root: str | None, shape: Shape, download: bool = False, on_bad_image: OnBadImage = "refuse"
) -> ImageData:
    """Training images of a named source, or the images of a folder or of shards, as (N, C, H, W) of the wanted shape.

    Images are resized to cover H x W (bilinear, antialiased), cut to the centre, and made grey or colour. Of a
    folder with train/, that is read. Subfolders are classes; images in a folder without subfolders get label 0. More
    than 8 GiB of files are not held in memory.

    Args:
        shape: (C, H, W).

    Raises:
        FileNotFoundError: the source's files, or the folder, are not there.
        ValueError: damaged files, bad images, or no images.
    """
    if source in NAMED_SOURCES:
        return fit_to_shape(named_images(source, root, download), shape)
    data = open_images(source, root, shape)
    if not _fits((data,), MEMORY_LIMIT):
        return data
    return (_skip(data) if on_bad_image == "skip" else data).held()


def named_images(source: str, root: str | None, download: bool = False) -> ImageData:
    """Training images of a named source, in their own shape."""
    if source == "digits":
        return load_splits(DataSettings()).train
    return _read_named(source, root, download)[0]


def _read_named(source: str, root: str | None, download: bool) -> tuple[ImageData, ImageData | None]:
    """All training images, and the source's own test split if it has one."""
    if source == "digits":
        return _digits(), None
    if source == "fashion-mnist":
        return load_fashion_mnist(root, download)
    return load_cifar(source, root, download)


def _digits() -> ImageData:
    """scikit-learn's 1,797 handwritten digits, (1, 8, 8); their levels 0 to 16 become 0 to 255."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    images = torch.from_numpy(np.round(np.asarray(pixels) / 16 * 255).astype(np.uint8)).view(-1, 1, 8, 8)
    labels = torch.from_numpy(np.asarray(digits, dtype=np.int64))
    return ImageData(images, labels, tuple(str(digit) for digit in range(10)), "digits")
