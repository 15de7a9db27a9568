"""Models, states to resume from, and other people's weights: broken, then read as the library reads them."""

import io
import json
import math
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import originals
import torch
from damage import SIZES, broken_bytes, broken_json, broken_tree, inner, one_of, words_of
from images_broken import Input

import dualat
from dualat.config import build_config
from dualat.models.import_weights.convert import import_network
from dualat.models.import_weights.settings import ImportSettings
from dualat.models.model import load
from dualat.system.files import sha256
from dualat.training.checkpoint import load_state

Header = dict[str, Any]
NETWORKS = words_of(
    "wrn-10-9999 wrn-10-200 wrn-9999994-1 wrn-0-0 wrn-4-1 timm/resnet18 timm/ convnext_tiny_cvst x wrn-10-1"
)
SHAPES = (
    [1, 8, 8],
    [3, 224, 224],
    [1, 10**6, 10**6],
    [10**9, 8, 8],
    [1, 1, 1],
    [0, 8, 8],
    [1, -8, 8],
    [1, 8, 10**20],
)


def taken_apart(content: bytes) -> tuple[Header, bytes]:
    """Header and numbers of a safetensors file."""
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put_together(header: Any, numbers: bytes) -> bytes:
    try:
        text = json.dumps(header).encode("utf-8", "surrogateescape")
    except RecursionError:
        text = b'{"__metadata__": ' + b"[" * 3000
    return struct.pack("<Q", len(text)) + text + numbers


def broken_safetensors(content: bytes, key: str, rng: random.Random) -> tuple[bytes, str]:
    """A safetensors file broken in its bytes, its header, the numbers, or in the JSON that it keeps under `key`."""
    how = rng.random()
    if how < 0.2:
        return broken_bytes(content, originals.weights(), rng)
    header, numbers = taken_apart(content)
    if how < 0.65:  # what dualat wrote itself, in a file that is whole otherwise
        inside = json.loads(header["__metadata__"][key])
        if "network" in inside and rng.random() < 0.1:
            inside["network"]["name"], inside["shape"] = rng.choice(NETWORKS), rng.choice(SHAPES)
            header["__metadata__"][key] = json.dumps(inside)
            return put_together(header, numbers), f"{inside['network']['name']} for {inside['shape']}"
        if rng.random() < 0.7:
            odd, words = broken_tree(inside, rng)
            header["__metadata__"][key] = flat(odd)
        else:
            text, words = broken_json(inside, rng)
            header["__metadata__"][key] = text.decode("utf-8", "replace")
        return put_together(header, numbers), f"{key}: {words}"
    if how < 0.75:
        what = one_of("length more less random nan", rng)
        if what == "length":
            return struct.pack("<Q", rng.choice(SIZES)) + content[8:], "length of the header"
        numbers = {
            "more": numbers + b"x",
            "less": numbers[:-8],
            "random": rng.randbytes(len(numbers)),
            "nan": b"\xff" * len(numbers),
        }[what]
        return put_together(header, numbers), f"numbers: {what}"
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    entry = header[name]
    what = one_of("dtype shape offsets name lost new tree same", rng)
    if what == "dtype":
        entry["dtype"] = rng.choice(("F64", "F16", "I8", "BF16", "X", "", "BOOL", "F8_E4M3", 3, "I64", "C64"))
    elif what == "shape":
        entry["shape"] = rng.choice(
            ([], [-1], [2**62, 4], [0], entry["shape"][::-1], ["a"], [1, *entry["shape"]], None)
        )
    elif what == "offsets":
        entry["data_offsets"] = rng.choice(
            ([0, 8], [8, 0], [0, 2**63], entry["data_offsets"][::-1], [-1, 4], [0])
        )
    elif what == "name":
        new = rng.choice(
            (
                "weights.",
                "initial.",
                "",
                ".",
                "initial.x",
                name + "x",
                "\u202e",
                "a\nb",
                "model",
                "optimizer.x.y",
            )
        )
        header[new] = header.pop(name)
    elif what == "lost":
        gone = header.pop(name)
        numbers, header = without(numbers, gone["data_offsets"], header)
    elif what == "new":
        end = len(numbers)
        header[one_of("weights.new initial.new new optimizer.0.x optimizer.z ema.new", rng)] = {
            "dtype": "F32",
            "shape": [1],
            "data_offsets": [end, end + 4],
        }
        numbers += bytes(4)
    elif what == "same":
        entry["data_offsets"] = header[rng.choice(names)]["data_offsets"]
    else:
        header, words = broken_tree(header, rng)
        return put_together(header, numbers), f"header: {words}"
    return put_together(header, numbers), f"{what} of {name}"


def flat(value: Any) -> str:
    """JSON, of a very deep value too."""
    try:
        return json.dumps(value)
    except RecursionError:
        return "[" * 3000 + "]" * 3000


