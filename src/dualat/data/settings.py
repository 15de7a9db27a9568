"""Settings of the data. Imports nothing heavy: the command line reads this file."""

from dataclasses import fields
from typing import Literal

from pydantic.dataclasses import dataclass

from dualat.settings import STRICT

NAMED_SOURCES = ("digits", "fashion-mnist", "cifar10", "cifar100")
"""Sources that need no folder of images."""


@dataclass(config=STRICT)
class DataSettings:
    source: str = "digits"
    """Images to learn from: `digits` (8x8, comes with scikit-learn), `fashion-mnist`, `cifar10`, `cifar100`, or the
    path of a folder with one subfolder per class (or with train/, and perhaps val/ and test/, that hold those)."""
    root: str | None = None
    """Folder in which the files of a named source lie; none: the usual places (Debian's, then `data`)."""
    download: bool = False
    """Download a named source into `root` (default `data`) if its files are missing."""
    image_size: int | None = None
    """Folders only, and required there: shorter side is resized to this many pixels, then the centre is cut out."""
    channels: int | None = None
    """Folders only: 1 for grey or 3 for colour; none: 3."""
    validation_fraction: float = 0.1
    """Share of the training images (what is left after the test split) held out for validation, in (0, 1)."""
    test_fraction: float = 0.2
    """Share of all images held out for testing, in (0, 1); digits, and folders without test/ only."""
    split_seed: int = 0
    """Seed of the splits and of `limit`."""
    on_bad_image: Literal["skip", "refuse"] = "refuse"
    """Folders only: what to do with an image that cannot be read: skip it with a warning, or stop."""
    limit: int | None = None
    """Use only this many training images, drawn with `split_seed`; none: all."""

    @property
    def is_folder(self) -> bool:
        return self.source not in NAMED_SOURCES

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError(f"source is empty: give one of {', '.join(NAMED_SOURCES)}, or a folder.")
        for name in ("validation_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but must lie between 0 and 1, both excluded."
                )
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}, but must be at least 1, or none for all images.")
        if self.is_folder:
            self._check_folder()
        else:
            self._check_named()

    def _check_folder(self) -> None:
        if self.image_size is None:
            raise ValueError(
                f"image_size is missing: the source {self.source!r} is a folder, so give the side to resize to "
                f"(or name one of {', '.join(NAMED_SOURCES)})."
            )
        if self.image_size < 1:
            raise ValueError(f"image_size is {self.image_size}, but must be at least 1 pixel.")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels is {self.channels}, but must be 1 (grey) or 3 (colour).")
        if self.root is not None or self.download:
            raise ValueError(
                "root and download are for named sources: leave them out where source is a folder."
            )

    def _check_named(self) -> None:
        if self.image_size is not None or self.channels is not None or self.on_bad_image != "refuse":
            raise ValueError(
                f"image_size, channels and on_bad_image are for folders: leave them out for source {self.source!r}."
            )
        if self.source == "digits" and (self.root is not None or self.download):
            raise ValueError(
                "root and download do nothing for digits, which come with scikit-learn: leave them out."
            )
        if self.source != "digits" and self.test_fraction != 0.2:
            raise ValueError(
                f"test_fraction does nothing for {self.source}, which has its own test split: leave it."
            )


@dataclass(config=STRICT)
class InitialSettings:
    kind: Literal["gaussian", "class-gaussian", "uniform", "normal", "smooth-noise", "images"] = "gaussian"
    """What contrastive samples start from: a Gaussian fitted to the training images, one Gaussian per class, uniform
    noise, normal noise, smoothed noise, or images of another source."""
    rank: int = 32
    """gaussian and class-gaussian: number of principal components, cut to what the images allow."""
    mean: float = 0.5
    """normal: mean of a pixel, in units of the pixel range [0, 1]."""
    std: float = 0.25
    """normal: standard deviation of a pixel, in units of the pixel range [0, 1]."""
    blur: float = 2.0
    """smooth-noise: standard deviation of the Gaussian filter, in pixels; 0: none."""
    source: str | None = None
    """images: a named data source or the path of a folder of images (subfolders are searched too)."""
    root: str | None = None
    """images: folder in which the files of a named source lie; none: the usual places."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}, but must be at least 1.")
        if self.std <= 0:
            raise ValueError(f"std is {self.std}, but must be positive.")
        if self.blur < 0:
            raise ValueError(f"blur is {self.blur}, but must be 0 (none) or a positive number of pixels.")
        if self.kind == "images" and not self.source:
            raise ValueError(
                "initial distribution 'images' needs source: name a data source or a folder of images."
            )
        used = {
            "gaussian": {"rank"},
            "class-gaussian": {"rank"},
            "normal": {"mean", "std"},
            "smooth-noise": {"blur"},
            "images": {"source", "root"},
        }.get(self.kind, set())
        for field in fields(self):
            if field.name not in used | {"kind"} and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"{field.name} does nothing for initial distribution {self.kind!r}: leave it out."
                )


@dataclass(config=STRICT)
class AugmentSettings:
    kind: Literal["none", "basic", "strong"] = "basic"
    """none; basic: pad, crop and flip; strong: those, then AutoAugment (colour images) and cutout."""
    pad: int = 4
    """Zeros added on each side before a random crop, in pixels."""
    flip: bool = True
    """Mirror left and right with probability one half."""
    cutout: int = 16
    """strong: side of the square set to zero, in pixels; 0: none."""

    def __post_init__(self) -> None:
        for name in ("pad", "cutout"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but must be 0 (none) or a positive number of pixels."
                )
        unused = {"none": ("pad", "flip", "cutout"), "basic": ("cutout",), "strong": ()}[self.kind]
        for field in fields(self):
            if field.name in unused and getattr(self, field.name) != field.default:
                raise ValueError(f"{field.name} does nothing for augmentation {self.kind!r}: leave it out.")
