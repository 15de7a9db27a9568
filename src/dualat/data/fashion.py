"""Fashion-MNIST from its IDX files: Debian's package, torchvision's folder, or any folder with the four files.

Source: Xiao, Rasul, Vollgraf (arXiv 1708.07747).
"""

from pathlib import Path

from dualat.data.idx import read_idx
from dualat.data.images import ImageData

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
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
_FILES = {
    part: (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    for part, prefix in (("train", "train"), ("test", "t10k"))
}


def load_fashion_mnist(root: str | None, download: bool) -> tuple[ImageData, ImageData]:
    """Training and test images (1, 28, 28) of Fashion-MNIST.

    Looked for in ROOT and ROOT/FashionMNIST/raw; without a root in Debian's folder, then data/FashionMNIST/raw.

    Raises:
        FileNotFoundError: the four files are in none of these, and cannot be downloaded.
        ValueError: a file is damaged.
    """
    base = Path(root or "data")
    places = ([base] if root else [DEBIAN]) + [base / "FashionMNIST" / "raw"]
    folder = _find(places)
    if folder is None and download:
        _download(base)
        folder = _find(places)
    if folder is None:
        raise FileNotFoundError(
            f"Fashion-MNIST's four IDX files are not in {' or '.join(map(str, places))}: run `apt-get install "
            "dataset-fashion-mnist`, put them in a folder named with `--data.root`, or give `--data.download`."
        )
    return _read(folder, "train"), _read(folder, "test")


def _existing(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _find(places: list[Path]) -> Path | None:
    """The first folder that has all four files."""
    names = [name for pair in _FILES.values() for name in pair]
    return next((place for place in places if all(_existing(place, name) for name in names)), None)


def _read(folder: Path, part: str) -> ImageData:
    paths = [_existing(folder, name) for name in _FILES[part]]
    assert paths[0] and paths[1]
    images, labels = read_idx(paths[0], 3), read_idx(paths[1], 1).long()
    if len(images) != len(labels) or images.shape[1:] != (28, 28):
        raise ValueError(
            f"{paths[0]} holds {tuple(images.shape)} and {paths[1]} {len(labels)} labels, which do not "
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
