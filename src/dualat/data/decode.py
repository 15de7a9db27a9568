"""Image files decoded: turned upright, converted to grey or colour, resized, cut to the centre."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dualat.data.formats import open_picture
from dualat.data.images import Shape, cover_size, is_long


class BadImage(ValueError):
    """A file that cannot be read as an image; the message names it, without a full stop."""


@dataclass(frozen=True)
class View:
    """How an image file becomes an array.

    Attributes:
        shape: (C, H, W) of the array; C is 1 (grey) or 3 (colour).
        resize: shorter side in pixels that the image is resized to before H x W is cut from its centre; None: just
            enough to cover H x W.
        bicubic: resize by bicubic interpolation, else bilinear; antialiased both.
    """

    shape: Shape
    resize: int | None = None
    bicubic: bool = False

    def of_shape(self, shape: Shape) -> "View":
        """The same with another shape, resized just enough."""
        return replace(self, shape=shape, resize=None)

    @property
    def covered(self) -> tuple[int, int]:
        """Height and width that a resized image just covers."""
        _, height, width = self.shape
        if self.resize is None:
            return height, width
        larger = self.resize / min(height, width)
        return round(height * larger), round(width * larger)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image of this size is resized to."""
        return cover_size(height, width, *self.covered)


def decode_image(file: Path | str | IO[bytes], view: View, name: str) -> np.ndarray:
    """One image file as uint8 (C, H, W): upright by its EXIF tag, transparency laid on white, 16-bit grey scaled to
    8 bits, resized, cut to the centre.

    Raises:
        BadImage: the file cannot be read; the sentence calls it `name`.
    """
    channels = view.shape[0]
    try:
        with open_picture(file) as opened:
            image = _to_mode(ImageOps.exif_transpose(opened), "L" if channels == 1 else "RGB")
    except UnidentifiedImageError as error:
        raise BadImage(f"{name} cannot be read as an image (its format is unknown)") from error
    except FileNotFoundError as error:
        raise BadImage(f"{name} cannot be read as an image (it is not there)") from error
    except MemoryError:
        raise
    except Exception as error:  # PIL's readers raise whatever a damaged file makes them raise
        raise BadImage(f"{name} cannot be read as an image ({error or type(error).__name__})") from error
    array = np.asarray(_resized(image, view))
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _resized(image: Image.Image, view: View) -> Image.Image:
    """Resized, and H x W cut from the centre."""
    _, height, width = view.shape
    new_height, new_width = view.size(image.height, image.width)
    left, top = (new_width - width) // 2, (new_height - height) // 2
    method = Image.Resampling.BICUBIC if view.bicubic else Image.Resampling.BILINEAR
    if is_long(new_height, new_width, *view.covered):  # the same filter at the same places, for H x W alone
        across, down = image.width / new_width, image.height / new_height
        box = (left * across, top * down, (left + width) * across, (top + height) * down)
        return image.resize((width, height), method, box=box)
    if (new_width, new_height) != image.size:
        image = image.resize((new_width, new_height), method)
    return image.crop((left, top, left + width, top + height))


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
