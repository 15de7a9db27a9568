"""Augmentation of batches, with draws of its own for every image, all from one generator.

Every function takes a generator, or `Draws` from one where this process has a part of the batch alone.
"""

from collections import defaultdict
from functools import cache
from math import atan, degrees, log

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms.v2 import functional as V

from dualat.data.draws import Draws, draws_for
from dualat.data.settings import AugmentSettings

Source = torch.Generator | Draws
_LARGEST_LEVEL = 9
_TRIES = 10
GREY = [128.0, 128.0, 128.0]
"""What AutoAugment puts where a moved image leaves room, in 8-bit levels: as RATIO and DAT have it. They shear bicubically, for
which torchvision has no kernel for tensors: here, the nearest pixel."""


def augment(x: Tensor, settings: AugmentSettings, generator: Source) -> Tensor:
    """Augment images (N, C, H, W), float in [0, 1], as the settings say; same shape, range and device.

    strong is crop, flip, AutoAugment (three channels only), cutout, in that order.
    """
    if settings.kind == "none":
        return x
    if settings.kind == "imagenet":
        x = random_resized_crop(x, settings.scale, generator)
    elif settings.pad:
        x = pad_and_crop(x, settings.pad, generator, settings.padding)
    if settings.flip:
        x = random_flip(x, generator)
    if settings.kind == "strong":
        if x.shape[1] == 3:
            x = auto_augment(x, generator)
        if settings.cutout:
            x = cutout(x, settings.cutout, generator)
    return x


def pad_and_crop(x: Tensor, pad: int, generator: Source, padding: str = "zeros") -> Tensor:
    """Add `pad` pixels on each side, zeros or the image mirrored ("reflect"), then cut out an H x W window at a uniformly
    drawn place, per image. ValueError where there is less of an image than is to be mirrored."""
    n, _, height, width = x.shape
    corner = draws_for(n, generator).integers(2 * pad + 1, 2).to(x.device)
    rows = corner[:, :1] + torch.arange(height, device=x.device)
    columns = corner[:, 1:] + torch.arange(width, device=x.device)
    if padding == "reflect" and pad >= min(height, width):
        raise ValueError(
            f"pad is {pad}, but an image of {height}x{width} pixels has no so many to mirror: give less."
        )
    padded = F.pad(x, (pad, pad, pad, pad), mode="reflect" if padding == "reflect" else "constant")
    image = torch.arange(n, device=x.device).view(n, 1, 1)
    return padded[image, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2).contiguous()


def random_flip(x: Tensor, generator: Source) -> Tensor:
    """Mirror left and right with probability one half, per image."""
    mirrored = draws_for(len(x), generator).integers(2, 1, 1, 1).to(x.device).bool()
    return torch.where(mirrored, x.flip(-1), x)


def random_resized_crop(x: Tensor, scale: float, generator: Source) -> Tensor:
    """Cut a random rectangle out of each image and resize it (bilinear) to H x W.

    Equal to torchvision's RandomResizedCrop of the images as they are given here. Where they are the centres of larger
    pictures, already reduced to H x W, that is less than its recipe, which cuts from the whole picture at its own size:
    what lies outside the centre is never seen, and a small crop is less sharp.
    Source: Szegedy et al. (arXiv 1409.4842), section 6.
    """
    height, width = x.shape[-2:]
    boxes = crop_boxes(len(x), height, width, scale, generator)
    rows = _sampled(boxes[:, 0], boxes[:, 2], height).to(x)
    columns = _sampled(boxes[:, 1], boxes[:, 3], width).to(x)
    grid = [columns.unsqueeze(1).expand(-1, height, -1), rows.unsqueeze(2).expand(-1, -1, width)]
    return F.grid_sample(x, torch.stack(grid, dim=3), align_corners=False).clamp(0, 1)


