"""What contrastive samples start from: Gaussians fitted to the data, noise, or other images.

Default is the Gaussian: near the data, yet off it. Noise is often farther from the data than the sampler can walk
(see `path_warning` in distance.py).
"""

import math
from abc import ABC, abstractmethod
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from dualat.data.augment import augment
from dualat.data.distance import distance_to_data, path_warning
from dualat.data.draws import Draws, draws_for
from dualat.data.images import ImageData
from dualat.data.in_distribution import open_pictures
from dualat.data.principal import fit_gaussian, most_fitted
from dualat.data.settings import AugmentSettings, InitialSettings
from dualat.data.source import MEMORY_LIMIT, Pictures, Shape, evenly

__all__ = ["InitialDistribution", "build_initial", "distance_to_data", "path_warning", "restore_initial"]

Source = torch.Generator | Draws | None
_MOST_STORED = 1_000  # images in a saved model


class InitialDistribution(ABC):
    """A distribution over images of `shape` (C, H, W), drawn one by one from a generator."""

    classes: int | None = None
    """Number of classes, where each has a distribution of its own."""

    def __init__(self, shape: Shape, tensors: dict[str, Tensor] | None = None):
        channels, height, width = shape
        self.shape: Shape = (channels, height, width)
        self.device = torch.device("cpu")
        self._tensors = {name: tensor.contiguous() for name, tensor in (tensors or {}).items()}

    def to(self, device: torch.device | str) -> Self:
        """Move what the distribution holds, and what it samples, to a device; returns itself."""
        self.device = torch.device(device)
        self._tensors = {name: tensor.to(self.device) for name, tensor in self._tensors.items()}
        return self

    def state(self) -> dict[str, Tensor]:
        """What a file must store to rebuild it with `restore_initial`: tensors on the CPU."""
        return {name: tensor.cpu().clone() for name, tensor in self._tensors.items()}

    @abstractmethod
    def sample(self, n: int, labels: Tensor | None = None, generator: Source = None) -> Tensor:
        """Draw n images: float32 (n, C, H, W) in [0, 1] on this distribution's device.

        Args:
            labels: (n,), int64, the class of each image; read by class-gaussian only.
            generator: source of the draws, on any device, or `Draws` where these images are part of a batch; none:
                PyTorch's global one.

        Raises:
            ValueError: class-gaussian without labels, or with labels that it lacks.
        """

    def _normal(self, n: int, size: tuple[int, ...], generator: Source) -> Tensor:
        return draws_for(n, generator, self.device).normal(*size).to(self.device)

    def _uniform(self, n: int, generator: Source) -> Tensor:
        return draws_for(n, generator, self.device).uniform(*self.shape).to(self.device)


class Gaussian(InitialDistribution):
    """clip_[0,1]( mean + factor z ), z ~ N(0, I_r): one Gaussian, or one per class.

    State: mean (1 or K, D) and factor (1 or K, D, r), float32, with D = C H W.
    """

    def __init__(self, shape: Shape, mean: Tensor, factor: Tensor, per_class: bool):
        super().__init__(shape, {"mean": mean, "factor": factor})
        self.per_class = per_class
        self.classes = len(mean) if per_class else None

    def sample(self, n: int, labels: Tensor | None = None, generator: Source = None) -> Tensor:
        mean, factor = self._tensors["mean"], self._tensors["factor"]
        z = self._normal(n, (factor.shape[2],), generator)
        if not self.per_class:
            flat = mean[0] + z @ factor[0].T
        else:
            labels = self._check_labels(n, labels)
            flat = torch.empty(n, mean.shape[1], device=self.device)
            for label in labels.unique().tolist():
                rows = (labels == label).nonzero().flatten()
                flat[rows] = mean[label] + z[rows] @ factor[label].T
        return flat.clamp(0, 1).view(n, *self.shape)

    def _check_labels(self, n: int, labels: Tensor | None) -> Tensor:
        classes = len(self._tensors["mean"])
        if labels is None:
            raise ValueError(
                "class-gaussian needs a label for each sample: pass labels, or use kind 'gaussian'."
            )
        if labels.shape != (n,):
            raise ValueError(f"labels have shape {tuple(labels.shape)}, but {n} samples need shape ({n},).")
        if n and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(
                f"labels must lie in 0 to {classes - 1}, the classes that the Gaussians were fitted to."
            )
        return labels.to(self.device)


class Uniform(InitialDistribution):
    """Every pixel uniform in [0, 1]."""

    def sample(self, n: int, labels: Tensor | None = None, generator: Source = None) -> Tensor:
        return self._uniform(n, generator)


class Normal(InitialDistribution):
    """Every pixel clip_[0,1]( mean + std z ), z ~ N(0, 1)."""

    def __init__(self, shape: Shape, mean: float, std: float):
        super().__init__(shape)
        self.mean, self.std = mean, std

    def sample(self, n: int, labels: Tensor | None = None, generator: Source = None) -> Tensor:
        return (self.mean + self.std * self._normal(n, self.shape, generator)).clamp(0, 1)


