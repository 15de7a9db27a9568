"""How far the initial distribution is from the data, and whether the sampler's path reaches that far."""

import math

import torch
from torch import Tensor

from dualat.data.images import ImageData
from dualat.data.pictures import evenly

_CHUNK = 1024


def distance_to_data(start: Tensor, images: ImageData, max_images: int = 5000) -> float:
    """Mean L2 distance from each start image to its nearest training image, in units of the pixel range [0, 1].

    The nearest is found with distances by matrix product, which cancel badly near zero; its own distance is then
    computed from the difference.

    Args:
        start: (n, C, H, W), float in [0, 1], n >= 1.
        max_images: compare with at most this many training images, evenly picked.

    Raises:
        ValueError: no images on one side, or other shapes.
    """
    if not len(start) or not len(images):
        raise ValueError("a distance to the data needs at least one start image and one training image.")
    if tuple(start.shape[1:]) != images.shape:
        raise ValueError(
            f"start images have shape {tuple(start.shape[1:])}, but {images.name} has {images.shape}."
        )
    flat = start.flatten(1).to(torch.float32)
    picked = evenly(len(images), max_images)
    best = torch.full((len(flat),), math.inf, device=flat.device)
    nearest = torch.zeros_like(flat)
    for chunk in picked.split(_CHUNK):
        data = images.float(chunk).flatten(1).to(flat.device)
        distance, index = torch.cdist(flat, data).min(1)
        closer = distance < best
        best[closer], nearest[closer] = distance[closer], data[index[closer]]
    return float((flat - nearest).norm(dim=1).mean())


def path_warning(path_length: float, distance: float) -> str | None:
    """A sentence if the sampler's longest path, T_max * eta, is shorter than the way to the data; None if it is long enough."""
    if path_length >= distance:
        return None
    return (
        f"the path of contrastive samples, T_max * eta = {path_length:.4g}, is shorter than the mean distance from "
        f"the initial distribution to the data, {distance:.4g}: raise T_max or eta, or start nearer to the data (kind "
        "gaussian), or the curriculum will run to T_max with AUROC near 1 and nothing will be learned."
    )
