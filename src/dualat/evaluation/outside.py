"""Out-of-distribution images: noise, a data source, or a folder, in the model's shape."""

import torch

from dualat.data.images import ImageData, Shape
from dualat.data.in_distribution import load_images, named_images
from dualat.data.initial import build_initial
from dualat.data.on_disk import open_images
from dualat.data.registry import SOURCES
from dualat.data.settings import InitialSettings

NOISE = ("uniform", "normal")
"""Out-of-distribution images that need no files."""


def outside_images(source: str, shape: Shape, wanted: int, seed: int) -> ImageData:
    """`wanted` images (or all, of a smaller source) that the model has not learned, of shape (C, H, W)."""
    if source in NOISE:
        return noise_images(source, shape, wanted, seed)
    data = load_images(source, None, shape)
    picked = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:wanted]
    return data.take(picked.sort().values, source)


def noise_images(kind: str, shape: Shape, count: int, seed: int) -> ImageData:
    """`count` images of "uniform" noise, or of "normal" noise N(1/2, 1/4^2), as uint8 of shape (C, H, W)."""
    if kind not in ("uniform", "normal"):
        raise ValueError(f"noise is {kind!r}, but must be 'uniform' or 'normal'.")
    if count < 1:
        raise ValueError(f"the number of noise images is {count}, but must be 1 or more.")
    generator = torch.Generator().manual_seed(seed)
    images = build_initial(InitialSettings(kind=kind), shape, None).sample(count, generator=generator)
    labels = torch.zeros(count, dtype=torch.int64)
    return ImageData((images * 255).round().to(torch.uint8), labels, ("noise",), f"{kind} noise")


def check_outside(sources: tuple[str, ...], shape: Shape) -> None:
    """FileNotFoundError or ValueError where the images of a source cannot be had."""
    for source in sources:
        if source in SOURCES:
            named_images(source, None)
        elif source not in NOISE:
            open_images(source, None, shape)
