"""Image files decoded: turned upright, converted to grey or colour, resized, cut to the centre."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from dualat.data.formats import OddPixels, open_picture, why
from dualat.data.pictures import Shape, cover_size, is_long

_AT_A_TIME = 2**22  # pixels


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
            ImageOps.exif_transpose(opened, in_place=True)
            image = _to_mode(opened, "L" if channels == 1 else "RGB")
    except MemoryError:
        raise
    except Exception as error:  # PIL's readers raise whatever a damaged file makes them raise
        raise BadImage(f"{name} cannot be read as an image ({why(error)})") from error
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
        raise OddPixels("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):  # PIL would clip 16-bit grey at 255
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise OddPixels("its pixels are integers beyond 16 bits")
        values = values.astype(np.uint32)
        values += 128
        values //= 257  # round(v / 257); no v is half way
        image = Image.fromarray(values.astype(np.uint8))
    if image.has_transparency_data:
        image = _on_white(image)
    return image if image.mode == mode else image.convert(mode)


def _on_white(image: Image.Image) -> Image.Image:
    """The picture laid on white, some rows at a time: whole, a large one would be in memory four times."""
    result = Image.new("RGB", image.size)
    rows = max(1, _AT_A_TIME // image.width)
    for top in range(0, image.height, rows):
        part = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        result.paste(
            Image.alpha_composite(Image.new("RGBA", part.size, "white"), part).convert("RGB"), (0, top)
        )
    return result
