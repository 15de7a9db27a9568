"""What recipes need, small and in the layout on disk that they name; and the commands in their comments."""

import pickle
import shlex
import struct
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from pictures_on_disk import jpeg, write_bin

from dualat.config import RunConfig
from dualat.data.names import write_positions
from dualat.methods.registry import METHODS
from dualat.recipes.reading import recipe_text

CLASSES = {
    "cifar10": ("airplane", "automobile"),
    "cifar100": ("apple", "aquarium_fish"),
    "imagenet": ("n01440764", "n01443537"),
}
"""Two of each data set, so that sample grids are small."""


def write_data(root: Path) -> None:
    """root/data with a few pictures of every data set that a recipe, or a command in its comments, names."""
    data = root / "data"
    write_cifar(data)
    write_imagenet(data)
    write_fashion_mnist(data / "FashionMNIST" / "raw")
    (data / "openimages").mkdir()
    for seed in range(12):
        (data / "openimages" / f"{seed:016x}.jpg").write_bytes(jpeg(seed, height=70, width=80))
    (data / "openimages-train.txt").write_text("".join(f"{seed:016x}\n" for seed in range(8)))
    write_bin(data / "tiny_images.bin", 20)
    write_positions(data / "cifar.txt", np.array([3, 7]))
    np.save(data / "300K_random_images.npy", bytes_of(2, 20, 32, 32, 3))


def bytes_of(seed: int, *shape: int) -> np.ndarray:
    """Random bytes."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_cifar(data: Path) -> None:
    """The Python version of CIFAR-10 and CIFAR-100: pickled batches of 12 pictures to learn from and 4 to test on."""
    layouts = (
        (
            "cifar10",
            "cifar-10-batches-py",
            [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"],
            "batches.meta",
            "",
        ),
        ("cifar100", "cifar-100-python", ["train", "test"], "meta", "fine_"),
    )
    for source, place, files, meta, kind in layouts:
        folder = data / place
        folder.mkdir(parents=True)
        for seed, file in enumerate(files):
            count = 4 if file.startswith("test") else 12
            labels = [i % len(CLASSES[source]) for i in range(count)]
            batch = {"data": bytes_of(seed, count, 3072), f"{kind}labels" if kind else "labels": labels}
            (folder / file).write_bytes(pickle.dumps(batch, 2))
        names = {f"{kind}label_names": list(CLASSES[source])}
        (folder / meta).write_bytes(pickle.dumps(names, 2))


def write_imagenet(data: Path) -> None:
    """train/ and val/ with a folder for each class, and a list of test images as RobustBench has it."""
    listed = []
    for k, name in enumerate(CLASSES["imagenet"]):
        for split, count in (("train", 12), ("val", 5)):
            (data / "imagenet" / split / name).mkdir(parents=True)
            for i in range(count):
                file = f"{name}_{i}.JPEG" if split == "train" else f"ILSVRC2012_val_{100 * k + i:08d}.JPEG"
                (data / "imagenet" / split / name / file).write_bytes(
                    jpeg(50 * k + i, height=80 + i, width=90 - i)
                )
                listed += [f"{name}/{file}"] if split == "val" and i else []
    (data / "imagenet_test_image_ids.txt").write_text("\n".join(listed) + "\n")


def write_fashion_mnist(folder: Path, count: int = 40) -> None:
    """Fashion-MNIST's four IDX files."""
    folder.mkdir(parents=True)
    for seed, part in enumerate(("train", "t10k")):
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (
            ("images-idx3", bytes_of(seed, count, 28, 28)),
            ("labels-idx1", labels),
        ):
            header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{part}-{name}-ubyte").write_bytes(header + array.tobytes())


def value_at(config: RunConfig, name: str) -> Any:
    """A setting by the dotted name that a recipe in short has for it; a group's as the last stage that has it does."""
    head, _, rest = name.partition(".")
    if head == "stages":
        return "both" if min(config.stages) == 1 else str(min(config.stages))
    if head.removeprefix("stage").isdigit():
        return reduce(getattr, rest.split("."), config.stages[int(head.removeprefix("stage"))])
    methods = [s.method for _, s in sorted(config.stages.items()) if METHODS[s.method.name].knows(name)]
    return reduce(getattr, name.split("."), methods[-1] if methods else config)


def header(name: str) -> list[str]:
    """The comment that a recipe begins with, line by line, without its #."""
    lines = []
    for line in recipe_text(name).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].removeprefix(" "))
    return lines


def commands(name: str) -> list[list[str]]:
    """The dualat commands in a recipe's comment, indented there, as arguments after `dualat`."""
    text = "\n".join(header(name)).replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("  dualat ")]
