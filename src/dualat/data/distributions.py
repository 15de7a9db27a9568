"""Initial distributions, one class each: Gaussians, noise, other images, and mixtures of these (initial.py makes them)."""

import math
from abc import ABC, abstractmethod
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from dualat.data.augment import augment
from dualat.data.draws import Draws, draws_for
from dualat.data.pictures import Pictures, Shape, evenly
from dualat.data.settings import AugmentSettings

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
