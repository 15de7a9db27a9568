"""Arrays in NumPy's files, Tiny Images, IDX and CIFAR files: broken, then read as the library reads them."""

import io
import pickle
import random
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import originals
import torch
from damage import ODD_NAMES, ODD_VALUES, SIZES, broken_bytes, broken_tree
from images_broken import SHAPES, Input, add

from dualat.data.cifar import load_cifar
from dualat.data.fashion import load_fashion_mnist
from dualat.data.in_distribution import open_pictures
from dualat.data.registry import SOURCES
from dualat.data.shards import read_index
from dualat.evaluation.reference import read_reference
from dualat.evaluation.samples import read_samples


def odd_array(rng: random.Random) -> np.ndarray:
    """An array of a kind or shape that pictures do not have."""
    shape = rng.choice(
        (
            (2, 4, 4, 3),
            (2, 4, 4, 1),
            (2, 4, 4),
            (0, 4, 4, 3),
            (2, 0, 4, 3),
            (),
            (3,),
            (1,) * 12,
            (2, 4, 4, 4),
            (2, 2),
        )
    )
    kind = rng.choice(
        (
            "u1",
            "<f4",
            ">f8",
            "i1",
            "u2",
            "?",
            "c8",
            "U3",
            "S2",
            "O",
            "M8[s]",
            "V3",
            "f2",
            "g",
            "i8",
            "u8",
            [("a", "u1")],
        )
    )
    array = np.zeros(shape, dtype=kind)
    if array.dtype.kind in "fc" and array.size:
        array.flat[0] = rng.choice((np.nan, np.inf, 1.0, -1.0, 6e4))
    return np.asfortranarray(array) if rng.random() < 0.2 else array


def claimed(shape: Any, kind: str = "|u1", fortran: Any = False, version: tuple[int, int] = (1, 0)) -> bytes:
    """An .npy file of eight bytes whose header claims what it is told to."""
    header = (
        repr({"descr": kind, "fortran_order": fortran, "shape": shape})
        if not isinstance(shape, str)
        else shape
    )
    text = header.encode("latin-1", "replace").ljust(117) + b"\n"
    return (
        b"\x93NUMPY"
        + bytes(version)
        + struct.pack("<H" if version[0] == 1 else "<I", len(text))
        + text
        + bytes(8)
    )


CLAIMS: tuple[Any, ...] = (
    *(
        (2**40,),
        (2**62, 4, 4, 3),
        (-1, 4, 4, 3),
        (10**30,),
        (3000, 1000, 1000, 3),
        (2**33, 1, 1, 1),
        (0, 2**62, 4, 3),
        "{}",
    ),
    *(
        "[" * 200,
        "{'descr': 1}",
        "nan",
        "(" * 100 + ")" * 100,
        "{'descr':'|u1','fortran_order':0,'shape':(1,'a')}",
        "x = 1",
    ),
)


def odd_npy(rng: random.Random) -> tuple[bytes, str]:
    how = rng.random()
    if how < 0.35:
        claim, kind = rng.choice(CLAIMS), rng.choice(("|u1", "|O", "<f8", "<U9999999", "x", "", "|V0"))
        version = rng.choice(((1, 0), (1, 0), (2, 0), (3, 0), (9, 0)))
        return claimed(claim, kind, rng.choice((False, True, 1)), version), f"claims {claim!r:.60} of {kind}"
    if how < 0.65:
        array = odd_array(rng)
        return originals.npy(array), f"{array.dtype} of shape {array.shape}"
    return broken_bytes(originals.arrays()["pictures.npy"], list(originals.arrays().values()), rng)


def odd_npz(rng: random.Random, names: tuple[str, ...], base: bytes) -> tuple[bytes, str]:
    """An .npz with odd members, or odd arrays under right names, or broken bytes."""
    how = rng.random()
    if how < 0.35:
        return broken_bytes(base, list(originals.arrays().values()), rng)
    with zipfile.ZipFile(io.BytesIO(base)) as archive:
        members = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
    words = []
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice((*names, *names, *names, "x", rng.choice(ODD_NAMES) or "y"))
        if rng.random() < 0.15 and name in members:
            del members[name]
            words.append(f"no {name}")
        else:
            members[name], what = odd_npy(rng)
            words.append(f"{name!r:.20} {what}")
    stream = io.BytesIO()
    with zipfile.ZipFile(
        stream, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    ) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
        if rng.random() < 0.1:
            archive.writestr(rng.choice(("notes.txt", "arr_0", "a/", "../x.npy")), b"x")
    content = stream.getvalue()
    if rng.random() < 0.15:
        content, what = broken_bytes(content[::-1], (), rng)  # the table of contents is at the end
        content, words = content[::-1], [*words, f"from the end: {what}"]
    return content, ", ".join(words)


def array_file(rng: random.Random, *names: str) -> bytes:
    return originals.arrays()[rng.choice(names)]


def samples(rng: random.Random, place: Path) -> Input:
    content, words = odd_npz(rng, ("arr_0", "arr_1"), array_file(rng, "samples.npz", "packed.npz"))
    path = place / "samples.npz"
    path.write_bytes(content)
    wanted, shape = rng.choice((None, None, 3, 0, 10**9)), rng.choice((None, None, (1, 8, 8), (3, 6, 6)))
    return words, lambda: read_samples(path, wanted, shape).content


def statistics(rng: random.Random, place: Path) -> Input:
    content, words = odd_npz(rng, ("mu", "sigma"), array_file(rng, "statistics.npz", "both.npz"))
    path = place / "reference.npz"
    path.write_bytes(content)
    shape = rng.choice((None, (1, 8, 8)))

    def read() -> object:
        found = read_reference(path, shape)
        return found.settings(statistics=found.statistics is not None)

    return words, read


