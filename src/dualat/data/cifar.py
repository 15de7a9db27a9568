"""CIFAR-10 and CIFAR-100 from the files of their Python version, which are pickles.

A pickle can run code, so only what these files need is let through: arrays, their types, strings, lists, dicts.
Source: the description of the files at cs.toronto.edu/~kriz/cifar.html. Folder names are those of torchvision.
"""

import io
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dualat.data.images import ImageData
from dualat.data.registry import Source

_FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    (
        "numpy",
        "ndarray",
    ): "ndarray",  # named as an argument alone: called, it would ask for any amount of memory
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): lambda kind, shape, code: np.empty(0, np.int8),
    ("numpy._core.multiarray", "_reconstruct"): lambda kind, shape, code: np.empty(0, np.int8),
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("_codecs", "encode"): lambda text, encoding: _encode(text, encoding),
}
_KEYS = {"cifar10": ("labels", "label_names"), "cifar100": ("fine_labels", "fine_label_names")}


def _encode(text: str, encoding: str) -> bytes:
    """What protocol 2 uses to write bytes: nothing but latin-1."""
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"it asks for the encoding {str(encoding)[:20]!a}")
    return text.encode("latin1")


class _Refused(pickle.UnpicklingError):
    """What a file asks for and does not get, for a person."""


_UNPICKLER: Any = vars(pickle)["_Unpickler"]
"""Python's own, and not its copy in C, which makes a memo as long as a damaged file says, of gigabytes."""


class _ArraysOnly(_UNPICKLER):
    def load_bytearray8(self) -> None:
        """Python's asks for as much memory as the file says before it looks whether the bytes are there."""
        size = int.from_bytes(self.read(8), "little")
        content = bytearray(self.read(min(size, sys.maxsize)))
        if len(content) < size:
            raise EOFError
        self.append(content)

    dispatch = {**_UNPICKLER.dispatch, pickle.BYTEARRAY8[0]: load_bytearray8}  # noqa: RUF012

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"it asks for {ascii(f'{module}.{name}'[:100])[1:-1]}")
        return _ALLOWED[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """A pickled dict of arrays, strings and lists; nothing in the file is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or holds anything else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: put the file there, or fetch the data set again.")
    whole = path.read_bytes()
    try:
        content = _ArraysOnly(io.BytesIO(whole), encoding="latin1").load()
    except Exception as error:  # a damaged or hostile pickle raises whatever it likes; none of it is ours
        reason = str(error) if isinstance(error, _Refused) else "it is damaged"
        raise ValueError(
            f"{path} is refused, because it is not a plain file of arrays ({reason}): "
            "fetch the data set again from where you trust it."
        ) from error
    if not isinstance(content, dict):
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
    names = read_pickle(folder / meta_file).get(names_key)
    if not isinstance(names, list) or not all(isinstance(item, str) for item in names):
        raise ValueError(f"{folder / meta_file} has no list {names_key!r}: fetch the data set again.")
    parts = [_read_batch(folder / file, label_key, len(names)) for file in [*train_files, test_file]]
    images, labels = torch.cat([p[0] for p in parts[:-1]]), torch.cat([p[1] for p in parts[:-1]])
    train = ImageData(images, labels, tuple(names), f"{source.name} train")
    return train, ImageData(*parts[-1], tuple(names), f"{source.name} test")


def _read_batch(path: Path, label_key: str, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    content = read_pickle(path)
    data, labels = content.get("data"), content.get(label_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise ValueError(f"{path} has no array 'data' of bytes with 3072 columns: fetch the data set again.")
    if not isinstance(labels, list) or len(labels) != len(data) or not _all_classes(labels, classes):
        raise ValueError(
            f"{path} has no list {label_key!r} with one class per image: fetch the data set again."
        )
    return torch.from_numpy(data.reshape(-1, 3, 32, 32).copy()), torch.tensor(labels, dtype=torch.int64)


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
