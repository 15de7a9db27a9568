"""What is known of a run's images without reading them: shape, classes, and how many there are to learn from."""

from collections.abc import Collection
from dataclasses import dataclass

from dualat.data.in_distribution import load_splits
from dualat.data.listing import class_folders, pictures
from dualat.data.names import read_lines
from dualat.data.on_disk import split_parts
from dualat.data.registry import SOURCES
from dualat.data.settings import DataSettings

_CLASSES = 1000


@dataclass(frozen=True)
class DataFacts:
    """What is known of the images."""

    shape: tuple[int, int, int]
    classes: int
    train: int | None
    """Images to learn from, once others are held out; None: not known."""
    origin: str
    """Where the number comes from: known, counted, given, or nowhere."""


def data_facts(settings: DataSettings, train_images: int | None, classes: int | None) -> DataFacts:
    """Shape, classes and number of training images.

    Args:
        train_images: number in the training part of a folder or of shards; None: counted where a folder is there.
        classes: of a folder or of shards that are not there; None: 1000.

    Raises:
        ValueError: either is given for a source whose own is known, or the images were given in Python.
    """
    settings.require_source()
    if not settings.is_folder:
        if train_images is not None or classes is not None:
            name = "train_images" if train_images is not None else "classes"
            raise ValueError(
                f"{name} is for folders and shards: it is known for {settings.source}, leave it out."
            )
        row = SOURCES[settings.source]
        if row.is_own:
            images = load_splits(settings).train
            return DataFacts(images.shape, len(images.class_names), len(images), "counted")
        held = (0.0 if row.has_test else settings.test_fraction, settings.validation_fraction)
        return DataFacts(row.shape, row.classes, _left(row.train, row.classes, held, settings.limit), "known")
    assert settings.image_size is not None
    shape = (settings.channels or 3, settings.image_size, settings.image_size)
    parts, own, counted = _folder(settings)
    if own is not None and classes is not None:
        raise ValueError(f"classes is given, but {settings.source} is here and has {own}: leave it out.")
    count, origin = (train_images, "given") if train_images is not None else (counted, "counted")
    own = own or classes or _CLASSES
    left = None if count is None else _left(count, own, _held_out(settings, parts), settings.limit)
    return DataFacts(shape, own, left, "unknown" if left is None else origin)


def _left(count: int, classes: int, held: tuple[float, float], limit: int | None) -> int:
    """What is left once shares are held out of every class, all classes taken to be equally large."""
    for fraction in held:
        count -= classes * round(fraction * count / classes)
    return count if limit is None else min(count, limit)


def _folder(settings: DataSettings) -> tuple[Collection[str] | None, int | None, int | None]:
    """The splits that a folder has, the classes of its training images, and these as far as they can be counted."""
    try:
        parts = split_parts(settings)
    except FileNotFoundError:
        return None, None, None
    train = parts["train"][0]
    if train.is_file():
        names = train.parent / "classnames.txt"
        return None, len(read_lines(names)) if names.is_file() else None, None
    if not (classes := class_folders(train)):
        return None, None, None
    lists = bool(settings.exclude)  # they would have to be matched name by name
    return parts, len(classes), None if lists else sum("/" in name for name, _ in pictures(train))


def _held_out(settings: DataSettings, parts: Collection[str] | None) -> tuple[float, float]:
    """Shares of the training images that become test and validation images. A folder that is not here is taken to have
    both of its own, unless `val_as` makes its val/ the test split."""
    if settings.val_as == "test":
        return 0.0, settings.validation_fraction
    known = ("test", "validation") if parts is None else parts
    test = 0.0 if "test" in known else settings.test_fraction
    return test, 0.0 if "validation" in known else settings.validation_fraction
