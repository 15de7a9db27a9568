"""Which class each sample of a folder was asked for: its subfolder says it by name, or its file name by a number.

`dualat sample` writes NNNNN-classK.png, K the position of the class in the model.
"""

import re
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from dualat.data.class_names import class_number


def labels_of_names(paths: Sequence[str]) -> Tensor | None:
    """(N,) int64, the K of file names that end in -classK; None where any has none."""
    found = [_number(path) for path in paths]
    numbers = [number for number in found if number is not None]
    return torch.tensor(numbers) if numbers and len(numbers) == len(found) else None


def _number(path: str) -> int | None:
    told = re.search(r"-class(\d{1,9})\.[^./]*$", path)
    return int(told[1]) if told else None


def labels_of_paths(paths: Sequence[str], classes: Sequence[str], name: str, owner: str) -> Tensor | None:
    """(N,) int64, the class of each image; None where they are not known, with a warning where some are.

    The first folder of a path is a class, by its name or number (dualat.data.class_names), unless all file names end in
    -classK and it is none.

    Args:
        paths: of the files below the folder of samples, with /.
        classes: names of the classes of the real images.
        name, owner: what messages call the folder, and what has the classes.

    Raises:
        ValueError: a subfolder that is no class, or that contradicts a file name.
    """
    folders = {path.partition("/")[0] for path in paths if "/" in path}
    numbers = [_number(path) for path in paths]
    known: dict[str, int] = {}
    for folder in sorted(folders):
        try:
            known[folder] = class_number(folder, classes, owner)
        except ValueError as error:
            if None in numbers:
                raise ValueError(
                    f"the subfolder {folder} of {name} is no class: {str(error).rstrip('.')}; rename it, or move its "
                    "images into the folder itself to measure them without labels."
                ) from error
    labels: list[int] = []
    unknown: list[str] = []
    for path, number in zip(paths, numbers, strict=True):
        label = known.get(path.partition("/")[0]) if "/" in path else None
        if label is not None and number is not None and label != number:
            raise ValueError(
                f"{name}: {path} lies in the folder of class {label}, but its name says {number}: move or rename it."
            )
        label = number if label is None else label
        labels += [] if label is None else [label]
        unknown += [path] if label is None else []
    if unknown and labels:
        warnings.warn(
            f"{name}: {len(labels)} of {len(paths)} pictures tell their class, but not {unknown[0]}: all are measured "
            "without labels.",
            stacklevel=3,
        )
    return None if unknown else torch.tensor(labels)
