"""Images from folders: listed by class, and read."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from dualat.data.decode import BadImage, View, decode_image
from dualat.data.files import Files
from dualat.data.formats import WANTED
from dualat.data.images import ImageData
from dualat.data.listing import class_folders, list_images
from dualat.data.names import select
from dualat.data.pictures import Shape


def read_image(path: Path, shape: Shape) -> np.ndarray:
    """One image file as uint8 (C, H, W), as `decode_image` says.

    Raises:
        ValueError: the file cannot be read; the sentence names it.
    """
    return decode_image(path, View(shape), str(path))


class FolderFiles(Files):
    """Image files below one folder."""

    def __init__(self, folder: Path, entries: list[tuple[str, int]], view: View, workers: int | None = None):
        super().__init__(view, workers)
        self.folder, self.entries = str(folder), entries

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, position: int) -> np.ndarray:
        path = os.path.join(self.folder, self.entries[position][0])
        return decode_image(path, self.view, path)

    def raw(self, position: int) -> bytes:
        path = os.path.join(self.folder, self.entries[position][0])
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise BadImage(f"{path} cannot be read ({error.strerror})") from error

    def told(self, position: int) -> tuple[str, int]:
        return self.entries[position]


def open_class_folder(
    folder: Path,
    view: View,
    classes: tuple[str, ...] | None = None,
    workers: int | None = None,
) -> ImageData:
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
    everything = list_images(folder)
    entries = [entry for entry in everything if "/" in entry[0]]
    if outside := [name for name, _ in everything if "/" not in name]:
        many = "1 picture is" if len(outside) == 1 else f"{len(outside)} pictures are"
        warnings.warn(
            f"{folder}: {many} left out, lying in no class folder: {outside[0]}"
            f"{' ...' if outside[1:] else ''}.",
            stacklevel=2,
        )
    if not entries:
        raise ValueError(f"{folder} has no images in its class folders: put {WANTED} there.")
    number = {name: k for k, name in enumerate(names)}
    labels = [number[path.partition("/")[0]] for path, _ in entries]
    return ImageData(FolderFiles(folder, entries, view, workers), torch.tensor(labels), names, str(folder))


def open_flat_folder(folder: Path, view: View) -> ImageData:
    """All images below a folder as one class. ValueError: there are none."""
    entries = list_images(folder)
    if not entries:
        raise ValueError(f"{folder} has no readable image: put {WANTED} there.")
    labels = torch.zeros(len(entries), dtype=torch.int64)
    return ImageData(FolderFiles(folder, entries, view), labels, ("all",), str(folder))


def listed(data: ImageData, include: Iterable[str], exclude: Iterable[str]) -> ImageData:
    """Those of the images that lists of names leave: dualat.data.names.select says which."""
    if not include and not exclude:
        return data
    names = [f"{data.name}/{name}" for name in data.told()]
    return data.take(torch.from_numpy(select(names, include, exclude, data.name)))
