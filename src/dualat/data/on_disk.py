"""Folders and webdataset shards as images on disk: which of their files is training, validation and test."""

import difflib
import glob
import re
from collections.abc import Iterable
from pathlib import Path

from dualat.data.decode import View
from dualat.data.folder import listed, open_class_folder, open_flat_folder
from dualat.data.formats import WANTED
from dualat.data.images import ImageData
from dualat.data.listing import class_folders, has_images
from dualat.data.pictures import Shape
from dualat.data.registry import SOURCES
from dualat.data.settings import DataSettings
from dualat.data.shards import open_shards
from dualat.system.plugins import LOAD

_VALIDATION = ("val", "validation", "valid")
_WORDS = {"train": "train", "test": "test"} | dict.fromkeys(_VALIDATION, "validation")


def require_images(count: int, name: str) -> None:
    """ValueError where there are none."""
    if not count:
        raise ValueError(f"{name} has no readable image: put {WANTED} there.")


def find_shards(source: str) -> list[Path]:
    """The .tar files that a pattern, a path, or a folder stands for, sorted; none for other folders.

    Raises:
        FileNotFoundError: a pattern or path of shards that are not there.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return sorted(path.glob("[!.]*.tar"))
    if not any(sign in source for sign in "*?[") and path.suffix != ".tar":
        return []
    found = sorted(Path(name) for name in glob.glob(str(path)) if name.endswith(".tar"))
    if not found:
        raise FileNotFoundError(
            f"no .tar file matches {source!r}: give the folder or the pattern of the shards."
        )
    return [shard for shard in found if shard.is_file()]


def all_shards(source: str) -> list[Path]:
    """The same, and for a folder those in its subfolders too. FileNotFoundError: nothing is there."""
    folder = Path(source).expanduser()
    if (found := find_shards(source)) or folder.is_dir():
        return sorted([*found, *folder.glob("[!.]*/[!.]*.tar")])
    raise FileNotFoundError(f"{source!r} is no folder: name a folder of images, or webdataset shards (.tar).")


def _folder(source: str) -> Path:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        near = difflib.get_close_matches(source, SOURCES, n=1)
        hint = f"did you mean {near[0]!r}? Otherwise name" if near else "name"
        raise FileNotFoundError(
            f"{source!r} is neither a folder nor one of {', '.join(SOURCES)}: {hint} an "
            f"existing folder of images, or webdataset shards (.tar); {LOAD}."
        )
    return folder


def split_parts(settings: DataSettings) -> dict[str, list[Path]]:
    """The folder, or the shards, of train, and of validation and test where they are not to be split off.

    Raises: see `open_splits`.
    """
    shards = find_shards(settings.source)
    parts = _shards_by_split(shards, settings.source) if shards else _folders_by_split(settings.source)
    if settings.val_as == "test":
        if "validation" not in parts:
            raise ValueError(
                f"val_as is test, but {settings.source} has no val/ and no shards of validation images: leave it out."
            )
        parts["test"] = parts.pop("validation")
    return parts


def open_splits(settings: DataSettings) -> tuple[ImageData, ImageData | None, ImageData | None]:
    """(training, validation, test) images, none decoded yet; None for those that must be split off.

    Raises:
        FileNotFoundError: the folder or the shards are not there.
        ValueError: they are not laid out as docs/data.md says.
    """
    parts = split_parts(settings)
    assert settings.image_size is not None
    view = View((settings.channels or 3, settings.image_size, settings.image_size))
    train = _open_part(parts["train"], view, settings, None)
    found = {
        split: _open_part(parts[split], view, settings, train.class_names) if split in parts else None
        for split in ("validation", "test")
    }
    return train, found["validation"], _only_listed(found["test"], settings)


def _only_listed(test: ImageData | None, settings: DataSettings) -> ImageData | None:
    """The test images that `test_list` names."""
    if settings.test_list is None:
        return test
    if test is None:
        raise ValueError(
            f"test_list is {settings.test_list!r}, but {settings.source} has no test images of its own: leave it out."
        )
    return listed(test, [settings.test_list], [])


def _open_part(
    where: list[Path], view: View, settings: DataSettings, classes: tuple[str, ...] | None
) -> ImageData:
    """One split: shards, or one folder of class folders."""
    if where[0].is_dir():
        data = open_class_folder(where[0], view, classes, settings.workers)
    else:
        data = open_shards(where, view, str(where[0].parent), classes, settings.workers)
    return listed(data, (), settings.exclude)


def _folders_by_split(source: str) -> dict[str, list[Path]]:
    """The folder, or the shards, of each split that a folder has."""
    folder = _folder(source)
    if not (folder / "train").is_dir():
        if (folder / "test").is_dir():
            raise ValueError(
                f"{folder} has test/ but no train/: add train/, or put class folders alone there."
            )
        return {"train": [folder]}
    parts = {"train": folder / "train", "test": folder / "test"}
    parts["validation"] = next(
        (folder / name for name in _VALIDATION if (folder / name).is_dir()), folder / "val"
    )
    return {split: find_shards(str(part)) or [part] for split, part in parts.items() if part.is_dir()}


def _shards_by_split(shards: list[Path], source: str) -> dict[str, list[Path]]:
    """Shards by the split that their names tell (train, val, validation, valid, test); all are training where none does."""
    parts: dict[str, list[Path]] = {}
    for shard in shards:
        words = [_WORDS[word] for word in re.split("[^a-z]+", shard.stem.lower()) if word in _WORDS]
        parts.setdefault(words[0] if words else "", []).append(shard)
    if "" in parts and len(parts) > 1:
        raise ValueError(
            f"{parts[''][0]} does not say in its name whether it is train, val or test, as others in {source} do: rename "
            "it, or put the shards of each split in a folder of that name."
        )
    if "" in parts:
        return {"train": parts[""]}
    if "train" not in parts:
        raise ValueError(f"{source} has no shard with train in its name: give the training shards too.")
    return parts


def open_images(
    source: str, root: str | None, shape: Shape, include: Iterable[str] = (), exclude: Iterable[str] = ()
) -> ImageData:
    """All images of a folder or of shards, none decoded yet; of a folder with train/ its images.

    Subfolders are classes; images of shards, and of a folder without subfolders, are one class.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no images, damaged shards, or lists that leave nothing.
    """
    if root is not None:
        raise ValueError(f"root is for named sources, and {source!r} is a folder: leave root out.")
    view = View(shape)
    shards = find_shards(source)
    folder = Path(source) if shards else _folder(source)
    if not shards:
        folder = folder / "train" if (folder / "train").is_dir() else folder
        shards = find_shards(str(folder))
    if shards:
        data = open_shards(shards, view, source, labelled=False)
    elif any(has_images(folder / name) for name in class_folders(folder)):
        data = open_class_folder(folder, view)
    else:
        data = open_flat_folder(folder, view)
    return listed(data, tuple(include), tuple(exclude)).renamed(source)
