"""Settings of the data. Does not import PyTorch: the command line reads this file."""

import math
from dataclasses import MISSING, field, fields
from typing import Literal

from dualat.data.registry import SOURCES
from dualat.strict import shown, strict
from dualat.system.plugins import LOAD
from dualat.types import OnBadImage

OWN = "own:"
"""What the source of images that are given in Python begins with; the start of their hash follows."""

_LARGEST_SIDE = 2**14
_MOST_WORKERS = 1024
_OF_FOLDERS = (
    "image_size",
    "channels",
    "test_resize",
    "test_interpolation",
    "val_as",
    "exclude",
    "test_list",
    "on_bad_image",
    "memory_gib",
    "workers",
)


@strict
class DataSettings:
    source: str = "digits"
    """Images to learn from: a named source (docs/data.md lists them; `digits`, 8x8, comes with scikit-learn), the path of a
    folder with one subfolder per class (or with train/, and perhaps val/ and test/, that hold those), or webdataset
    shards: a folder of .tar files, or a pattern such as 'shards/*.tar' (docs/data.md)."""
    root: str | None = None
    """Folder in which the files of a named source lie; none: the usual places (Debian's, then `data`)."""
    download: bool = False
    """Download a named source into `root` (default `data`) if its files are missing."""
    image_size: int | None = None
    """Folders and shards only, and required there: shorter side is resized to this many pixels, then the centre is cut
    out."""
    channels: int | None = None
    """Folders and shards only: 1 for grey or 3 for colour; none: 3."""
    test_resize: int | None = None
    """Folders and shards only: shorter side in pixels to which validation and test images are resized before the centre
    of image_size is cut out, as 256 for 224; none: image_size."""
    test_interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Folders and shards only: how validation and test images are resized."""
    val_as: Literal["validation", "test"] = "validation"
    """Folders and shards only: what their val/ is. `test` for ImageNet, where papers report on it: validation images are
    then held out of train/, and a test/ is left alone."""
    exclude: tuple[str, ...] = ()
    """Folders and shards only: text files with names of images to leave out, one per line."""
    test_list: str | None = None
    """Folders and shards only: text file with the names of the images that the test split is cut down to; none: all."""
    validation_fraction: float = 0.1
    """Share of the training images (what is left after the test split) held out for validation, in (0, 1)."""
    test_fraction: float = 0.2
    """Share of all images held out for testing, in (0, 1); digits, and folders without test/ only."""
    split_seed: int = 0
    """Seed of the splits and of `limit`."""
    on_bad_image: OnBadImage = "refuse"
    """Folders and shards only: what to do with an image that cannot be read: skip it with a warning (images in memory
    alone), or stop."""
    memory_gib: float = 8.0
    """Folders and shards only: images are held in memory where all of them take no more than this many GiB, else they
    are decoded each time they are needed."""
    workers: int | None = None
    """Folders and shards only: threads that decode images that are not in memory, ahead of the training loop; 0: the
    loop does it itself; none: one per core, 16 at most. Images do not depend on it."""
    limit: int | None = None
    """Use only this many training images, drawn with `split_seed`; none: all."""

    @property
    def is_folder(self) -> bool:
        """Whether the source is a folder or shards, and no named one."""
        return self.source not in SOURCES and not self.is_own

    @property
    def is_own(self) -> bool:
        """Whether the images are given in Python: no file holds them."""
        return self.source.startswith(OWN)

    def require_source(self) -> None:
        """ValueError where the images are given in Python, and are wanted from their source."""
        if self.is_own:
            raise ValueError(
                f"the images {self.source} were given in Python, and only there: pass them, as in dualat.train(recipe, "
                "data=my_data) or dualat.evaluate(model, my_data)."
            )

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError(f"source is empty: give one of {', '.join(SOURCES)}, a folder, or shards.")
        for name in ("validation_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but must lie between 0 and 1, both excluded."
                )
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}, but must be at least 1 (None, in YAML null: all).")
        if self.is_folder:
            self._check_folder()
        else:
            self._check_named()

    def _check_folder(self) -> None:
        if self.image_size is None:
            raise ValueError(
                f"image_size is missing: the source {self.source!r} is a folder or shards, so give the side to resize "
                f"to, or name one of {', '.join(SOURCES)}; {LOAD}."
            )
        if self.image_size < 1:
            raise ValueError(f"image_size is {self.image_size}, but must be at least 1 pixel.")
        if max(self.image_size, self.test_resize or 0) > _LARGEST_SIDE:
            raise ValueError(
                f"image_size and test_resize must be {_LARGEST_SIDE} pixels at most, not {self.image_size} and "
                f"{self.test_resize}."
            )
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels is {self.channels}, but must be 1 (grey) or 3 (colour).")
        if self.test_resize is not None and self.test_resize < self.image_size:
            raise ValueError(
                f"test_resize is {self.test_resize}, but must be at least image_size, {self.image_size}."
            )
        if not 0 <= self.memory_gib < math.inf:
            raise ValueError(f"memory_gib is {self.memory_gib}, but must be 0 (none in memory) or more.")
        if self.workers is not None and not 0 <= self.workers <= _MOST_WORKERS:
            raise ValueError(
                f"workers is {self.workers}, but must be 0 (no threads) to {_MOST_WORKERS} (None, in YAML null: by the "
                "machine)."
            )
        if self.root is not None or self.download:
            raise ValueError(
                "root and download are for named sources: leave them out where source is a folder."
            )

    def _check_named(self) -> None:
        for entry in fields(self):
            if entry.name in _OF_FOLDERS and getattr(self, entry.name) != entry.default:
                raise ValueError(
                    f"{entry.name} is for folders and shards: leave it out for source {self.source!r}."
                )
        row = SOURCES.get(self.source)
        if row is not None and not row.files and (self.root is not None or self.download):
            raise ValueError(f"root and download do nothing for {self.source}: {row.get}; leave them out.")
        if row is not None and row.has_test and self.test_fraction != 0.2:
            raise ValueError(
                f"test_fraction does nothing for {self.source}, which has its own test split: leave it."
            )


@strict
class AugmentSettings:
    kind: Literal["none", "basic", "strong", "imagenet"] = "basic"
    """none; basic: pad, crop and flip; strong: those, then AutoAugment (colour images) and cutout; imagenet: random
    resized crop and flip."""
    pad: int = 4
    """Pixels added on each side before a random crop."""
    padding: Literal["zeros", "reflect"] = "zeros"
    """What they are: black, or the image mirrored at its border, as JEM and JEM++ have it: black borders would become a part
    of p(x)."""
    flip: bool = True
    """Mirror left and right with probability one half."""
    cutout: int = 16
    """strong: side of the square set to zero, in pixels; 0: none."""
    scale: float = 0.08
    """imagenet: least area of the crop, as a share of the image's, in (0, 1]."""

    def __post_init__(self) -> None:
        for name in ("pad", "cutout"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but must be 0 (none) or a positive number of pixels."
                )
        if not 0 < self.scale <= 1:
            raise ValueError(f"scale is {self.scale}, but must be above 0, and 1 at most.")
        unused = {
            "none": ("pad", "padding", "flip", "cutout", "scale"),
            "basic": ("cutout", "scale"),
            "strong": ("scale",),
            "imagenet": ("pad", "padding", "cutout"),
        }[self.kind]
        for entry in fields(self):
            if entry.name in unused and getattr(self, entry.name) != entry.default:
                raise ValueError(f"{entry.name} does nothing for augmentation {self.kind!r}: leave it out.")


