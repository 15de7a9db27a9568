"""Every named source of images: its reader, its files and how to get them, and what is known before it is read. No PyTorch.

To add one: a reader in a file of its own, and its row here. From a file outside the package, `register_source`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

Reader = TypeVar("Reader", bound=Callable[[], Any])


@dataclass(frozen=True)
class Source:
    """One row."""

    name: str
    reader: str | Callable[[], Any]
    """module:function, imported on first use: (row, root, download) -> training images, and those of the source's own test
    split or None. Of somebody's own source the function itself: () -> what `dualat.train(data=...)` takes."""
    get: str
    """How to get the files, or, where there are none, where the images come from; for people."""
    shape: tuple[int, int, int] = (0, 0, 0)
    """(C, H, W); like the numbers below not known of somebody's own source."""
    classes: int = 0
    train: int = 0
    """Images that are not of the source's own test split."""
    has_test: bool = False
    """Whether it has a test split of its own."""
    files: tuple[str, ...] = ()
    """All that must be in one folder."""
    endings: tuple[str, ...] = ("",)
    """What each file's name may end in, the first choice first."""
    folder: str = ""
    """That folder, below the root, as torchvision names it."""
    elsewhere: str = ""
    """Another folder that may have them, where no root is given: of a package of the system."""
    download: float = 0.0
    """Bytes on disk once fetched: archive and unpacked files."""

    @property
    def is_own(self) -> bool:
        """Whether somebody else has registered it."""
        return not isinstance(self.reader, str)

    def read(self, root: str | None, download: bool) -> Any:
        """What the reader gives."""
        if not isinstance(self.reader, str):
            return self.reader()
        module, _, function = self.reader.partition(":")
        return getattr(import_module(f"dualat.data.{module}"), function)(self, root, download)

    def places(self, root: str | None) -> Iterator[Path]:
        """Folders that may have the files, in the order in which they are looked into."""
        if root or self.elsewhere:
            yield Path(root or self.elsewhere)
        yield Path(root or "data") / self.folder

    def place(self, root: str | None) -> Path | None:
        """The first of them that has all files."""
        return next((p for p in self.places(root) if all(self.file(p, name) for name in self.files)), None)

    def file(self, place: Path, name: str) -> Path | None:
        """A file of this folder, under the name that it has there."""
        return next((p for end in self.endings if (p := place / f"{name}{end}").is_file()), None)

    def missing(self, root: str | None) -> FileNotFoundError:
        """What to raise where they are nowhere."""
        places = " or ".join(map(str, self.places(root)))
        return FileNotFoundError(f"{self.name} is not in {places}: {self.get}.")


_CIFAR: dict[str, Any] = {
    "reader": "cifar:load_cifar",
    "get": "unpack its Python version there, name another folder with `--data.root`, or give `--data.download`",
    "shape": (3, 32, 32),
    "train": 50_000,
    "has_test": True,
}
SOURCES: dict[str, Source] = {
    row.name: row
    for row in (
        Source("digits", "digits:load_digits", "its images come with scikit-learn", (1, 8, 8), 10, 1797),
        Source(
            "fashion-mnist",
            "fashion:load_fashion_mnist",
            "run `apt-get install dataset-fashion-mnist`, put its four IDX files in a folder named with `--data.root`, or give "
            "`--data.download`",
            (1, 28, 28),
            10,
            60_000,
            has_test=True,
            files=tuple(
                f"{part}-{kind}-ubyte"
                for part in ("train", "t10k")
                for kind in ("images-idx3", "labels-idx1")
            ),
            endings=(".gz", ""),
            folder="FashionMNIST/raw",
            elsewhere="/usr/share/datasets/fashion-mnist",
            download=86e6,
        ),
        Source(
            "cifar10",
            classes=10,
            files=(*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
            folder="cifar-10-batches-py",
            download=357e6,
            **_CIFAR,
        ),
        Source(
            "cifar100",
            classes=100,
            files=("train", "test", "meta"),
            folder="cifar-100-python",
            download=355e6,
            **_CIFAR,
        ),
    )
}
"""By name. `register_source` adds to it."""


def register_source(name: str) -> Callable[[Reader], Reader]:
    """A decorator that makes a function a source of images, known by its name as `data.source`, in Python and in recipes.

        @dualat.register_source("mine")
        def mine():
            return images, labels

    The function gives what `dualat.train(data=...)` takes: a Dataset of (image, label), a pair (images, labels), a mapping of
    these with the keys train, validation and test, or our splits; the same images in the same order at each call. What is
    not given is split off by the settings of the data. A name that was registered before gets the new function.

    Raises:
        ValueError: a name of dualat's, or with characters other than letters, digits, - and _.
    """
    if name in SOURCES and not SOURCES[name].is_own:
        raise ValueError(f"source {name!r} is one of dualat's: give yours another name.")
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"a source cannot be named {name!r}: take letters, digits, - and _ alone.")

    def register(reader: Reader) -> Reader:
        SOURCES[name] = Source(name, reader, "its images come from code of your own")
        return reader

    return register
