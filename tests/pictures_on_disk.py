"""Small data sets in exactly the layout on disk of the large ones."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, height: int = 20, width: int = 26) -> Image.Image:
    """A smooth colour picture, another for each seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(seed: int, **size: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed, **size).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_classes(root: Path, counts: dict[str, int], first_seed: int = 0) -> list[Path]:
    """root/CLASS/i.jpg of different sizes; the files in the order of classes and numbers."""
    paths = []
    for name, count in sorted(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            paths.append(root / name / f"{i}.jpg")
            seed = first_seed + len(paths)
            paths[-1].write_bytes(jpeg(seed, height=14 + seed % 7, width=18 + seed % 5))
    return paths


def write_shard(path: Path, samples: list[tuple[str, dict[str, bytes]]]) -> None:
    """A tar file of samples: name, and content by ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, files in samples:
            for ending, content in files.items():
                entry = tarfile.TarInfo(f"{name}.{ending}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def imagenet_samples(count: int, first_seed: int, classes: int = 3) -> list[tuple[str, dict[str, bytes]]]:
    """Samples as in ImageNet's usual shards: NAME.jpg, NAME.cls, NAME.json."""
    return [
        (
            f"n{i % classes:08d}_{seed}",
            {"jpg": jpeg(seed), "cls": str(i % classes).encode(), "json": b'{"label": "x"}'},
        )
        for i, seed in enumerate(range(first_seed, first_seed + count))
    ]


def write_bin(path: Path, count: int) -> np.ndarray:
    """80 Million Tiny Images' file with `count` pictures; the pictures (count, row, column, channel)."""
    pictures = np.random.default_rng(9).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    path.write_bytes(b"".join(each.tobytes(order="F") for each in pictures))
    return pictures
