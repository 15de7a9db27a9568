"""CIFAR-10 and CIFAR-100 from the files of their Python version, which are pickles.

A pickle can run code, so it is read as data (system/pickles/).
Source: the description of the files at cs.toronto.edu/~kriz/cifar.html. Folder names are those of torchvision.
"""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualat.data.images import ImageData
from dualat.data.registry import Source
from dualat.system.pickles.reader import Budget, read_pickle
from dualat.system.pickles.values import Inert, as_tensor

_KEYS = {"cifar10": ("labels", "label_names"), "cifar100": ("fine_labels", "fine_label_names")}


REFUSED = "{} is refused, because it is not a plain file of arrays ({}): fetch the data set again from where you trust it."


def read_arrays(path: Path) -> dict[str, Any]:
    """A pickled dict of arrays (`StoredTensor`), strings and lists; nothing in the file is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or holds anything else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: put the file there, or fetch the data set again.")
    whole = path.read_bytes()
    try:
        content = read_pickle(
            io.BytesIO(whole), Inert, lambda inner: Inert("a file in it"), Budget(len(whole))
        )
    except Exception as error:  # a damaged pickle raises whatever it likes; none of it is ours
        raise ValueError(REFUSED.format(path, "it is damaged")) from error
    for value in (content, *content.values()) if isinstance(content, dict) else (content,):
        if isinstance(value, Inert):
            raise ValueError(REFUSED.format(path, f"it asks for {value.name}"))
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds no dict: fetch the data set again.")
    return content


def load_cifar(source: Source, root: str | None, download: bool) -> tuple[ImageData, ImageData]:
    """Training and test images (3, 32, 32) of CIFAR-10 or CIFAR-100: from ROOT, or from the source's folder below ROOT,
    `data` unless given.

    Raises:
        FileNotFoundError: no such folder, or a file is missing from it, or it cannot be downloaded.
        ValueError: a file is damaged or refused.
    """
    *_, usual = source.places(root)
    *train_files, test_file, meta_file = source.files
    folder = source.place(root) or usual
    if not folder.is_dir() and download:
        _download(source.name, folder.parent)
    if not folder.is_dir():
        raise source.missing(root)
    label_key, names_key = _KEYS[source.name]
    names = read_arrays(folder / meta_file).get(names_key)
    if not isinstance(names, list) or not all(isinstance(item, str) for item in names):
        raise ValueError(f"{folder / meta_file} has no list {names_key!r}: fetch the data set again.")
    parts = [_read_batch(folder / file, label_key, len(names)) for file in [*train_files, test_file]]
    images, labels = torch.cat([p[0] for p in parts[:-1]]), torch.cat([p[1] for p in parts[:-1]])
    train = ImageData(images, labels, tuple(names), f"{source.name} train")
    return train, ImageData(*parts[-1], tuple(names), f"{source.name} test")


def _read_batch(path: Path, label_key: str, classes: int) -> tuple[Tensor, Tensor]:
    content = read_arrays(path)
    stored, labels = as_tensor(content.get("data")), content.get(label_key)
    data = torch.empty(0) if stored is None else stored.load()
    if data.dtype != torch.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise ValueError(f"{path} has no array 'data' of bytes with 3072 columns: fetch the data set again.")
    if not isinstance(labels, list) or len(labels) != len(data) or not _all_classes(labels, classes):
        raise ValueError(
            f"{path} has no list {label_key!r} with one class per image: fetch the data set again."
        )
    return data.reshape(-1, 3, 32, 32), torch.tensor(labels, dtype=torch.int64)


def _all_classes(labels: list[Any], classes: int) -> bool:
    return all(isinstance(label, int) and 0 <= label < classes for label in labels)


def _download(source: str, base: Path) -> None:
    """Fetch and unpack the archive with torchvision, which compares its MD5 first; nothing is unpickled here."""
    from torchvision.datasets import CIFAR10, CIFAR100
    from torchvision.datasets.utils import download_and_extract_archive

    kind = CIFAR10 if source == "cifar10" else CIFAR100
    try:
        download_and_extract_archive(kind.url, str(base), filename=kind.filename, md5=kind.tgz_md5)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"{source} could not be downloaded ({error}): fetch {kind.url} yourself and unpack it in {base}."
        ) from error
