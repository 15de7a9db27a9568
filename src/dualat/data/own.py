"""Images of one's own, given in Python: a torch Dataset, a pair of tensors, or one of these per split."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from dualat.data.images import ImageData, Splits, split_off
from dualat.data.pictures import check_memory
from dualat.data.settings import DataSettings
from dualat.system.seeds import mix_seed

OwnImages = Dataset[Any] | tuple[Any, Any]
OwnData = Splits | OwnImages | Mapping[str, OwnImages]
"""Our splits; a map-style Dataset of (image, label) or a pair (images, labels), which is split; or a mapping of these, with
the keys train, and, where they are not to be split off, validation and test."""

SPLITS = ("train", "validation", "test")


def own_splits(
    data: OwnData,
    *,
    class_names: Sequence[str] | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    name: str = "own images",
) -> Splits:
    """Training, validation and test images that never overlap, out of somebody's own.

    Args:
        data: see `OwnData`. Images are uint8 (0 to 255) or floating point in [0, 1], of shape (C, H, W), or PIL pictures or
            uint8 arrays (H, W, C); a pair holds them as (N, C, H, W), with labels (N,). They are kept as 8-bit values.
        class_names: one per class; None: those of the Dataset (`classes`), or the numbers 0 to K - 1.
        validation_fraction, test_fraction: shares of every class that are split off where no such split is given.
        seed: of the split.

    Raises:
        ValueError: images of several shapes, values outside their range, labels that are no class numbers, too much data.
    """
    if isinstance(data, Splits):
        return data
    parts: Mapping[str, Any] = data if isinstance(data, Mapping) else {"train": data}
    wrong = [f"{key!r} is unknown" for key in parts if key not in SPLITS]
    if wrong or "train" not in parts:
        raise ValueError(
            f"data in splits has the keys {', '.join(SPLITS)}, but {[*wrong, 'train is missing'][0]}."
        )
    read = {key: arrays(part, f"{name} {key}") for key, part in parts.items()}
    names = tuple(class_names or getattr(parts["train"], "classes", ()) or numbered(read))
    found = {key: ImageData(*read[key], names, f"{name} {key}") for key in read}
    train = found["train"]
    for key, share in (("test", test_fraction), ("validation", validation_fraction)):
        if key not in found:
            train, found[key] = split_off(train, share, mix_seed(key, seed), f"{name} train", f"{name} {key}")
    if empty := [key for key in SPLITS if not len(found[key] if key != "train" else train)]:
        raise ValueError(f"the {empty[0]} split of {name} is empty: give more images, or that split itself.")
    return Splits(train, found["validation"], found["test"])


def split_by(settings: DataSettings, data: OwnData, name: str = "own images") -> Splits:
    """The same, split by the shares and the seed of settings."""
    return own_splits(
        data,
        validation_fraction=settings.validation_fraction,
        test_fraction=settings.test_fraction,
        seed=settings.split_seed,
        name=name,
    )


def numbered(read: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[str, ...]:
    """The class names "0" to "K - 1", K being one more than the largest label."""
    largest = max((int(labels.max()) for _, labels in read.values() if len(labels)), default=-1)
    return tuple(str(k) for k in range(largest + 1))


def arrays(data: Any, name: str) -> tuple[Tensor, Tensor]:
    """Images as uint8 (N, C, H, W) and labels as int64 (N,), of a pair of tensors or a Dataset."""
    if isinstance(data, tuple) and len(data) == 2:
        images, labels = torch.as_tensor(data[0]), torch.as_tensor(data[1])
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{name} must be images (N, C, H, W) and labels (N,), not of shapes {tuple(images.shape)} and "
                f"{tuple(labels.shape)}."
            )
        return bytes_of(images, name), class_numbers(labels, name)
    if isinstance(data, IterableDataset) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise ValueError(
            f"{name} is {type(data).__name__}, but must be a Dataset with a length, of (image, label), or a pair of tensors."
        )
    if not len(data):
        raise ValueError(f"{name} has no images.")
    first = picture(pair(data[0], name)[0], name)
    check_memory(len(data), (first.shape[0], first.shape[1], first.shape[2]), name)
    images, labels = torch.empty(len(data), *first.shape, dtype=torch.uint8), []
    for i in range(len(data)):
        image, label = pair(data[i], name)
        image = picture(image, name)
        if image.shape != first.shape:
            raise ValueError(
                f"image {i} of {name} has the shape {tuple(image.shape)}, but image 0 has {tuple(first.shape)}: resize them to "
                "one shape (torchvision.transforms.v2.Resize)."
            )
        images[i] = image
        labels.append(label if isinstance(label, int) else torch.as_tensor(label))
    return images, class_numbers(torch.as_tensor(labels), name)


def pair(entry: Any, name: str) -> tuple[Any, Any]:
    """(image, label) of one entry of a Dataset."""
    if not isinstance(entry, tuple | list) or len(entry) != 2:
        raise ValueError(f"entries of {name} must be (image, label), not {type(entry).__name__}.")
    return entry[0], entry[1]


def picture(image: Any, name: str) -> Tensor:
    """One image as uint8 (C, H, W)."""
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB"))
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.array(image))
        image = image[None] if image.ndim == 2 else image.permute(2, 0, 1) if image.ndim == 3 else image
    if not isinstance(image, Tensor) or image.ndim != 3:
        shape = f" of shape {tuple(image.shape)}" if isinstance(image, Tensor) else ""
        raise ValueError(
            f"images of {name} must be tensors (C, H, W), arrays (H, W, C) or PIL pictures, not {type(image).__name__}{shape}."
        )
    return bytes_of(image, name)


def bytes_of(images: Tensor, name: str) -> Tensor:
    """Images as uint8: as they are, or rounded from floating point in [0, 1]."""
    if images.dtype == torch.uint8:
        return images.cpu()
    if not images.is_floating_point():
        raise ValueError(
            f"images of {name} are {images.dtype}, but must be uint8, or floating point in [0, 1]."
        )
    if images.numel() and not (float(images.min()) >= 0 and float(images.max()) <= 1):
        raise ValueError(
            f"images of {name} have values from {float(images.min()):.4g} to {float(images.max()):.4g}, but must lie in [0, 1]: "
            "leave normalisation to the network."
        )
    return (images.detach().cpu().float() * 255).round().to(torch.uint8)


def class_numbers(labels: Tensor, name: str) -> Tensor:
    """Labels as int64 (N,); ValueError where they are no class numbers."""
    if (
        labels.is_floating_point()
        or labels.is_complex()
        or labels.ndim != 1
        or (len(labels) and labels.min() < 0)
    ):
        raise ValueError(f"labels of {name} must be class numbers from 0 on, one per image.")
    return labels.cpu().to(torch.int64)
