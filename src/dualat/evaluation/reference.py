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

from dualat.data.images import ImageData, Shape, fit_to_shape
from dualat.data.in_distribution import load_images
from dualat.data.plain_arrays import read_members
from dualat.data.settings import NAMED_SOURCES
from dualat.evaluation.read_images import read_folder, read_npz
from dualat.evaluation.samples import ImageSet, picked


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
            return {
                "reference": self.name,
                "reference_images": "published mean and covariance",
                "reference_sha256": digest.hexdigest()[:16],
            }
        assert self.images is not None
        resized = self.images.settings.get("resize")
        return {
            "reference": self.name,
            "reference_images": len(self.images),
            "reference_sha256": self.images.content[:16],
        } | ({"reference_resize": resized} if resized else {})

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


def read_reference(
    source: ImageData | Path | str,
    shape: Shape | None = None,
    root: str | None = None,
    wanted: int | None = None,
) -> Reference:
    """A reference from a data source, a folder of images, an .npz of images, or an .npz of mean and covariance.

    Args:
        source: images in memory, a named source (its training images), a folder, or an .npz file.
        shape: (C, H, W) to bring images to: resized to cover it (bilinear, antialiased) and cut to the centre, which
            records tell; None: images must have one size already, and a named source needs it.
        root: where the files of a named source are.
        wanted: this many images, picked by a fixed seed where there are more.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: damaged files, arrays of other names, shapes or types, or fewer images than wanted.
    """
    if isinstance(source, ImageData):
        return _of_data(source, shape, wanted)
    if isinstance(source, str) and source in NAMED_SOURCES:
        if shape is None:
            raise ValueError(f"the reference {source} needs the shape (C, H, W) of the samples: pass shape.")
        return _of_data(load_images(source, root, shape), shape, wanted)
    path = Path(source).expanduser()
    name = str(path)
    if path.is_dir():
        tall = None if shape is None else f"to {'x'.join(map(str, shape))}, bilinear, antialiased"
        images, _ = read_folder(path, shape, lambda n: picked(n, wanted, name), resize=shape is not None)
        settings = {"origin": "folder", "path": name} | ({"resize": tall} if tall else {})
        return Reference(ImageSet(images, None, name, settings), None, name)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: give a folder of images, an .npz file, or one of {', '.join(NAMED_SOURCES)}."
        )
    if path.suffix != ".npz":
        raise ValueError(f"{path} is neither a folder of images nor an .npz file: give one of them.")
    return _of_npz(path, shape, wanted)


def _of_data(data: ImageData, shape: Shape | None, wanted: int | None) -> Reference:
    fitted = data if shape is None else fit_to_shape(data, shape)
    chosen = picked(len(fitted), wanted, fitted.name)
    images = ImageSet.of(fitted if wanted is None else fitted.take(chosen))
    if fitted.shape != data.shape:
        images.settings["resize"] = f"to {'x'.join(map(str, fitted.shape))}, bilinear, antialiased"
    return Reference(images, None, data.name)


def _of_npz(path: Path, shape: Shape | None, wanted: int | None) -> Reference:
    arrays, names = read_members(path, ("mu", "sigma"))
    if "arr_0" not in names and len(arrays) < 2:
        raise ValueError(
            f"{path} has the arrays {', '.join(names) or 'none'}, but a reference has mu and sigma (features' mean "
            "and covariance) or arr_0 (images, uint8 NHWC): give a file with these."
        )
    statistics = _statistics(path, **arrays) if len(arrays) == 2 else None
    if "arr_0" not in names:
        return Reference(None, statistics, str(path))
    images, labels = read_npz(path, None, lambda n: picked(n, wanted, str(path)))
    unlabelled = torch.zeros(len(images), dtype=torch.int64)
    found = _of_data(ImageData(images, unlabelled, ("all",), str(path)), shape, None)
    assert found.images is not None
    found.images.labels = labels
    found.images.settings |= {"origin": "npz", "path": str(path)}
    return Reference(found.images, statistics, str(path))


def _statistics(path: Path, mu: np.ndarray, sigma: np.ndarray) -> Statistics:
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not len(mu):
        raise ValueError(
            f"mu and sigma of {path} have shapes {mu.shape} and {sigma.shape}, but must be (D,) and (D, D): give a "
            "file that pytorch-fid or guided-diffusion wrote."
        )
    if (
        mu.dtype.kind != "f"
        or sigma.dtype.kind != "f"
        or not (np.isfinite(mu).all() and np.isfinite(sigma).all())
    ):
        raise ValueError(
            f"mu and sigma of {path} must be finite floating-point numbers: write the file anew."
        )
    if not np.allclose(sigma, sigma.T, rtol=1e-3, atol=1e-5 * float(np.abs(sigma).max())):
        raise ValueError(f"sigma of {path} is not symmetric, so no covariance: write the file anew.")
    return Statistics(torch.from_numpy(mu.astype(np.float64)), torch.from_numpy(sigma.astype(np.float64)))
