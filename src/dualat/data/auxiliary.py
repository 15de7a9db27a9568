"""Auxiliary pictures that contrastive samples can start from: any data source, folder, shards, or file of pictures."""

import math
from pathlib import Path

from torch import Tensor

from dualat.data.arrays import TinyImages, Without, read_array
from dualat.data.in_distribution import named_images
from dualat.data.names import read_positions
from dualat.data.registry import SOURCES
from dualat.data.source import MEMORY_LIMIT, Pictures, Shape
from dualat.data.sources import open_images

_FILES = (".bin", ".npy", ".npz")


def open_pictures(
    source: str, root: str | None, shape: Shape, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()
) -> Tensor | Pictures:
    """The pictures of a source in the wanted shape: a tensor, uint8 (N, C, H, W), or pictures that stay on disk.

    On disk stay the files .bin and .npy, and folders and shards that take more than 8 GiB.

    Args:
        source: as InitialSettings.source says.
        root: folder of a named source's files.
        shape: (C, H, W); other pictures are fitted to it (dualat.data.source.Pictures.fitted).
        include, exclude: lists of names, or of positions, as InitialSettings says.

    Raises:
        FileNotFoundError: the source, or a list, is not there.
        ValueError: damaged files or lists, or no picture left.
    """
    if source in SOURCES:
        if include or exclude:
            raise ValueError(
                f"include and exclude are for folders and files of images, not {source}: leave them out."
            )
        return named_images(source, root).fitted(shape).images
    path = Path(source).expanduser()
    if path.suffix not in _FILES or path.is_dir():
        data = open_images(source, root, shape, include, exclude)
        return data.held().images if len(data) * math.prod(shape) <= MEMORY_LIMIT else data
    if root is not None or include:
        wrong = "root" if include == () else "include"
        raise ValueError(f"{wrong} does nothing for the file {source!r}: leave it out.")
    pictures: Pictures = TinyImages(path) if path.suffix == ".bin" else read_array(path)
    name = str(path)
    if exclude:
        pictures = Without(pictures, read_positions(exclude, len(pictures), name))
    return pictures if pictures.shape == tuple(shape) else pictures.fitted(shape, name)
