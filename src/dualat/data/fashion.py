"""Fashion-MNIST from its IDX files: Debian's package, torchvision's folder, or any folder with the four files.

Source: Xiao, Rasul, Vollgraf (arXiv 1708.07747).
"""

from pathlib import Path

from dualat.data.idx import read_idx
from dualat.data.images import ImageData
from dualat.data.registry import Source

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
