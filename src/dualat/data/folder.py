"""Images from folders: found, listed by class, and read."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from dualat.data.decode import View, decode_image
from dualat.data.images import Shape
from dualat.data.lazy import Files, LazyImages
from dualat.data.names import select

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


def list_images(folder: Path) -> list[tuple[str, int]]:
    """Paths below a folder, with /, and sizes in bytes of all image files, by suffix, sorted by path."""
    return sorted(_walk(str(folder), ""), key=lambda entry: entry[0].split("/"))


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                yield f"{prefix}{entry.name}", entry.stat().st_size


def find_images(folder: Path) -> list[Path]:
    """All image files below a folder, by suffix, sorted by path."""
    return [folder / name for name, _ in list_images(folder)]


def has_images(folder: Path) -> bool:
    """Whether there is any image file below a folder."""
    return next(_walk(str(folder), ""), None) is not None


def class_folders(folder: Path) -> list[str]:
    """Names of the subfolders, sorted, hidden ones left out."""
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def read_image(path: Path, shape: Shape) -> np.ndarray:
    """One image file as uint8 (C, H, W), as `decode_image` says.

    Raises:
        ValueError: the file cannot be read; the sentence names it.
    """
    return decode_image(path, View(shape), str(path))


class FolderFiles(Files):
    """Image files below one folder."""

    def __init__(self, folder: Path, entries: list[tuple[str, int]], view: View):
        super().__init__(view)
        self.folder, self.entries = str(folder), entries

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, position: int) -> np.ndarray:
        path = os.path.join(self.folder, self.entries[position][0])
        return decode_image(path, self.view, path)

    def told(self, position: int) -> tuple[str, int]:
        return self.entries[position]


def open_class_folder(
    folder: Path,
    view: View,
    classes: tuple[str, ...] | None = None,
    workers: int | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
) -> LazyImages:
    """Images of folder/CLASS/..., labelled by class in the order of `classes`, or of the sorted subfolder names.

    Raises:
        ValueError: no class folders, no images, or a class that is not in `classes`.
    """
    found = class_folders(folder)
    if not found:
        raise ValueError(
            f"{folder} has no class folders: put the images of each class in a subfolder of its own."
        )
    names = tuple(found) if classes is None else classes
    if unknown := sorted(set(found) - set(names)):
        raise ValueError(
            f"{folder} has the class folder {unknown[0]!r}, which train/ lacks: remove or rename it."
        )
    entries, labels = [], []
    for name in found:
        inside = list_images(folder / name)
        entries += [(f"{name}/{path}", size) for path, size in inside]
        labels += [names.index(name)] * len(inside)
    if not entries:
        raise ValueError(
            f"{folder} has no images in its class folders: put {', '.join(SUFFIXES)} files there."
        )
    data = LazyImages(FolderFiles(folder, entries, view), torch.tensor(labels), names, str(folder), workers)
    return listed(data, include, exclude)


def open_flat_folder(
    folder: Path,
    view: View,
    workers: int | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
) -> LazyImages:
    """All images below a folder as one class. ValueError: there are none."""
    entries = list_images(folder)
    if not entries:
        raise ValueError(f"{folder} has no readable image: put images ({', '.join(SUFFIXES)}) there.")
    labels = torch.zeros(len(entries), dtype=torch.int64)
    data = LazyImages(FolderFiles(folder, entries, view), labels, ("all",), str(folder), workers)
    return listed(data, include, exclude)


def listed(data: LazyImages, include: Iterable[str], exclude: Iterable[str]) -> LazyImages:
    """Those of the images that lists of names leave: dualat.data.names.select says which."""
    if not include and not exclude:
        return data
    names = [f"{data.name}/{name}" for name in data.told()]
    return data.take(torch.from_numpy(select(names, include, exclude, data.name)))
