"""What contrastive samples start from: Gaussians fitted to the data, noise, or other images.

Default is the Gaussian: near the data, yet off it. Noise is often farther from the data than the sampler can walk
(see `path_warning` in distance.py).
"""

import math

import torch
from torch import Tensor

from dualat.data.distributions import (
    Gaussian,
    Images,
    InitialDistribution,
    Mixture,
    Normal,
    SmoothNoise,
    Uniform,
)
from dualat.data.images import ImageData
from dualat.data.in_distribution import open_pictures
from dualat.data.pictures import MEMORY_LIMIT, Shape, evenly
from dualat.data.principal import fit_gaussian, most_fitted
from dualat.data.settings import InitialSettings


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