class SmoothNoise(InitialDistribution):
    """Uniform noise under a Gaussian filter, then stretched so that each image spans [0, 1].

    Source: low-frequency noise as out-distribution, Hein, Andriushchenko, Bitterwolf (arXiv 1812.05720).
    """

    def __init__(self, shape: Shape, blur: float):
        super().__init__(shape)
        self.blur = blur

    def sample(self, n: int, labels: Tensor | None = None, generator: Source = None) -> Tensor:
        x = self._uniform(n, generator)
        if self.blur > 0:
            x = _gaussian_filter(x, self.blur)
        flat = x.flatten(1)
        low, high = flat.amin(1).view(n, 1, 1, 1), flat.amax(1).view(n, 1, 1, 1)
        return ((x - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)


class Images(InitialDistribution):
    """Images drawn with replacement from a set, and augmented at each draw: auxiliary data, as in the paper.

    State: images, uint8 (at most 1,000, C, H, W), evenly picked, not augmented.

    Args:
        images: uint8 (N, C, H, W), or pictures that stay on disk.
        augmentation: how each is changed when it is drawn.
    """

    def __init__(self, shape: Shape, images: Tensor | Pictures, augmentation: AugmentSettings):
        super().__init__(shape, {"images": images} if isinstance(images, Tensor) else None)
        self.pictures = None if isinstance(images, Tensor) else images
        self.augmentation = augmentation
        self.count = len(images)
        self._stored: Tensor | None = None

    def sample(self, n: int, labels: Tensor | None = None, generator: Source = None) -> Tensor:
        draws = draws_for(n, generator, self.device)
        index = draws.integers(self.count)
        if self.pictures is None:
            images = self._tensors["images"][index.to(self.device)]
        else:
            images = self.pictures.gather(index.cpu()).to(self.device)
        return augment(images.to(torch.float32) / 255, self.augmentation, draws)

    def state(self) -> dict[str, Tensor]:
        if self._stored is None:  # reading from disk takes a while, and a model is saved often
            picked = evenly(self.count, _MOST_STORED)
            if self.pictures is None:
                self._stored = self._tensors["images"][picked.to(self.device)].cpu()
            else:
                self._stored = self.pictures.gather(picked)
        return {"images": self._stored.clone()}


class Mixture(InitialDistribution):
    """Each image from one of several distributions, chosen at random by their shares.

    State: that of each part, its names behind the part's, as in class-gaussian.mean.
    """

    def __init__(self, shape: Shape, parts: dict[str, tuple[float, InitialDistribution]]):
        super().__init__(shape)
        self.parts = {kind: part for kind, (_, part) in parts.items()}
        shares = torch.tensor([share for share, _ in parts.values()], dtype=torch.float64)
        self.limits = (shares.cumsum(0) / shares.sum())[:-1].float()
        self.classes = next((part.classes for part in self.parts.values() if part.classes), None)

    def part(self, kind: str) -> InitialDistribution:
        """One of the distributions. ValueError where there is none of this kind."""
        if kind not in self.parts:
            raise ValueError(
                f"the initial distribution has no part {kind!r}: give {' or '.join(self.parts)}."
            )
        return self.parts[kind]

    def to(self, device: torch.device | str) -> Self:
        for part in self.parts.values():
            part.to(device)
        return super().to(device)

    def state(self) -> dict[str, Tensor]:
        return {f"{kind}.{k}": v for kind, part in self.parts.items() for k, v in part.state().items()}

    def sample(self, n: int, labels: Tensor | None = None, generator: Source = None) -> Tensor:
        draws = draws_for(n, generator, self.device)
        chosen = torch.bucketize(draws.uniform().cpu(), self.limits, right=True).to(self.device)
        images = torch.empty(n, *self.shape, device=self.device)
        for number, part in enumerate(self.parts.values()):
            # every part draws for all images, so that none depends on how the batch is divided
            rows = chosen == number
            images[rows] = part.sample(n, labels, draws)[rows]
        return images


def _gaussian_filter(x: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian filter of standard deviation sigma, edges continued; x: (n, C, H, W)."""
    radius = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=x.device) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = x.shape[1]
    x = F.pad(x, (radius, radius, radius, radius), mode="replicate")
    x = F.conv2d(x, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(x, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def _fit(settings: InitialSettings, shape: Shape, train: ImageData) -> Gaussian:
    per_class = settings.kind == "class-gaussian"
    if train.shape != tuple(shape):
        raise ValueError(
            f"training images have shape {train.shape}, but starts of shape {tuple(shape)} are wanted."
        )
    if not len(train):
        raise ValueError(f"{train.name} has no images to fit a Gaussian to: give data with at least one.")
    groups = [torch.arange(len(train))]
    if per_class:
        groups = [(train.labels == label).nonzero().flatten() for label in range(len(train.class_names))]
    if empty := [train.class_names[i] for i, group in enumerate(groups) if not len(group)]:
        raise ValueError(
            f"class {empty[0]!r} has no training images to fit a Gaussian to: use kind 'gaussian'."
        )
    rank = max(1, min(settings.rank, max(map(len, groups)) - 1, math.prod(shape)))
    if len(groups) * math.prod(shape) * rank * 4 > MEMORY_LIMIT:
        raise ValueError(
            f"{len(groups)} Gaussians of rank {rank} for images of shape {tuple(shape)} take more than "
            f"{MEMORY_LIMIT / 2**30:.0f} GiB: lower rank, or use kind 'gaussian'."
        )
    most = most_fitted(math.prod(shape), rank)
    fitted = [fit_gaussian(train.pixels(group[evenly(len(group), most)]), rank) for group in groups]
    return Gaussian(
        shape, torch.stack([m for m, _ in fitted]), torch.stack([f for _, f in fitted]), per_class
    )


def _without_data(settings: InitialSettings, shape: Shape) -> InitialDistribution:
    if settings.kind == "uniform":
        return Uniform(shape)
    if settings.kind == "normal":
        return Normal(shape, settings.mean, settings.std)
    assert settings.kind == "smooth-noise"
    return SmoothNoise(shape, settings.blur)


def build_initial(settings: InitialSettings, shape: Shape, train: ImageData | None) -> InitialDistribution:
    """The initial distribution that the settings describe, for images of `shape` (C, H, W), on the CPU.

    Args:
        train: training images, needed by gaussian and class-gaussian.

    Raises:
        ValueError: training images are needed and missing, of another shape, or lack a class; too much memory.
        FileNotFoundError: the files of kind images are not there.
    """
    if settings.kind == "mixture":
        return Mixture(
            shape,
            {
                k: (share, build_initial(settings.part(k), shape, train))
                for k, share in settings.parts.items()
            },
        )
    if settings.kind in ("gaussian", "class-gaussian"):
        if train is None:
            raise ValueError(
                f"initial distribution {settings.kind!r} is fitted to training images: pass them."
            )
        return _fit(settings, shape, train)
    if settings.kind == "images":
        assert settings.source is not None
        lists = settings.include, settings.exclude
        return Images(shape, open_pictures(settings.source, settings.root, shape, *lists), settings.augment)
    return _without_data(settings, shape)


def part_of(initial: InitialDistribution, kind: str) -> InitialDistribution:
    """The part of this kind of a mixture. ValueError where there is none."""
    if not isinstance(initial, Mixture):
        raise ValueError(
            f"sampling.start is {kind!r}, but the initial distribution is no mixture of which that is a part: leave it out."
        )
    return initial.part(kind)


def restore_initial(settings: InitialSettings, shape: Shape, state: dict[str, Tensor]) -> InitialDistribution:
    """The initial distribution that `state()` was taken from; of kind images, with the images that it kept.

    Raises:
        ValueError: tensors are missing, left over, or of another shape or type.
    """
    if settings.kind == "mixture":
        return _restore_mixture(settings, shape, state)
    names = {"gaussian": {"mean", "factor"}, "class-gaussian": {"mean", "factor"}, "images": {"images"}}
    expected = names.get(settings.kind, set())
    if set(state) != expected:
        raise ValueError(
            f"a stored initial distribution {settings.kind!r} has the tensors {sorted(expected)}, but "
            f"these are given: {sorted(state)}; save the model again."
        )
    if settings.kind == "images":
        images = state["images"]
        if images.dtype != torch.uint8 or images.shape[1:] != tuple(shape) or not len(images):
            raise ValueError(
                f"the stored starting images must be uint8 of shape (n, {', '.join(map(str, shape))}), "
                f"not {images.dtype} of shape {tuple(images.shape)}: save the model again."
            )
        return Images(shape, images, settings.augment)
    if expected:
        mean, factor = state["mean"].float(), state["factor"].float()
        size, per_class = math.prod(shape), settings.kind == "class-gaussian"
        fits = (
            mean.ndim == 2 and factor.ndim == 3 and factor.shape[:2] == mean.shape and mean.shape[1] == size
        )
        if not fits or len(mean) < 1 or (not per_class and len(mean) != 1):
            raise ValueError(
                f"the stored Gaussian has mean {tuple(mean.shape)} and factor {tuple(factor.shape)}, "
                f"which do not fit images of shape {tuple(shape)}: save the model again."
            )
        return Gaussian(shape, mean, factor, per_class)
    return _without_data(settings, shape)


def _restore_mixture(settings: InitialSettings, shape: Shape, state: dict[str, Tensor]) -> Mixture:
    own: dict[str, dict[str, Tensor]] = {kind: {} for kind in settings.parts}
    for name, tensor in state.items():
        kind, _, rest = name.partition(".")
        if kind not in own:
            raise ValueError(
                f"a stored initial distribution has the tensor {name}, but no part {kind!r}: save the model again."
            )
        own[kind][rest] = tensor
    parts = {
        kind: (share, restore_initial(settings.part(kind), shape, own[kind]))
        for kind, share in settings.parts.items()
    }
    return Mixture(shape, {str(kind): part for kind, part in parts.items()})
