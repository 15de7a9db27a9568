"""What is known of a run's images without reading them: shape, classes, and how many there are to learn from."""

from dataclasses import dataclass
from pathlib import Path

from dualat.data.in_distribution import load_splits
from dualat.data.listing import class_folders, pictures
from dualat.data.names import read_lines
from dualat.data.registry import SOURCES
from dualat.data.settings import DataSettings
from dualat.data.sources import find_shards

_CLASSES = 1000
_VALIDATION = ("val", "validation", "valid")


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
    train, own, counted = _folder(settings)
    if own is not None and classes is not None:
        raise ValueError(f"classes is given, but {settings.source} is here and has {own}: leave it out.")
    count, origin = (train_images, "given") if train_images is not None else (counted, "counted")
    own = own or classes or _CLASSES
    left = None if count is None else _left(count, own, _held_out(settings, train), settings.limit)
    return DataFacts(shape, own, left, "unknown" if left is None else origin)


def _left(count: int, classes: int, held: tuple[float, float], limit: int | None) -> int:
    """What is left once shares are held out of every class, all classes taken to be equally large."""
    for fraction in held:
        count -= classes * round(fraction * count / classes)
    return count if limit is None else min(count, limit)


def _folder(settings: DataSettings) -> tuple[Path | None, int | None, int | None]:
    """The folder of training images, its classes, and its images as far as they can be counted."""
    folder = Path(settings.source).expanduser()
    train = folder / "train" if (folder / "train").is_dir() else folder
    shards = _shards(str(train))
    if shards:
        names = shards[0].parent / "classnames.txt"
        return None, len(read_lines(names)) if names.is_file() else None, None
    if not train.is_dir() or not (classes := class_folders(train)):
        return None, None, None
    lists = bool(settings.exclude)  # they would have to be matched name by name
    return train, len(classes), None if lists else sum("/" in name for name, _ in pictures(train))


def _shards(source: str) -> list[Path]:
    try:
        return find_shards(source)
    except FileNotFoundError:
        return []


def _held_out(settings: DataSettings, train: Path | None) -> tuple[float, float]:
    """Shares of the training folder that become test and validation images. A folder that is not here is taken to have
    both of its own, unless `val_as` makes its val/ the test split."""
    if settings.val_as == "test":
        return 0.0, settings.validation_fraction
    if train is None:
        return 0.0, 0.0
    if train.name != "train":
        return settings.test_fraction, settings.validation_fraction
    own = any((train.parent / name).is_dir() for name in _VALIDATION)
    test = 0.0 if (train.parent / "test").is_dir() else settings.test_fraction
    return test, 0.0 if own else settings.validation_fraction
