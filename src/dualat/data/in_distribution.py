"""The images that a classifier learns, in three splits, and images of any source in a wanted shape."""

import difflib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dualat.data.cifar import load_cifar
from dualat.data.fashion import load_fashion_mnist
from dualat.data.folder import OnBad, class_folders, find_images, load_class_folder, read_files
from dualat.data.images import ImageData, Shape, Splits, fit_to_shape, split_off
from dualat.data.settings import NAMED_SOURCES, DataSettings
from dualat.seeding import mix_seed

__all__ = ["ImageData", "Splits", "load_images", "load_splits"]

_VALIDATION_FOLDERS = ("val", "validation", "valid")
_SMALLEST_CLASS = 3  # one image for each split


def load_splits(settings: DataSettings) -> Splits:
    """Training, validation and test images of the source; the same settings give the same splits.

    A source's own test split is the test split; where it has none, `test_fraction` of every class is taken. Then
    `validation_fraction` of every class is taken from the training images, unless a folder has its own val/.

    Raises:
        FileNotFoundError: the files are not there; the sentence says where they should be and how to get them.
        ValueError: damaged files, bad images, too small a class, more than 8 GiB.
    """
    if settings.is_folder:
        train, validation, test = _read_folder(settings)
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
    if empty := [n for n, part in (("validation", validation), ("test", test)) if not len(part)]:
        raise ValueError(
            f"the {empty[0]} split of {settings.source} is empty: give more images or other fractions."
        )
    parts = {"train": train, "validation": validation, "test": test}
    return Splits(**{part: replace(data, name=f"{settings.source} {part}") for part, data in parts.items()})


def load_images(
    source: str, root: str | None, shape: Shape, download: bool = False, on_bad_image: OnBad = "refuse"
) -> ImageData:
    """Training images of a named source, or the images of a folder, as (N, C, H, W) of the wanted shape (C, H, W).

    Images are resized to cover H x W (bilinear, antialiased), cut to the centre, and made grey or colour. Of a
    folder with train/, that is read. Subfolders are classes; images in a folder without subfolders get label 0.

    Raises:
        FileNotFoundError: the source's files, or the folder, are not there.
        ValueError: damaged files, bad images, no images, more than 8 GiB.
    """
    if source in NAMED_SOURCES:
        if source == "digits":
            data = load_splits(DataSettings()).train
        else:
            data = _read_named(source, root, download)[0]
        return fit_to_shape(data, shape)
    if root is not None:
        raise ValueError(f"root is for named sources, and {source!r} is a folder: leave root out.")
    folder = _folder(source)
    if (folder / "train").is_dir():
        folder = folder / "train"
    if any(find_images(folder / name) for name in class_folders(folder)):
        return replace(load_class_folder(folder, shape, on_bad_image), name=source)
    paths = find_images(folder)
    images, labels = read_files(paths, [0] * len(paths), shape, on_bad_image, str(folder))
    return ImageData(images, labels, ("all",), source)


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


def _folder(source: str) -> Path:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        near = difflib.get_close_matches(source, NAMED_SOURCES, n=1)
        hint = f"did you mean {near[0]!r}? Otherwise name" if near else "name"
        raise FileNotFoundError(
            f"{source!r} is neither a folder nor one of {', '.join(NAMED_SOURCES)}: {hint} an "
            "existing folder of images."
        )
    return folder


def _read_folder(settings: DataSettings) -> tuple[ImageData, ImageData | None, ImageData | None]:
    """(training, validation, test) images; None for those that must be split off."""
    folder = _folder(settings.source)
    assert settings.image_size is not None
    shape = (settings.channels or 3, settings.image_size, settings.image_size)
    bad = settings.on_bad_image
    if not (folder / "train").is_dir():
        if (folder / "test").is_dir():
            raise ValueError(
                f"{folder} has test/ but no train/: add train/, or put class folders alone there."
            )
        return load_class_folder(folder, shape, bad, minimum=_SMALLEST_CLASS), None, None
    train = load_class_folder(folder / "train", shape, bad, minimum=_SMALLEST_CLASS)
    found = next((folder / name for name in _VALIDATION_FOLDERS if (folder / name).is_dir()), None)
    validation = load_class_folder(found, shape, bad, train.class_names) if found else None
    has_test = (folder / "test").is_dir()
    test = load_class_folder(folder / "test", shape, bad, train.class_names) if has_test else None
    return train, validation, test