InitialKind = Literal["gaussian", "class-gaussian", "uniform", "normal", "smooth-noise", "images", "mixture"]
_INITIAL_READS: dict[str, set[str]] = {
    "gaussian": {"rank"},
    "class-gaussian": {"rank"},
    "normal": {"mean", "std"},
    "smooth-noise": {"blur"},
    "images": {"source", "root", "include", "exclude", "augment"},
}
"""Which settings a kind of initial distribution reads."""


@strict
class InitialSettings:
    kind: InitialKind = "gaussian"
    """What contrastive samples start from: a Gaussian fitted to the training images, one Gaussian per class, uniform
    noise, normal noise, smoothed noise, images of another source, or a mixture of these."""
    parts: dict[InitialKind, float] = field(default_factory=dict)
    """mixture: share of each kind, as in {class-gaussian: 0.5, uniform: 0.25, smooth-noise: 0.25}; shares are taken
    relative to their sum. The kinds read the settings below."""
    rank: int = 32
    """gaussian and class-gaussian: number of principal components, cut to what the images allow."""
    mean: float = 0.5
    """normal: mean of a pixel, in units of the pixel range [0, 1]."""
    std: float = 0.25
    """normal: standard deviation of a pixel, in units of the pixel range [0, 1]."""
    blur: float = 2.0
    """smooth-noise: standard deviation of the Gaussian filter, in pixels; 0: none."""
    source: str | None = None
    """images: a named data source, a folder of images (subfolders are searched too), webdataset shards, an .npy or .npz
    file of 8-bit images, or the .bin file of 80 Million Tiny Images (docs/data.md)."""
    root: str | None = None
    """images: folder in which the files of a named source lie; none: the usual places."""
    include: tuple[str, ...] = ()
    """images, of a folder or shards: text files with the names of the images to use, one per line; none: all."""
    exclude: tuple[str, ...] = ()
    """images: text files with what to leave out, one per line: names of a folder's or shards' images, or positions in a
    .bin, .npy or .npz file, which `dualat data prepare exclusions` writes. A list that does not say itself whether it
    counts from 0 or 1 is given as zero-based:FILE or one-based:FILE."""
    augment: AugmentSettings = field(default_factory=lambda: AugmentSettings(kind="none"))
    """images: how each image is changed whenever it is drawn."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}, but must be at least 1.")
        if not 0 < self.std < math.inf or not math.isfinite(self.mean):
            raise ValueError(f"mean and std must be finite, and std above 0, not {self.mean} and {self.std}.")
        if not 0 <= self.blur <= 1000:
            raise ValueError(f"blur is {self.blur}, but must be 0 (none) to 1000 pixels.")
        kinds = (self.kind,)
        if self.kind == "mixture":
            self._check_parts()
            kinds = tuple(self.parts)
        if "images" in kinds and not self.source:
            raise ValueError(
                "initial distribution 'images' needs source: name a data source, or a folder or file of images."
            )
        used = set().union(*(_INITIAL_READS.get(kind, set()) for kind in kinds), {"kind"})
        used |= {"parts"} if self.kind == "mixture" else set()
        for entry in fields(self):
            factory = entry.default_factory
            default = entry.default if factory is MISSING else factory()
            if entry.name not in used and getattr(self, entry.name) != default:
                raise ValueError(
                    f"{entry.name} does nothing for initial distribution {self.kind!r}: leave it out."
                )

    def _check_parts(self) -> None:
        if len(self.parts) < 2 or "mixture" in self.parts:
            raise ValueError(
                f"parts is {shown(dict(self.parts))}, but a mixture has at least two kinds, none of them a mixture, as in "
                "{class-gaussian: 0.5, uniform: 0.5}."
            )
        if not all(0 < share < math.inf for share in self.parts.values()):
            raise ValueError(f"parts is {shown(dict(self.parts))}, but shares must be above 0, and finite.")

    def part(self, kind: str) -> "InitialSettings":
        """The settings of one kind of a mixture alone."""
        if kind not in self.parts:
            raise ValueError(
                f"the initial distribution has no part {kind!r}: give {' or '.join(self.parts) or self.kind}."
            )
        own = {name: getattr(self, name) for name in _INITIAL_READS.get(kind, ())}
        return InitialSettings(kind=kind, **own)  # type: ignore[arg-type]