def array(rng: random.Random, place: Path) -> Input:
    how = rng.random()
    if how < 0.2:
        path, words = place / "tiny.bin", "of Tiny Images"
        count = rng.choice((0, 1, 3072, 3073, 3072 * 4, 3072 * 4))
        path.write_bytes(bytes(count))
        words = f"{count} bytes"
    elif how < 0.6:
        path = place / "a.npy"
        content, words = odd_npy(rng)
        path.write_bytes(content)
    else:
        path = place / "a.npz"
        content, words = odd_npz(rng, ("arr_0", "a"), array_file(rng, "samples.npz", "packed.npz"))
        path.write_bytes(content)
    lists: tuple[str, ...] = ()
    if rng.random() < 0.3:
        (place / "list.txt").write_text(
            rng.choice(("# zero-based\n0\n", "0\n1\n2\n3\n4\n5\n", "1e3\n", "9" * 30, "", "٣\n", "1_0\n"))
        )
        lists = (rng.choice(("", "zero-based:", "one-based:", "two-based:")) + str(place / "list.txt"),)
    shape = rng.choice(SHAPES)

    def read() -> object:
        found = open_pictures(str(path), None, shape, (), lists)
        return found if isinstance(found, torch.Tensor) else found.gather(torch.arange(min(2, len(found))))

    return words, read


def index(rng: random.Random, place: Path) -> Input:
    """A whole shard whose index is broken: it is made anew without a word."""
    shard = place / "0.tar"
    with tarfile.open(shard, "w") as tar:
        for i in range(3):
            add(tar, f"{i}.png", originals.pictures()["rgb.png"])
    read_index(shard)
    kept = place / ".dualat-index" / "0.tar.npz"
    with np.load(kept) as whole:
        arrays = dict(whole)
    content, words = odd_npz(rng, tuple(arrays), originals.npz(**arrays))
    kept.write_bytes(content)

    def read() -> None:
        found, _ = read_index(shard)
        assert len(found) == len(found.labels) == 3, "an index that is not of this shard"

    return words, read


def idx(rng: random.Random, place: Path) -> Input:
    files = dict(originals.idx())
    name = rng.choice(list(files))
    files[name], words = broken_bytes(files[name], list(files.values()), rng)
    if rng.random() < 0.3:
        sizes = [rng.choice(SIZES) % 2**32 for _ in range(3)]
        kind = rng.choice((0x803, 0x801, 0x800, 0xD03, 0x8FF))
        files[name], words = struct.pack(">4I", kind, *sizes), f"header {kind:x} {sizes}"
    for path, content in files.items():
        (place / path).write_bytes(content)
    return f"{name}: {words}", lambda: load_fashion_mnist(SOURCES["fashion-mnist"], str(place), False)


def cifar(rng: random.Random, place: Path) -> Input:
    source, folder_name = rng.choice((("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")))
    base = place / folder_name
    base.mkdir()
    batch, label = originals.cifar_batch(), "labels" if source == "cifar10" else "fine_labels"
    batch[label] = batch.pop("labels")
    named = {f"{label[:-1]}_names": [f"c{k}" for k in range(3)]}
    files = (
        [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
        if source == "cifar10"
        else ["train", "test"]
    )
    meta = "batches.meta" if source == "cifar10" else "meta"
    protocol = rng.choice((0, 2, 2, 4, 5))
    whole = {**{name: batch for name in files}, meta: named}
    broken = rng.choice([*whole, meta])
    how, words = rng.random(), ""
    content = pickle.dumps(whole[broken], protocol)
    if how < 0.5:
        odd = dict(whole[broken])
        if how < 0.25 and "data" in odd:
            odd["data"] = odd_array(rng)
            words = f"data {odd['data'].dtype} of {odd['data'].shape}"
        else:
            plain = {k: v for k, v in odd.items() if not isinstance(v, np.ndarray)}
            changed, words = broken_tree(plain, rng)
            odd = odd | changed if isinstance(changed, dict) else changed
        try:
            content = pickle.dumps(odd, protocol)
        except (pickle.PicklingError, RecursionError, TypeError):
            content, words = pickle.dumps(rng.choice(ODD_VALUES[:20])(), protocol), "another value"
    elif how < 0.6:
        content, words = rng.choice(HOSTILE_PICKLES), "hostile"
    else:
        content, words = broken_bytes(content, [pickle.dumps(batch, 0)], rng)
    for name, value in whole.items():
        (base / name).write_bytes(content if name == broken else pickle.dumps(value, protocol))
    return f"{broken}: {words}", lambda: load_cifar(SOURCES[source], str(place), False)


HOSTILE_PICKLES = (
    b"cos\nsystem\n(S'touch hacked'\ntR.",
    b"cnumpy\nndarray\n((I4611686018427387904\nttR.",
    b"cnumpy\nndarray\n((I1099511627776\nttR.",
    b"cnumpy\ndtype\n(S'" + b"O" * 2 + b"'\ntR.",
    b"(l" + b"(l" * 20_000 + b".",
    b"]" + b"]a" * 3000 + b".",
    b"X\xff\xff\xff\x7fabc.",
    b"\x8e" + b"\xff" * 8 + b".",
    b"\x80\x05\x95" + b"\xff" * 8 + b".",
    b"I" + b"9" * 5000 + b"\n.",
    b"r\xff\xff\xff\x7f.",
    b"Nr\xff\xff\xff\x7f.",
    b"]q\x00h\x00a.",
)
