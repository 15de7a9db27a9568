"""Which images a model classifies rightly, kept in a record, so that two models can be compared image by image: the noise of
their difference is then that of the images on which they differ. Imports no PyTorch: pages read it."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def pack(correct: np.ndarray) -> dict[str, str]:
    """Outcomes (N,) of 0 and 1, in the order of the images, as an entry of a record's details: eight in two hex digits."""
    return {"correct": np.packbits(correct.astype(bool)).tobytes().hex()}


def unpack(details: Mapping[str, Any], n: int) -> np.ndarray | None:
    """The n outcomes, (n,) of 0 and 1; None where the details have none."""
    if "correct" not in details:
        return None
    return np.unpackbits(np.frombuffer(bytes.fromhex(details["correct"]), np.uint8))[:n]
