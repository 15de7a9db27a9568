"""The images that a classifier learns, in three splits, and images of any source in a wanted shape."""

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor

from dualat.data.arrays import FILES, TinyImages, Without, read_array
from dualat.data.decode import View
from dualat.data.duplicates import tell_duplicates
from dualat.data.images import ImageData, Splits, split_off
from dualat.data.names import read_positions
from dualat.data.on_disk import open_images, open_splits, require_images
from dualat.data.own import split_by
from dualat.data.pictures import MEMORY_LIMIT, Pictures, Shape
from dualat.data.registry import SOURCES
from dualat.data.settings import DataSettings
from dualat.system.seeds import mix_seed

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
    elif SOURCES[settings.source].is_own:
        splits = split_by(settings, SOURCES[settings.source].read(None, False), settings.source)
        train, validation, test = splits.train, splits.validation, splits.test
    else:
        train, test = SOURCES[settings.source].read(settings.root, settings.download)
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
    listed = parts
    if held:
        parts = {part: data.held() for part, data in parts.items()}
    if settings.is_folder:  # what named sources repeat is no mistake of whoever uses them
        tell_duplicates(listed, parts, settings.source)
    return Splits(**{part: data.renamed(f"{settings.source} {part}") for part, data in parts.items()})


def _fits(parts: tuple[ImageData | None, ...], limit: float) -> bool:
    """Whether all images together take no more than `limit` bytes."""
    return sum(len(part) * math.prod(part.shape) for part in parts if part is not None) <= limit


def _good(
    parts: tuple[ImageData, ImageData | None, ImageData | None], settings: DataSettings, held: bool
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


def _skip(data: ImageData) -> ImageData:
    """The images that can be read, with a warning about each other."""
    kept, problems = data.readable()
    for problem in problems:
        warnings.warn(f"{problem}: skipped.", stacklevel=2)
    require_images(len(kept), data.name)
    return data.take(kept)


def _seen(data: ImageData, part: str, settings: DataSettings) -> ImageData:
    """A split in its own view: held-out images may be resized in another way."""
    own = settings.test_resize or settings.test_interpolation != "bilinear"
    if part == "train" or not own or data.in_memory:
        return data
    return data.seen(View(data.shape, settings.test_resize, settings.test_interpolation == "bicubic"))


def load_images(
    source: str, root: str | None, shape: Shape, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()
) -> ImageData:
    """Training images of a named source, or the images of a folder or of shards, as (N, C, H, W) of the wanted shape.

    Images are resized to cover H x W (bilinear, antialiased), cut to the centre, and made grey or colour. Of a
    folder with train/, that is read. Subfolders are classes; images in a folder without subfolders get label 0. More
    than 8 GiB of files are not held in memory.

    Args:
        shape: (C, H, W).
        include, exclude: lists of names of a folder's or shards' images.

    Raises:
        FileNotFoundError: the source's files, the folder, or a list are not there.
        ValueError: damaged files, bad images, or no images.
    """
    if source in SOURCES:
        if include or exclude:
            raise ValueError(
                f"include and exclude are for folders and files of images, not {source}: leave them out."
            )
        return named_images(source, root).fitted(shape)
    data = open_images(source, root, shape, include, exclude)
    return data.held() if _fits((data,), MEMORY_LIMIT) else data


def named_images(source: str, root: str | None) -> ImageData:
    """Training images of a named source, in their own shape; of one with a test split of its own, validation images too."""
    if not SOURCES[source].has_test:
        return load_splits(DataSettings(source=source)).train
    return SOURCES[source].read(root, False)[0]


def open_pictures(
    source: str, root: str | None, shape: Shape, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()
) -> Tensor | Pictures:
    """Auxiliary pictures, which contrastive samples can start from, in the wanted shape: a tensor, uint8 (N, C, H, W), or
    pictures that stay on disk, as the files .bin and .npy, and folders and shards that take more than 8 GiB.

    Args:
        source: as InitialSettings.source says.
        root: folder of a named source's files.
        shape: (C, H, W); other pictures are fitted to it (dualat.data.pictures.Pictures.fitted).
        include, exclude: lists of names, or of positions, as InitialSettings says.

    Raises:
        FileNotFoundError: the source, or a list, is not there.
        ValueError: damaged files or lists, or no picture left.
    """
    path = Path(source).expanduser()
    if source in SOURCES or path.suffix not in FILES or path.is_dir():
        data = load_images(source, root, shape, include, exclude)
        return data.images if data.in_memory else data
    if root is not None or include:
        wrong = "root" if include == () else "include"
        raise ValueError(f"{wrong} does nothing for the file {source!r}: leave it out.")
    pictures: Pictures = TinyImages(path) if path.suffix == ".bin" else read_array(path)
    if exclude:
        pictures = Without(pictures, read_positions(exclude, len(pictures), str(path)))
    return pictures if pictures.shape == tuple(shape) else pictures.fitted(shape, str(path))
