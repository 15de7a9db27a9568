"""Augmentation of batches, with draws of its own for every image, all from one generator."""

from collections import defaultdict
from functools import cache
from math import atan, degrees

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms.v2 import functional as V

from dualat.data.settings import AugmentSettings

_LARGEST_LEVEL = 9


def augment(x: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Augment images (N, C, H, W), float in [0, 1], as the settings say; same shape, range and device.

    strong is crop, flip, AutoAugment (three channels only), cutout, in that order.
    """
    if settings.kind == "none":
        return x
    if settings.pad:
        x = pad_and_crop(x, settings.pad, generator)
    if settings.flip:
        x = random_flip(x, generator)
    if settings.kind == "strong":
        if x.shape[1] == 3:
            x = auto_augment(x, generator)
        if settings.cutout:
            x = cutout(x, settings.cutout, generator)
    return x


def _integers(high: int, size: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randint(high, size, generator=generator, device=generator.device).to(device)


def pad_and_crop(x: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Add `pad` zeros on each side, then cut out an H x W window at a uniformly drawn place, per image."""
    n, _, height, width = x.shape
    corner = _integers(2 * pad + 1, (n, 2), generator, x.device)
    rows = corner[:, :1] + torch.arange(height, device=x.device)
    columns = corner[:, 1:] + torch.arange(width, device=x.device)
    padded = F.pad(x, (pad, pad, pad, pad))
    image = torch.arange(n, device=x.device).view(n, 1, 1)
    return padded[image, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2).contiguous()


def random_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror left and right with probability one half, per image."""
    mirrored = _integers(2, (len(x), 1, 1, 1), generator, x.device).bool()
    return torch.where(mirrored, x.flip(-1), x)


def cutout(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Set to zero a square of side `size` around a uniformly drawn pixel, per image; it may reach over the border.

    Source: DeVries and Taylor (arXiv 1708.04552).
    """
    n, _, height, width = x.shape
    top = _integers(height, (n, 1), generator, x.device) - size // 2
    left = _integers(width, (n, 1), generator, x.device) - size // 2
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    in_rows = (rows >= top) & (rows < top + size)
    in_columns = (columns >= left) & (columns < left + size)
    return x.masked_fill((in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1), 0)


@cache
def _policies() -> list[tuple[tuple[str, float, int | None], ...]]:
    """The 25 pairs of (operation, probability, level) found for CIFAR-10, as torchvision has them."""
    return AutoAugment(AutoAugmentPolicy.CIFAR10).policies


def auto_augment(x: Tensor, generator: torch.Generator) -> Tensor:
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
    n, device = len(x), generator.device
    choice = torch.randint(len(_policies()), (n,), generator=generator, device=device).tolist()
    chance = torch.rand(n, 2, generator=generator, device=device).tolist()
    sign = torch.randint(2, (n, 2), generator=generator, device=device).tolist()
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
            return V.affine(x, 0.0, [0.0, 0.0], 1.0, shear, center=[0.0, 0.0])
        case "TranslateX":
            return V.affine(x, 0.0, [int(150 / 331 * width * strength), 0], 1.0, [0.0, 0.0])
        case "TranslateY":
            return V.affine(x, 0.0, [0, int(150 / 331 * height * strength)], 1.0, [0.0, 0.0])
        case "Rotate":
            return V.rotate(x, 30 * strength)
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
