"""What samples are measured against: real images, or the mean and covariance of their features that others published.

Statistics files are read in the formats of pytorch-fid (`mu`, `sigma`) and of OpenAI's guided-diffusion (the same, and
`mu_s`, `sigma_s` of spatial features, which are not used here, and often images in `arr_0`).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualat.data.images import ImageData, Shape
from dualat.data.in_distribution import load_images
from dualat.data.plain_arrays import read_members
from dualat.data.registry import SOURCES
from dualat.evaluation.read_images import read_folder, read_npz
from dualat.evaluation.samples import ImageSet


@dataclass(eq=False)
class Statistics:
    """Mean (D,) and covariance (D, D) of features, float64."""

    mean: Tensor
    covariance: Tensor

    @property
    def dimension(self) -> int:
        return len(self.mean)


@dataclass(eq=False)
class Reference:
    """Real images, statistics of their features, or both (a file that has both has them of different images).

    name: what a record calls it.
    """

    images: ImageSet | None
    statistics: Statistics | None
    name: str

    @property
    def split(self) -> str:
        """train, validation or test, where the name ends so, as the names of data sources do; else nothing."""
        last = self.name.rsplit(" ", 1)[-1]
        return last if last in ("train", "validation", "test") else ""

    def settings(self, statistics: bool = False) -> dict[str, Any]:
        """What a record tells of it. statistics: the value was taken from them and not the images."""
        if statistics:
            assert self.statistics is not None
            digest = hashlib.sha256(self.statistics.mean.numpy().data)
            digest.update(self.statistics.covariance.contiguous().numpy().data)
            count, content = "published mean and covariance", digest.hexdigest()
        else:
            assert self.images is not None
            count, content = len(self.images), self.images.content
        told = {"reference": self.name, "reference_images": count, "reference_sha256": content[:16]}
        resized = None if statistics or self.images is None else self.images.settings.get("resize")
        return told | ({"reference_resize": resized} if resized else {})

    def require_statistics(self, dimension: int, features: str) -> Statistics:
        """The statistics, where they are of `dimension` features.

        Raises:
            ValueError: they are not, or there are none.
        """
        if self.statistics is None:
            raise ValueError(f"{self.name} has no mean and covariance: give an .npz file with mu and sigma.")
        if self.statistics.dimension != dimension:
            raise ValueError(
                f"{self.name} has statistics of {self.statistics.dimension} features, but {features} are {dimension}: "
                "give statistics of the same features, or images."
            )
        return self.statistics


def read_reference(source: ImageData | Path | str, shape: Shape | None = None) -> Reference:
    """A reference from a data source, a folder of images, an .npz of images, or an .npz of mean and covariance.

    Args:
        source: images in memory, a named source (its training images), a folder, or an .npz file.
        shape: (C, H, W) to bring images to: resized to cover it (bilinear, antialiased) and cut to the centre, which
            records tell; None: images must have one size already, and a named source needs it.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: damaged files, or arrays of other names, shapes or types.
    """
    if isinstance(source, ImageData):
        return _of_data(source, shape)
    if isinstance(source, str) and source in SOURCES:
        if shape is None:
            raise ValueError(f"the reference {source} needs the shape (C, H, W) of the samples: pass shape.")
        return _of_data(load_images(source, None, shape), shape)
    path = Path(source).expanduser()
    name = str(path)
    if path.is_dir():
        images, _ = read_folder(path, shape, torch.arange, resize=shape is not None)
        settings = {"origin": "folder", "path": name} | ({"resize": _resize(shape)} if shape else {})
        return Reference(ImageSet(images, None, name, settings), None, name)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: give a folder of images, an .npz file, or one of {', '.join(SOURCES)}."
        )
    if path.suffix != ".npz":
        raise ValueError(f"{path} is neither a folder of images nor an .npz file: give one of them.")
    return _of_npz(path, shape)


def _resize(shape: Shape) -> str:
    return f"to {'x'.join(map(str, shape))}, bilinear, antialiased"


def _of_data(data: ImageData, shape: Shape | None) -> Reference:
    images = ImageSet.of(data if shape is None else data.fitted(shape))
    if images.shape != data.shape:
        images.settings["resize"] = _resize(images.shape)
    return Reference(images, None, data.name)


def _of_npz(path: Path, shape: Shape | None) -> Reference:
    arrays, names = read_members(path, ("mu", "sigma"))
    if "arr_0" not in names and len(arrays) < 2:
        raise ValueError(
            f"{path} has the arrays {', '.join(names) or 'none'}, but a reference has mu and sigma (features' mean "
            "and covariance) or arr_0 (images, uint8 NHWC): give a file with these."
        )
    statistics = _statistics(path, **arrays) if len(arrays) == 2 else None
    if "arr_0" not in names:
        return Reference(None, statistics, str(path))
    images, labels = read_npz(path, None, torch.arange)
    unlabelled = torch.zeros(len(images), dtype=torch.int64)
    found = _of_data(ImageData(images, unlabelled, ("all",), str(path)), shape).images
    assert found is not None
    found.labels = labels
    found.settings |= {"origin": "npz", "path": str(path)}
    return Reference(found, statistics, str(path))


def _statistics(path: Path, mu: np.ndarray, sigma: np.ndarray) -> Statistics:
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not len(mu):
        raise ValueError(
            f"mu and sigma of {path} have shapes {mu.shape} and {sigma.shape}, but must be (D,) and (D, D): give a "
            "file that pytorch-fid or guided-diffusion wrote."
        )
    if not all(array.dtype.kind == "f" and np.isfinite(array).all() for array in (mu, sigma)):
        raise ValueError(
            f"mu and sigma of {path} must be finite floating-point numbers: write the file anew."
        )
    if not np.allclose(sigma, sigma.T, rtol=1e-3, atol=1e-5 * float(np.abs(sigma).max())):
        raise ValueError(f"sigma of {path} is not symmetric, so no covariance: write the file anew.")
    return Statistics(torch.from_numpy(mu.astype(np.float64)), torch.from_numpy(sigma.astype(np.float64)))
