"""PNG files for people: grids of images, and strips that explain a counterfactual."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from dualat.system.files import atomic_path


def to_uint8(x: Tensor) -> np.ndarray:
    """Images (N, C, H, W) in [0, 1] -> uint8 (N, H, W, C), rounded (truncating would darken them)."""
    return (x.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def grid(x: Tensor, columns: int, gap: int = 1, smallest: int = 40) -> Image.Image:
    """Images (N, C, H, W) in [0, 1] in rows of `columns`, enlarged by whole factors to at least `smallest` pixels."""
    images = to_uint8(x)
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 128, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    picture = Image.fromarray(canvas.squeeze(-1) if channels == 1 else canvas)
    factor = max(1, -(-smallest // height))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def save_picture(picture: Image.Image, path: Path | str) -> None:
    """Write a PNG atomically. ValueError: the name says that it is something else."""
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path} must end in .png, as it is written as PNG.")
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def signed_difference(before: Tensor, after: Tensor) -> Tensor:
    """(C, H, W) twice -> (3, H, W): white where nothing changed, red where it grew brighter, blue darker."""
    change = (after - before).mean(dim=0)
    change = change / change.abs().max().clamp_min(1e-6)
    return torch.stack([1 - change.clamp_max(0).abs(), 1 - change.abs(), 1 - change.clamp_min(0)])


def strip(columns: Sequence[Sequence[tuple[Tensor, Sequence[str]]]], side: int = 128) -> Image.Image:
    """Columns of panels, each an image (C, H, W) in [0, 1], `side` pixels wide, with lines of text below it."""
    margin, text_height = 6, 13
    lines = max(len(text) for column in columns for _, text in column)
    height = side + margin + lines * text_height
    size = (len(columns) * (side + margin) + margin, max(map(len, columns)) * height + margin)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for i, column in enumerate(columns):
        for j, (image, text) in enumerate(column):
            pixels = to_uint8(image[None].expand(-1, 3, -1, -1) if image.shape[0] == 1 else image[None])[0]
            panel = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            left, top = margin + i * (side + margin), margin + j * height
            picture.paste(panel, (left, top))
            for row, line in enumerate(text):
                draw.text((left, top + side + 2 + row * text_height), line, fill="black")
    return picture
