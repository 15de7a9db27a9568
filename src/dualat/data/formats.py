"""Formats of pictures that are read: all that Pillow itself decodes, known by the ending of a file's name.

Not read are formats that Pillow recognises and leaves to others: EPS is handed to Ghostscript, which runs programs; WMF is
drawn by Windows; BUFR, GRIB, HDF5 and MPEG have no decoder. Of a file with several frames or pages, the first is read.
"""

import os
from functools import cache
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

WANTED = "images (PNG, JPEG, WebP, TIFF, GIF, or another format that Pillow reads)"
"""What to put into a folder, for messages."""

_NOT_DECODED = ("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")
_COMMON = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats, those first whose content is told at a glance."""
    Image.init()
    others = (name for name in Image.ID if name not in _COMMON + _NOT_DECODED)
    return (*(name for name in _COMMON if name in Image.OPEN), *others)


@cache
def suffixes() -> frozenset[str]:
    """Endings of the names of such files, in lower case, as .png."""
    read = {*formats(), "MPO"}  # Pillow's reader of JPEG opens MPO, JPEGs of a stereo camera
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in read)


def ending(name: str) -> str:
    """The ending of a file's name, as .png, in lower case; nothing where it has none."""
    return os.path.splitext(name)[1].lower()


def open_picture(file: Path | str | IO[bytes]) -> Image.Image:
    """Open a picture of these formats, whatever its name says; its pixels are not decoded yet.

    Raises what PIL.Image.open raises, UnidentifiedImageError for other formats.
    """
    return Image.open(file, formats=formats())


class OddPixels(ValueError):
    """Pixels that are no levels of grey or colour; the message says why, as the end of a sentence."""


def why(error: Exception) -> str:
    """Why a picture cannot be read, for people. Pillow's own words where they are words: what it does not expect in a
    damaged file comes out as Python's errors."""
    if isinstance(error, UnidentifiedImageError):
        return "its format is unknown"
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = isinstance(error, OddPixels | Image.DecompressionBombError) or type(error) in (
        OSError,
        SyntaxError,
    )
    return str(error) if said and str(error) else "it is damaged"
