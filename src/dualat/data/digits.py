"""scikit-learn's 1,797 handwritten digits."""

import numpy as np
import torch

from dualat.data.images import ImageData
from dualat.data.registry import Source


def load_digits(source: Source, root: str | None, download: bool) -> tuple[ImageData, None]:
    """All digits, (1, 8, 8); their levels 0 to 16 become 0 to 255. No test split of their own, and no files."""
    from sklearn import datasets

    pixels, digits = datasets.load_digits(return_X_y=True)
    images = torch.from_numpy(np.round(np.asarray(pixels) / 16 * 255).astype(np.uint8)).view(-1, 1, 8, 8)
    labels = torch.from_numpy(np.asarray(digits, dtype=np.int64))
    return ImageData(images, labels, tuple(str(digit) for digit in range(10)), source.name), None
