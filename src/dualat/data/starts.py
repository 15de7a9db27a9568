"""What samples of a model are to start from, however somebody names it: a kind, settings, a distribution, or images."""

from typing import get_args, get_type_hints

from torch import Tensor

from dualat.core.classifier import check_images
from dualat.data.distributions import (
    Gaussian,
    Images,
    InitialDistribution,
    Normal,
    SmoothNoise,
    Source,
    Uniform,
)
from dualat.data.images import ImageData
from dualat.data.initial import build_initial
from dualat.data.pictures import Shape
from dualat.data.settings import InitialSettings

Start = str | InitialSettings | InitialDistribution | Tensor
"""A kind of initial distribution ("uniform"; "noise" means the same), its settings, a distribution, or images (N, C, H, W)
in [0, 1] that N samples start from, in that order."""
KINDS = get_args(get_type_hints(InitialSettings)["kind"])
FITTED = ("gaussian", "class-gaussian")


class Starts(InitialDistribution):
    """Images (N, C, H, W) in [0, 1] that N samples start from, in that order."""

    def __init__(self, images: Tensor):
        channels, height, width = check_images(images, "initial").shape[1:]
        super().__init__((channels, height, width))
        self.images = images.detach()

    def sample(self, n: int, labels: Tensor | None = None, generator: Source = None) -> Tensor:
        if n != len(self.images):
            raise ValueError(
                f"initial holds {len(self.images)} images to start from, but {n} samples are wanted."
            )
        return self.images


def start_from(
    start: Start, shape: Shape | None, train: ImageData | None = None
) -> tuple[InitialDistribution, InitialSettings | None]:
    """The distribution that is meant, and the settings that would build it again; None where no settings do.

    Args:
        shape: (C, H, W) of the images; None: not known.
        train: training images, that "gaussian" and "class-gaussian" are fitted to.

    Raises:
        ValueError: an unknown kind, a shape that is missing or another, or training images that are missing.
    """
    found = Starts(start) if isinstance(start, Tensor) else start
    if isinstance(found, InitialDistribution):
        if shape is not None and found.shape != tuple(shape):
            raise ValueError(
                f"initial has images of shape {found.shape}, but the model takes {tuple(shape)}: pass starts of that shape."
            )
        return found, settings_of(found)
    settings = settings_named(found) if isinstance(found, str) else found
    if not {settings.kind, *settings.parts}.isdisjoint(FITTED) and train is None:
        raise ValueError(
            f"initial distribution {settings.kind!r} is fitted to training images, which this model "
            "does not carry: build it with dualat.data.initial.build_initial and pass that."
        )
    if shape is None:
        raise ValueError("a bare module does not tell the shape of its images: pass shape=(C, H, W).")
    return build_initial(settings, shape, train), settings


def plain_kind(kind: str) -> str:
    """The kind as settings name it."""
    return "uniform" if kind == "noise" else kind


def settings_named(kind: str) -> InitialSettings:
    """The settings of a kind of initial distribution."""
    kind = plain_kind(kind)
    if kind == "images":
        raise ValueError(
            "initial distribution 'images' needs a source: pass InitialSettings(kind='images', "
            "source=FOLDER) (on the command line: --initial-images FOLDER)."
        )
    if kind == "mixture":
        raise ValueError(
            "initial distribution 'mixture' needs parts: pass InitialSettings(kind='mixture', parts={...})."
        )
    if kind not in KINDS:
        raise ValueError(f"initial distribution {kind!r} is unknown: give {', '.join(KINDS)}.")
    return InitialSettings(kind=kind)  # pyright: ignore[reportArgumentType]


def settings_of(initial: InitialDistribution) -> InitialSettings | None:
    """Settings with which `restore_initial` rebuilds a distribution from its state; None for somebody's own class."""
    if type(initial) is Gaussian:
        kind = "class-gaussian" if initial.per_class else "gaussian"
        return InitialSettings(kind=kind, rank=initial.state()["factor"].shape[2])
    if type(initial) is Uniform:
        return InitialSettings(kind="uniform")
    if type(initial) is Normal:
        return InitialSettings(kind="normal", mean=initial.mean, std=initial.std)
    if type(initial) is SmoothNoise:
        return InitialSettings(kind="smooth-noise", blur=initial.blur)
    if type(initial) is Images:
        return InitialSettings(kind="images", source="given in Python", augment=initial.augmentation)
    return None
