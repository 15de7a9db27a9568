"""Pictures, folders and shards of them, arrays, IDX and CIFAR files: broken, then read as the library reads them."""

import io
import os
import random
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import originals
import torch
from damage import ODD_NAMES, broken_bytes, one_of

from dualat.data.check import check_images
from dualat.data.folder import read_image
from dualat.data.in_distribution import load_images, load_splits, open_pictures
from dualat.data.settings import DataSettings
from dualat.evaluation.read_images import natural_shape
from dualat.evaluation.reference import read_reference
from dualat.evaluation.samples import read_samples

Input = tuple[str, Callable[[], object]]
"""Words for what was done, and what reads it."""
SHAPES = ((1, 8, 8), (3, 8, 8), (3, 16, 5), (1, 1, 1), (3, 64, 64))


def one_picture(rng: random.Random) -> tuple[str, bytes, str]:
    """Name, content and what was done to it."""
    made = originals.pictures()
    name = rng.choice(list(made))
    how = rng.random()
    if how < 0.003:
        depth, colour = rng.choice(((8, 0), (16, 0), (8, 2), (8, 6)))
        return (
            "bomb.png",
            originals.bomb(depth, colour),
            f"170 million pixels of {depth} bits, colour {colour}",
        )
    if how < 0.1:
        size = rng.choice((0, 1, 9, 60_000, 2**31 - 1, -1)), rng.choice((0, 1, 9, 4000, 2**31 - 1, 2**31))
        depth, colour = rng.choice((1, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 9))
        return (
            "header.png",
            originals.png(*size, depth, colour, made["grey.png"][41:-12]),
            f"header {size} {depth} {colour}",
        )
    content, words = broken_bytes(made[name], list(made.values()), rng)
    if how < 0.2:
        name = name.rpartition(".")[0] + one_of(".png .JPG .tif .bmp .webp", rng)
    return name, content, f"{name}: {words}"


def picture(rng: random.Random, place: Path) -> Input:
    name, content, words = one_picture(rng)
    path = place / name
    path.write_bytes(content)
    shape = rng.choice(SHAPES)
    if rng.random() < 0.25:
        return words, lambda: natural_shape(path)
    return words, lambda: read_image(path, shape)


def odd_entry(folder: Path, rng: random.Random) -> str:
    """Something in a folder of pictures that nobody expects there."""
    what = one_of("broken broken name empty loop link folder fifo hidden text dead deep", rng)
    whole = originals.pictures()["rgb.png"]
    if what == "broken":
        name, content, words = one_picture(rng)
        (folder / name).write_bytes(content)
        return words
    name = rng.choice([n for n in ODD_NAMES if n not in ("", ".", "..")])
    if what == "name":
        (folder / f"{name}.png").write_bytes(whole)
    elif what == "empty":
        (folder / f"{name}.png").write_bytes(b"")
    elif what == "loop":
        (folder / "loop").symlink_to(folder)
    elif what == "link":
        (folder / "link.png").symlink_to(rng.choice((folder, "link.png", "../0.png", "/dev/zero")))
    elif what == "dead":
        (folder / "dead.png").symlink_to(folder / "nowhere.png")
    elif what == "folder":
        (folder / "x.png").mkdir(exist_ok=True)
    elif what == "fifo":
        os.mkfifo(folder / "pipe.png")
    elif what == "hidden":
        (folder / "._a.png").write_bytes(b"Mac OS X")
    elif what == "deep":
        deep = folder / "/".join(["d"] * 40)
        deep.mkdir(parents=True)
        (deep / "a.png").write_bytes(whole)
    else:
        (folder / "notes.txt").write_text("x")
    return f"{what} {name!r:.20}"