def without(numbers: bytes, gone: list[int], header: Header) -> tuple[bytes, Header]:
    """The file without a stretch, everything behind it moved up."""
    start, end = gone
    for name, entry in header.items():
        if name != "__metadata__" and entry["data_offsets"][0] >= end:
            entry["data_offsets"] = [at - (end - start) for at in entry["data_offsets"]]
    return numbers[:start] + numbers[end:], header


def model(rng: random.Random, place: Path) -> Input:
    content, words = broken_safetensors(originals.model_file(), "dualat", rng)
    path = place / "model.safetensors"
    path.write_bytes(content)

    def read() -> object:
        found = load(path)
        if math.prod(found.shape) > 10**6:
            return None
        images = torch.zeros(1, *found.shape)
        labels = torch.zeros(1, dtype=torch.int64)
        start = found.initial.sample(1, labels, torch.Generator().manual_seed(0)) if found.initial else None
        return found(images), start

    return words, read


def write_run(place: Path) -> None:
    """The finished run's files below `place`."""
    for name, content in originals.run_files().items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)


def broken_state(rng: random.Random, place: Path) -> str:
    """A run folder whose state, list of states, or both are broken; a broken state has its right checksum in the list."""
    write_run(place)
    path, index = place / originals.state_name(), place / "checkpoints" / "latest.json"
    words = ""
    if rng.random() < 0.8:
        content, words = broken_safetensors(path.read_bytes(), "state", rng)
        path.write_bytes(content)
        entries = [{"file": path.name, "sha256": sha256(path) if rng.random() < 0.95 else "0" * 64}]
        index.write_text(json.dumps({"generations": entries}))
    if not words or rng.random() < 0.1:
        listed, what = broken_json(json.loads(index.read_text()), rng)
        index.write_bytes(listed)
        words += f" latest.json: {what}"
    return words


def state(rng: random.Random, place: Path) -> Input:
    words = broken_state(rng, place)
    return words, lambda: load_state(place / "checkpoints")


def resume(rng: random.Random, place: Path) -> Input:
    place = place.parent / "out"  # the run folder is where training writes
    words = broken_state(rng, place)
    if rng.random() < 0.3:
        name = rng.choice(("metrics.jsonl", "outcome.json", "evaluation.json", "config.yaml"))
        (place / name).write_bytes(content := broken_bytes((place / name).read_bytes(), (), rng)[0])
        words += f" {name} of {len(content)} bytes"
    config = build_config(originals.RECIPE | {"output": str(place)})
    return words, lambda: dualat.train(config, resume=True)


OPCODES = b"(.012FIJKLMNPQRSTUVXabcdeghijlopqrst}]u)G\x80\x81\x82\x85\x86\x87\x88\x8a\x8c\x8f\x90\x91\x92\x93\x94\x95"


def broken_pickle(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A pickle with bytes exchanged for opcodes."""
    whole, words = bytearray(content), []
    for _ in range(rng.randint(1, 5)):
        place = rng.randrange(len(whole))
        whole[place] = rng.choice(OPCODES)
        words.append(f"{chr(whole[place])!r} at {place}")
    content = bytes(whole)
    if rng.random() < 0.5:
        content, more = broken_bytes(content, (), rng)
        words.append(more)
    return content, ", ".join(words)


def foreign(rng: random.Random, place: Path) -> Input:
    """Somebody's weights; of most, the pickle alone is broken, so that checksums and weights are right around it."""
    number = rng.randrange(len(originals.weights()) + 2)
    path = place / "w.pt"
    if number >= len(originals.weights()):
        header, numbers = taken_apart(originals.model_file())
        header = {n.removeprefix("weights."): e for n, e in header.items() if n.startswith("weights.")}
        content = put_together({"__metadata__": {"a": "{}"}, **header}, numbers)
        content, words = broken_safetensors(content, "a", rng)
    else:
        content, words = broken_weights(originals.weights()[number], rng)
    path.write_bytes(content)
    settings = ImportSettings(
        normalize=rng.choice(("none", "none", None)), image_size=rng.choice((8, 8, None))
    )

    def read() -> object:
        network = import_network(path, settings).network
        assert all(torch.isfinite(v).all() for v in network.state_dict().values()), (
            "weights that are no numbers"
        )
        return network

    return f"file {number}: {words}", read


def broken_weights(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    if rng.random() < 0.3:
        return broken_bytes(content, originals.weights(), rng)
    if not content.startswith(b"PK"):
        size = min(len(content), rng.choice([300, 3_000, 10_000]))
        head, words = broken_pickle(content[:size], rng)
        return head + content[size:], words
    stream, words = io.BytesIO(), ""
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            raw = old.read(name)
            if name.endswith("data.pkl"):
                raw, words = broken_pickle(raw, rng)
            new.writestr(zipfile.ZipInfo(name), raw)
    return stream.getvalue(), words


__all__ = ["foreign", "inner", "model", "resume", "state"]
