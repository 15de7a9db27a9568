"""Images from folders: found, decoded, turned upright, converted and resized into memory."""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from dualat.data.images import ImageData, Shape, check_memory, cover_size

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_AT_A_TIME = 256
OnBad = Literal["skip", "refuse"]


def find_images(folder: Path) -> list[Path]:
    """All image files below a folder, by suffix, sorted by path."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def class_folders(folder: Path) -> list[str]:
    """Names of the subfolders, sorted, hidden ones left out."""
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def read_image(path: Path, shape: Shape) -> np.ndarray:
    """One image file as uint8 (C, H, W): upright by its EXIF tag, transparency laid on white, 16-bit grey scaled to
    8 bits, resized (bilinear, antialiased) to cover H x W, cut to the centre.

    Raises:
        ValueError: the file cannot be read; the sentence names it.
    """
    channels, height, width = shape
    try:
        with Image.open(path) as opened:
            image = _to_mode(ImageOps.exif_transpose(opened), "L" if channels == 1 else "RGB")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error})") from error
    new_height, new_width = cover_size(image.height, image.width, height, width)
    if (new_width, new_height) != image.size:
        image = image.resize((new_width, new_height), Image.Resampling.BILINEAR)
    left, top = (new_width - width) // 2, (new_height - height) // 2
    array = np.asarray(image.crop((left, top, left + width, top + height)))
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):  # PIL would clip 16-bit grey at 255
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its pixels are integers beyond 16 bits")
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
    return image.convert(mode)


def read_files(
    paths: list[Path], labels: list[int], shape: Shape, on_bad: OnBad, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode files into uint8 (n, C, H, W) and int64 labels (n,); n is smaller than len(paths) where bad ones are
    skipped, each with a warning.

    Raises:
        ValueError: a bad image with on_bad "refuse", no good one at all, or more than 8 GiB.
    """
    check_memory(len(paths), shape, name)
    images = torch.empty(len(paths), *shape, dtype=torch.uint8)
    kept: list[int] = []
    for label, result in zip(labels, _decode(paths, shape), strict=True):
        if isinstance(result, ValueError):
            if on_bad == "refuse":
                raise ValueError(
                    f"{result}: replace or remove it, or give `--data.on-bad-image skip`."
                ) from result
            warnings.warn(f"{result}: skipped.", stacklevel=2)
            continue
        images[len(kept)] = torch.from_numpy(np.array(result))
        kept.append(label)
    if not kept:
        raise ValueError(f"{name} has no readable image: put images ({', '.join(SUFFIXES)}) there.")
    return images[: len(kept)], torch.tensor(kept, dtype=torch.int64)


def _decode(paths: list[Path], shape: Shape) -> Iterator[np.ndarray | ValueError]:
    """The images in order, decoded a few hundred at a time on all cores (PIL frees the interpreter meanwhile)."""

    def read(path: Path) -> np.ndarray | ValueError:
        try:
            return read_image(path, shape)
        except ValueError as error:
            return error

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _AT_A_TIME):
            yield from pool.map(read, paths[start : start + _AT_A_TIME])


def load_class_folder(
    folder: Path, shape: Shape, on_bad: OnBad, classes: tuple[str, ...] | None = None, minimum: int = 0
) -> ImageData:
    """Images of folder/CLASS/..., labelled by class in the order of `classes`, or of the sorted subfolder names.

    Args:
        minimum: fewest readable images that each class must have.

    Raises:
        ValueError: no class folders, no images, a class that is not in `classes`, a class below `minimum`, a bad
            image with on_bad "refuse", or more than 8 GiB.
    """
    found = class_folders(folder)
    if not found:
        raise ValueError(
            f"{folder} has no class folders: put the images of each class in a subfolder of its own."
        )
    names = tuple(found) if classes is None else classes
    if unknown := sorted(set(found) - set(names)):
        raise ValueError(
            f"{folder} has the class folder {unknown[0]!r}, which train/ lacks: remove or rename it."
        )
    pairs = [(path, names.index(name)) for name in found for path in find_images(folder / name)]
    if not pairs:
        raise ValueError(
            f"{folder} has no images in its class folders: put {', '.join(SUFFIXES)} files there."
        )
    images, labels = read_files([p for p, _ in pairs], [y for _, y in pairs], shape, on_bad, str(folder))
    counts = torch.bincount(labels, minlength=len(names))
    if int(counts.min()) < minimum:
        worst = int(counts.argmin())
        raise ValueError(
            f"class {names[worst]!r} in {folder} has {int(counts[worst])} readable images, but needs at "
            f"least {minimum}: add images or remove its folder."
        )
    return ImageData(images, labels, names, str(folder))