def class_folders(place: Path, rng: random.Random) -> str:
    """place/CLASS/i.png, sometimes in train/, val/ and test/, with one to three oddities."""
    parts = rng.choice(((".",), (".",), ("train", "val", "test"), ("train", "test"), ("test",), ("train",)))
    classes = rng.choice(
        (("a", "b"), ("a", "b"), ("a",), ("0", "1", "10"), ("a", rng.choice(ODD_NAMES[7:])), ())
    )
    count = rng.choice((3, 3, 4, 1, 0))
    for part in parts:
        for k, name in enumerate(classes):
            (place / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                (place / part / name / f"{i}.png").write_bytes(
                    originals.pictures()[("rgb.png", "grey.png")[k % 2]]
                )
    folders = [p for p in place.rglob("*") if p.is_dir()] + [place]
    words = []
    for folder in rng.sample(folders, min(len(folders), rng.choice((0, 1, 1, 2)))):
        try:
            words.append(odd_entry(folder, rng))
        except FileExistsError:
            continue
    return f"{'+'.join(parts)}: {len(classes)} classes of {count}; {', '.join(words)}"


def read_somehow(source: str, place: Path, rng: random.Random) -> Callable[[], object]:
    """One of the readers that take a folder, or shards."""
    size, shape = rng.choice((1, 8, 20)), rng.choice(SHAPES)
    settings = DataSettings(
        source=source,
        image_size=size,
        channels=rng.choice((None, 1, 3)),
        on_bad_image=rng.choice(("refuse", "skip")),
        memory_gib=rng.choice((8.0, 8.0, 0.0)),
        workers=rng.choice((None, 0, 1)),
        val_as=rng.choice(("validation", "validation", "test")),
        test_resize=rng.choice((None, None, 32)),
    )

    def splits() -> object:
        found = load_splits(settings)
        return found.train.pixels(torch.arange(min(2, len(found.train)))), found.test.content

    resize = rng.choice((None, shape))
    readers: dict[str, Callable[[], object]] = {
        "splits": splits,
        "images": lambda: load_images(source, None, shape),
        "start": lambda: open_pictures(source, None, shape),
        "check": lambda: check_images(source, place.parent / "out" / "bad.txt", 1),
        "samples": lambda: read_samples(source).content,
        "reference": lambda: read_reference(source, resize),
    }
    return readers[rng.choice(("splits", "splits", *readers))]


def folder(rng: random.Random, place: Path) -> Input:
    words = class_folders(place, rng)
    return words, read_somehow(str(place), place, rng)


def shards(rng: random.Random, place: Path) -> Input:
    """Tar files with odd members, or whole ones whose bytes are broken."""
    words = []
    for shard in range(rng.choice((1, 1, 2))):
        path = place / rng.choice((f"{shard}.tar", f"train-{shard}.tar", f"val-{shard}.tar"))
        with tarfile.open(
            path, "w", format=rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
        ) as tar:
            for i in range(rng.choice((6, 6, 3, 0))):
                add(tar, f"{i}.png", originals.pictures()["rgb.png"])
                add(tar, f"{i}.cls", str(i % 2).encode())
            if rng.random() < 0.6:
                words.append(odd_member(tar, rng))
        if rng.random() < 0.5:
            content, what = broken_bytes(path.read_bytes(), list(originals.pictures().values()), rng)
            path.write_bytes(content)
            words.append(what)
    if rng.random() < 0.1:
        (place / "classnames.txt").write_bytes(
            rng.choice((b"", b"a\nb\n", b"a", b"\xff\xfe", b"a\na\n", b"#\n\n", b"a\x1b\nb\n"))
        )
        words.append("classnames.txt")
    source = rng.choice((str(place), f"{place}/*.tar", f"{place}/0.tar"))
    return ", ".join(words), read_somehow(source, place, rng)


def add(tar: tarfile.TarFile, name: str, content: bytes, **fields: Any) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for key, value in fields.items():
        setattr(entry, key, value)
    tar.addfile(entry, io.BytesIO(content))


def odd_member(tar: tarfile.TarFile, rng: random.Random) -> str:
    what = one_of("name class class type picture twice size lonely pax", rng)
    name, whole = rng.choice(ODD_NAMES).replace("/", "_")[:90], originals.pictures()["rgb.png"]
    try:
        if what == "name":
            name = rng.choice(
                (name, f"../../{name}", f"/x/{name}", "é" * 40, "\udcff", "a/" * 40 + "b", ".png", "a..png")
            )
            add(tar, f"{name}.png", whole)
            add(tar, f"{name}.cls", b"0")
        elif what == "class":
            name = repr(
                value := rng.choice(
                    (
                        b"",
                        b"-1",
                        b"x",
                        b"\xff",
                        b"1" * 40,
                        "²".encode(),
                        "٣".encode(),
                        b"9" * 7,
                        b"999999",
                        b" 1\n",
                        b"1.0",
                    )
                )
            )
            add(tar, "odd.png", whole)
            add(tar, "odd.cls", value)
        elif what == "type":
            kind = rng.choice(
                (
                    tarfile.SYMTYPE,
                    tarfile.LNKTYPE,
                    tarfile.DIRTYPE,
                    tarfile.FIFOTYPE,
                    tarfile.CHRTYPE,
                    b"S",
                    b"x",
                    b"g",
                )
            )
            entry = tarfile.TarInfo("odd.png")
            entry.type, entry.linkname = kind, rng.choice(("/x/y", "odd.png", "0.png", "../x"))
            tar.addfile(entry)
        elif what == "picture":
            _, content, name = one_picture(rng)
            add(tar, "odd.png", content)
            add(tar, "odd.cls", b"0")
        elif what == "twice":
            add(tar, "0.png", whole)
        elif what == "size":
            entry = tarfile.TarInfo("odd.png")
            entry.size = rng.choice((10**6, 8**11 - 1, 8**11))
            tar.addfile(entry)
        elif what == "lonely":
            add(tar, "lonely.cls", b"1")
        else:
            headers = rng.choice(
                (
                    {"path": name or "x"},
                    {"size": "x"},
                    {"size": "-5"},
                    {"mtime": "nan"},
                    {"GNU.sparse.size": "x"},
                )
            )
            add(tar, "odd.png", whole, pax_headers=headers)
    except (ValueError, UnicodeError, struct.error):  # this layout of tar cannot say it
        return f"{what}: not written"
    return f"{what} {name!r:.40}"
