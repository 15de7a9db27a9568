"""Fashion-MNIST from its IDX files: Debian's package, torchvision's folder, or any folder with the four files.

An IDX file, the format of MNIST and its relatives, is a magic number, sizes (big-endian), then the bytes.
Sources: Xiao, Rasul, Vollgraf (arXiv 1708.07747); the description of the format on the MNIST page
(yann.lecun.com/exdb/mnist).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from dualat.data.images import ImageData
from dualat.data.pictures import MEMORY_LIMIT
from dualat.data.registry import Source

_AT_A_TIME = 2**24
_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def load_fashion_mnist(source: Source, root: str | None, download: bool) -> tuple[ImageData, ImageData]:
    """Training and test images (1, 28, 28) of Fashion-MNIST.

    Looked for in ROOT and ROOT/FashionMNIST/raw; without a root in Debian's folder, then data/FashionMNIST/raw.

    Raises:
        FileNotFoundError: the four files are in none of these, and cannot be downloaded.
        ValueError: a file is damaged.
    """
    if (folder := source.place(root)) is None and download:
        _download(Path(root or "data"))
        folder = source.place(root)
    if folder is None:
        raise source.missing(root)
    paths = [path for name in source.files if (path := source.file(folder, name))]
    return _read("train", *paths[:2]), _read("test", *paths[2:])


def _read(part: str, images_file: Path, labels_file: Path) -> ImageData:
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1).long()
    if len(images) != len(labels) or images.shape[1:] != (28, 28):
        raise ValueError(
            f"{images_file} holds {tuple(images.shape)} and {labels_file} {len(labels)} labels, which do not "
            "make 28x28 images with one label each: fetch the files again."
        )
    return ImageData(images.unsqueeze(1), labels, _CLASSES, f"fashion-mnist {part}")


def _download(base: Path) -> None:
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(str(base), download=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"Fashion-MNIST could not be downloaded ({error}): run `apt-get install "
            "dataset-fashion-mnist` or put its files in a folder named with `--data.root`."
        ) from error


def read_idx(path: Path | str, dimensions: int) -> Tensor:
    """Read an IDX file of unsigned bytes, gzipped if its name ends in .gz: a uint8 tensor with `dimensions` axes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or one that is truncated, damaged or too long.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: put the file there.")
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as handle:
            return _read_bytes(handle, path, dimensions)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): fetch the file again.") from error


def _read_bytes(handle: IO[bytes] | gzip.GzipFile, path: Path, dimensions: int) -> Tensor:
    header = handle.read(4 + 4 * dimensions)
    expected = bytes((0, 0, 0x08, dimensions))  # 0x08: unsigned byte
    if header[:4] != expected:
        raise ValueError(
            f"{path} starts with {header[:4].hex() or 'nothing'}, but an IDX file of bytes with {dimensions} axes "
            f"starts with {expected.hex()}: fetch the file again."
        )
    if len(header) < 4 + 4 * dimensions:
        raise ValueError(f"{path} is truncated within its header: fetch the file again.")
    sizes = struct.unpack(f">{dimensions}I", header[4:])
    total = math.prod(sizes)
    if total > MEMORY_LIMIT:
        raise ValueError(
            f"{path} claims to hold {total} bytes, more than is read into memory: fetch the file again."
        )
    content = bytearray()
    while len(content) <= total and (part := handle.read(min(total + 1 - len(content), _AT_A_TIME))):
        content += part  # a damaged header asks for no more memory than the file has bytes
    if len(content) != total:
        state = "is truncated" if len(content) < total else "is longer than its header says"
        raise ValueError(
            f"{path} {state}: it should hold {total} bytes after its header; fetch the file again."
        )
    return (
        torch.frombuffer(content, dtype=torch.uint8).view(sizes)
        if total
        else torch.empty(sizes, dtype=torch.uint8)
    )
