"""Samples to be judged: 8-bit images drawn from a model, or read from a folder or an .npz, and where they came from.

    x -> round(255 x),   labels class-balanced: y_i = i mod K

Source: DAT (arXiv 2510.13872), evaluation of generation. Rounded, never truncated: truncating darkens every image
and shifts each distance below.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualat import __version__
from dualat.core.classifier import device_of
from dualat.data.images import ImageData
from dualat.data.pictures import InMemory, Shape, check_pixels
from dualat.evaluation.read_images import read_folder, read_npz
from dualat.evaluation.reuse import add_tensors, kept_tensors
from dualat.evaluation.sample_labels import labels_of_names, labels_of_paths
from dualat.models.model import LoadedModel
from dualat.sampling import descend
from dualat.system.distributed import all_reduced, mine
from dualat.system.seeds import mix_seed

CHUNK = 500  # images of one file of the state; also the batch of dualat.sampling.draw, so that the bits agree
AT_ONCE = (
    2**31
)  # bytes of starting points that are drawn together; more, such as 50,000 of 256x256, chunk by chunk


@dataclass(eq=False)
class ImageSet(InMemory):
    """8-bit images of one origin.

    Attributes:
        images: (N, C, H, W), uint8.
        labels: (N,), int64, the class that was asked for; None where it is unknown.
        name: what a message or a record calls this set.
        settings: how the images came about, as a record tells it.
        paths: of the files in a folder, below it, with /; they may tell labels (`of_classes`). None for others.
    """

    labels: Tensor | None
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    paths: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_pixels(self.images, self.name)
        if self.images.shape[1] not in (1, 3):
            raise ValueError(f"images of {self.name} have {self.images.shape[1]} channels: give 1 or 3.")
        if self.labels is not None and self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"{self.name} has {len(self.images)} images, but labels of shape {tuple(self.labels.shape)}: "
                "give one label per image."
            )

    @cached_property
    def content(self) -> str:
        """SHA-256 of the shape and of every pixel."""
        return self.digest(torch.arange(len(self)), "").hexdigest()

    def of_classes(self, classes: Sequence[str], owner: str) -> "ImageSet":
        """The same images with labels among these classes, where they tell any.

        Args:
            classes: names of the classes of the real images.
            owner: what a message calls those.

        Raises:
            ValueError: a label, or a subfolder, that is no class.
        """
        labels = self.labels
        if self.paths is not None:
            labels = labels_of_paths(self.paths, classes, self.name, owner)
        if labels is not None and len(wrong := labels[(labels < 0) | (labels >= len(classes))]):
            raise ValueError(
                f"{self.name} has the label {int(wrong[0])}, but {owner} has only the classes 0 to {len(classes) - 1}."
            )
        return self if labels is self.labels else replace(self, labels=labels, paths=None)

    @classmethod
    def of(cls, data: ImageData) -> "ImageSet":
        """The images of a data source."""
        return cls(data.images, data.labels, data.name, {"origin": "data"})


def from_model(
    model: LoadedModel,
    count: int,
    seed: int,
    *,
    state: Path | None = None,
    steps: int | None = None,
    step_size: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """Class-balanced samples, rounded to 8 bits: chunks of 500 that descend the energy.

    The same images as `dualat.sample` draws with this seed, unless their starting points take more than 2 GiB: then the
    points of each chunk are drawn by themselves.

    Args:
        state: folder that keeps finished chunks: a call that was killed goes on there and ends with the same bytes
            (those of the chunks that were left, on a GPU, up to rounding).
            Other weights, settings, seeds and versions have chunks of their own, in subfolders.
        steps, step_size: in place of the model's own; 0 steps give the starting points.
        progress: called as progress(images done, count) after each chunk.

    Raises:
        ValueError: no images asked for, or a model without an initial distribution.
    """
    if count < 1:
        raise ValueError(f"the number of samples is {count}, but must be 1 or more.")
    initial = model.required_initial
    given = {"steps": steps, "step_size": step_size}
    sampler = replace(model.sampling, **{k: v for k, v in given.items() if v is not None})
    sampling = sampler.recorded()
    labels, device = torch.arange(count) % len(model.class_names), device_of(model)
    starts = None
    if 4 * count * math.prod(model.shape) <= AT_ONCE:
        starts = initial.sample(count, labels, torch.Generator().manual_seed(seed))
    folder = None if state is None else Path(state) / _fingerprint(model, count, seed, sampling)[:16]
    images = torch.zeros(count, *model.shape, dtype=torch.uint8)
    for first in mine(range(0, count, CHUNK)):
        part = slice(first, min(first + CHUNK, count))
        path = None if folder is None else folder / f"chunk-{first // CHUNK:05d}.safetensors"

        def draw(part: slice = part) -> dict[str, Tensor]:
            noise, own = (
                torch.Generator().manual_seed(mix_seed(k, seed, part.start)) for k in ("noise", "starts")
            )
            x = initial.sample(len(labels[part]), labels[part], own) if starts is None else starts[part]
            x = descend(model, x.to(device), labels[part].to(device), sampler, noise)
            return {"images": (x.cpu() * 255).round().to(torch.uint8)}

        def fit(found: dict[str, Tensor], shape: torch.Size = images[part].shape) -> bool:
            return found["images"].shape == shape and found["images"].dtype == torch.uint8

        drawn = kept_tensors(path, fit, draw)["images"]
        images[part] = drawn
        if progress is not None:
            progress(part.stop, count)
    images = all_reduced(images)  # of each image one rank has the pixels, the others zeros
    settings = {
        "origin": "model",
        "sampling": sampling,
        "sampling_seed": seed,
        "initial": model.initial_kind,
        "labels": "index mod K",
    }
    # a sampler that knows no classes has drawn images without labels
    return ImageSet(images, labels if sampler.energy == "joint" else None, "samples of the model", settings)


def _fingerprint(model: LoadedModel, count: int, seed: int, sampling: dict[str, Any]) -> str:
    """Hash of all that the samples depend on: weights, network, initial distribution, seed, count, steps, versions."""
    told = {
        "description": asdict(model.description),
        "sampling": sampling,
        "count": count,
        "seed": seed,
        "versions": [__version__, torch.__version__, device_of(model).type],
    }
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    initial = model.initial.state() if model.initial else {}
    add_tensors(digest, sorted({**model.state_dict(), **initial}.items()))
    return digest.hexdigest()


def read_samples(path: Path | str, wanted: int | None = None, shape: Shape | None = None) -> ImageSet:
    """Samples that something else has made: an .npz (arr_0: uint8 NHWC, arr_1: labels if there are any) or a folder.

    Labels are the K of file names that end in -classK, as `dualat sample` writes them. Those that subfolders tell are
    known once the classes are: `ImageSet.of_classes`. Nothing is resized: all images must have one size.

    Args:
        wanted: this many, picked by a fixed seed where there are more.
        shape: (C, H, W) that they must have.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: damaged or truncated files, another shape or type, or fewer images than wanted.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a folder of images or an .npz file of samples.")

    def pick(count: int) -> Tensor:
        return picked(count, wanted, str(path))

    paths = None
    if path.is_dir():
        images, paths = read_folder(path, shape, pick)
        labels = labels_of_names(paths)
    elif path.suffix == ".npz":
        images, labels = read_npz(path, shape, pick)
    else:
        raise ValueError(f"{path} is neither a folder of images nor an .npz file: give one of them.")
    origin = "folder" if path.is_dir() else "npz"
    return ImageSet(images, labels, str(path), {"origin": origin, "path": str(path)}, paths)


def picked(count: int, wanted: int | None, name: str) -> Tensor:
    """Positions, ascending, of `wanted` out of `count` images; by chance, as files are often sorted by class."""
    if wanted is None or wanted == count:
        return torch.arange(count)
    if wanted < 1:
        raise ValueError(f"{wanted} images of {name} are wanted, but must be 1 or more.")
    if count < wanted:
        raise ValueError(
            f"{name} has {count} images, but {wanted} are wanted: give more images, or ask for {count}."
        )
    generator = torch.Generator().manual_seed(mix_seed("picked", count, wanted))
    return torch.randperm(count, generator=generator)[:wanted].sort().values