def crop_boxes(count: int, height: int, width: int, scale: float, generator: Source) -> Tensor:
    """Rectangles (count, 4), int64: top, left, height, width.

    The area is uniform in [scale, 1] of the image's and the logarithm of the aspect ratio uniform between those of 3/4
    and 4/3; of 10 draws the first that fits into the image counts, else the largest centred rectangle of such a ratio.
    """
    draws = draws_for(count, generator)
    tries, place = (
        draws.uniform(_TRIES, 2, dtype=torch.float64).cpu(),
        draws.uniform(2, dtype=torch.float64).cpu(),
    )
    area = height * width * (scale + (1 - scale) * tries[:, :, 0])
    ratio = torch.exp(log(3 / 4) + (log(4 / 3) - log(3 / 4)) * tries[:, :, 1])
    high, wide = (area / ratio).sqrt().round().long(), (area * ratio).sqrt().round().long()
    fits = (high >= 1) & (high <= height) & (wide >= 1) & (wide <= width)
    first = fits.int().argmax(1, keepdim=True)  # 0 where none fits
    size = torch.cat([high.gather(1, first), wide.gather(1, first)], 1)
    largest = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    size = torch.where(fits.any(1, keepdim=True), size, torch.tensor(largest))
    free = torch.tensor([height, width]) - size
    corner = torch.where(fits.any(1, keepdim=True), (place * (free + 1)).floor().long(), free // 2)
    return torch.cat([corner, size], 1)


def _sampled(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Where `size` pixels of a resized stretch lie along an axis of `size` pixels, (n, size), as grid_sample counts: -1
    and 1 are the outer edges. Pixels beyond the stretch are never mixed in."""
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    along = (length.unsqueeze(1) * centre - 0.5).clamp_min(0).minimum(length.unsqueeze(1) - 1.0)
    return (2 * (start.unsqueeze(1) + along) + 1) / size - 1


def cutout(x: Tensor, size: int, generator: Source) -> Tensor:
    """Set to zero a square of side `size` around a uniformly drawn pixel, per image; it may reach over the border.

    Source: DeVries and Taylor (arXiv 1708.04552).
    """
    n, _, height, width = x.shape
    draws = draws_for(n, generator)
    top = draws.integers(height, 1).to(x.device) - size // 2
    left = draws.integers(width, 1).to(x.device) - size // 2
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    in_rows = (rows >= top) & (rows < top + size)
    in_columns = (columns >= left) & (columns < left + size)
    return x.masked_fill((in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1), 0)


@cache
def _policies() -> list[tuple[tuple[str, float, int | None], ...]]:
    """The 25 pairs of (operation, probability, level) found for CIFAR-10, as torchvision has them."""
    return AutoAugment(AutoAugmentPolicy.CIFAR10).policies


def auto_augment(x: Tensor, generator: Source) -> Tensor:
    """AutoAugment's policy for CIFAR-10: of 25 pairs of operations one is drawn per image, each operation of the
    pair is done with its probability, and magnitudes that have a sign get a random one.

    Images that drew the same operation go through torchvision's 8-bit kernel together, which treats each alone.
    Source: Cubuk et al. (arXiv 1805.09501), table of the CIFAR-10 policy.

    Args:
        x: (N, 3, H, W), float in [0, 1]; read as 8-bit levels.

    Raises:
        ValueError: other than three channels.
    """
    if x.shape[1] != 3:
        raise ValueError(
            f"AutoAugment is for images with 3 channels, not {x.shape[1]}: use basic augmentation."
        )
    n, draws = len(x), draws_for(len(x), generator)
    choice = draws.integers(len(_policies())).tolist()
    chance = draws.uniform(2).tolist()
    sign = draws.integers(2, 2).tolist()
    levels = (x * 255).round().clamp(0, 255).to(torch.uint8)
    for turn in range(2):
        groups: dict[tuple[str, float], list[int]] = defaultdict(list)
        for i in range(n):
            operation, probability, level = _policies()[choice[i]][turn]
            if chance[i][turn] < probability:
                strength = 0.0 if level is None else level / _LARGEST_LEVEL
                groups[operation, -strength if sign[i][turn] else strength].append(i)
        for (operation, strength), members in groups.items():
            index = torch.tensor(members, device=x.device)
            levels[index] = apply_operation(levels[index], operation, strength)
    return levels.to(x.dtype) / 255


def apply_operation(x: Tensor, operation: str, strength: float) -> Tensor:
    """One operation of AutoAugment on uint8 images (N, 3, H, W).

    Args:
        strength: -1 to 1, as a share of the operation's largest magnitude in AutoAugment's search space (shear 0.3,
            translation 150/331 of the side, rotation 30 degrees, colour changes by the factor 1 +- 0.9, posterize to
            4 bits, solarize from level 0). Posterize and solarize read its size only.
    """
    height, width = x.shape[-2:]
    factor = 1 + 0.9 * strength
    size = abs(strength)
    match operation:
        case "ShearX" | "ShearY":
            angle = degrees(atan(0.3 * strength))
            shear = [angle, 0.0] if operation == "ShearX" else [0.0, angle]
            return V.affine(x, 0.0, [0.0, 0.0], 1.0, shear, fill=GREY, center=[0.0, 0.0])
        case "TranslateX":
            return V.affine(x, 0.0, [int(150 / 331 * width * strength), 0], 1.0, [0.0, 0.0], fill=GREY)
        case "TranslateY":
            return V.affine(x, 0.0, [0, int(150 / 331 * height * strength)], 1.0, [0.0, 0.0], fill=GREY)
        case "Rotate":
            return V.rotate(x, 30 * strength, fill=GREY)
        case "Brightness":
            return V.adjust_brightness(x, factor)
        case "Color":
            return V.adjust_saturation(x, factor)
        case "Contrast":
            return V.adjust_contrast(x, factor)
        case "Sharpness":
            return V.adjust_sharpness(x, factor)
        case "Posterize":
            return V.posterize(x, 8 - round(4 * size))
        case "Solarize":
            return V.solarize(x, 255 * (1 - size))
        case "AutoContrast":
            return V.autocontrast(x)
        case "Equalize":
            return V.equalize(x)
        case "Invert":
            return V.invert(x)
    raise ValueError(f"AutoAugment has no operation {operation!r}: name one of its search space.")
