"""Whole inputs, as small as they can be, that the campaign breaks. Made once per process, the same each time."""

import gzip
import io
import json
import pickle
import struct
import sys
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

TESTS = Path(__file__).parents[1]
for folder in ("", "models", "results", "campaign"):
    if str(TESTS / folder) not in sys.path:
        sys.path.append(str(TESTS / folder))

from foreign_networks import Jem, settled, small_weights  # noqa: E402
from test_report import made_up, make_run  # noqa: E402

import dualat.evaluation.judge as judges  # noqa: E402
from dualat.config import RunConfig, build_config, plain, to_yaml  # noqa: E402
from dualat.data.in_distribution import load_splits  # noqa: E402
from dualat.models.model import save_model  # noqa: E402
from dualat.run.model import new_model  # noqa: E402
from dualat.run.stages import stage_plan  # noqa: E402
from dualat.system.files import sha256  # noqa: E402
from dualat.training.checkpoint import TrainingState, save_state  # noqa: E402
from dualat.training.ema import EMA  # noqa: E402
from dualat.training.optimizer import build_optimizer  # noqa: E402

judges.fit = lambda *_: (
    None
)  # a judge that has learned nothing judges as fast as another, and is there at once

RECIPE: dict[str, Any] = {
    "method": "standard-at",
    "seed": 1,
    "device": "cpu",
    "precision": "fp32",
    "compile": "off",
    "data": {"source": "digits", "limit": 40, "test_fraction": 0.05, "validation_fraction": 0.05},
    "network": {"name": "wrn-10-1", "activation": "silu"},
    "attack": {"norm": "L2", "eps": 0.5, "steps": 1, "step_size": 0.6},
    "initial": {"kind": "gaussian", "rank": 2},
    "robust_augment": {"kind": "none"},
    "energy_augment": {"kind": "none"},
    "stage1": {"epochs": None, "steps": 1, "batch_size": 8, "evaluate_every": 1, "optimizer": {"lr": 0.01}},
    "sampling": {"steps": 1, "step_size": 0.2},
    "evaluation": {"eps": [0.5], "validation_eps": 0.5, "steps": 1, "samples": 20, "robust_images": 4}
    | {"validation_images": 4, "validation_samples": 20},
    "tracking": {"trackers": []},
}
"""Trains one step on 40 digits."""
STUDY: dict[str, Any] = {
    "title": "Tiny",
    "base": RECIPE,
    "variants": {"at": None, "jem": {"method": "jem", "stage1": {"freeze_batchnorm": True}}},
    "seeds": [0, 1],
    "samplers": [{"steps": 1, "step_size": 0.1}, {"steps": 2, "step_size": 0.3}],
    "own_samplers": {"jem": {"steps": 1, "step_size": 0.2, "noise": 0.01}},
    "metrics": ["clean_accuracy", "robust_accuracy"],
    "evaluation": {"eps": [0.1], "robust_images": 20},
}
BENCHMARK: dict[str, Any] = {
    "settings": {
        "network": "wrn-28-2",
        "channels": 3,
        "image_size": 32,
        "batch_size": 64,
        "steps": 10,
        "attack_steps": 10,
    },
    "hardware": {"device": "a CPU", "threads": 2},
    "forward_gflop_per_image": 1.5,
    "tasks": {
        "train_step": {f"dualat {p}": {"images_per_second": 9.0} for p in ("fp32", "bf16", "bf16 compiled")}
    },
    "fell_back_to_eager": ["dualat bf16 compiled"],
}
LISTS = {
    "names": "# names\nthree/0.png\nthree/1.png\neight/0\n0\n",
    "positions": "# zero-based positions of images\n0\n1\n3\n",
    "numbers": "1\n2\n3\n",
    "sums": "d41d8cd98f00b204e9800998ecf8427e  empty\nSHA256 (x) = " + "0" * 64 + "\n",
    "descriptions": "LabelName,DisplayName\n/m/01,Dog\n/m/02,Tree\n/m/03,Cat\n",
    "annotations": "ImageID,Source,LabelName,Confidence\na,verification,/m/01,1\nb,verification,/m/02,1\nc,x,/m/03,0\n",
    "classes": "n01440764 tench, Tinca tinca\ndog\n",
}


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@cache
def pictures() -> dict[str, bytes]:
    """Small pictures in many formats and modes, by name with its suffix."""
    colour, grey = Image.fromarray(pixels(7, 9, 3)), Image.fromarray(pixels(9, 7))
    turned = Image.Exif()
    turned[0x0112] = 6
    ways: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "rgb.png": (colour, {}),
        "grey.png": (grey, {}),
        "alpha.png": (Image.fromarray(pixels(6, 6, 4)), {}),
        "palette.png": (colour.quantize(5), {"transparency": 2}),
        "bits.png": (grey.convert("1"), {}),
        "deep.png": (Image.fromarray(pixels(8, 8).astype(np.uint16) * 200), {}),
        "moving.png": (colour, {"save_all": True, "append_images": [colour.rotate(90)]}),
        "colour.jpg": (colour, {}),
        "turned.jpeg": (colour, {"exif": turned.tobytes()}),
        "cmyk.jpg": (colour.convert("CMYK"), {}),
        "progressive.jpg": (grey, {"progressive": True}),
        "a.bmp": (colour, {}),
        "grey.bmp": (grey, {}),
        "a.gif": (colour.quantize(8), {}),
        "lossy.webp": (colour, {}),
        "lossless.webp": (Image.fromarray(pixels(6, 6, 4)), {"lossless": True}),
        "a.tif": (colour, {}),
        "packed.tiff": (colour, {"compression": "tiff_lzw"}),
        "deflated.tif": (grey, {"compression": "tiff_adobe_deflate"}),
        "floats.tiff": (Image.fromarray(pixels(5, 5).astype(np.float32)), {}),
        "whole.tiff": (Image.fromarray(pixels(5, 5).astype(np.int32) * 70_000), {}),
        "a.ppm": (colour, {}),
        "a.ico": (colour, {}),
        "a.tga": (colour, {}),
        "a.jp2": (colour, {}),
    }
    made = {}
    for name, (image, options) in ways.items():
        buffer = io.BytesIO()
        kind = Image.registered_extensions()[f".{name.rpartition('.')[2]}"]
        image.save(buffer, kind, **options)
        made[name] = buffer.getvalue()
    return made


def png(width: int, height: int, depth: int, colour: int, content: bytes) -> bytes:
    """A PNG whose header says what it is told to, with a right checksum."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width % 2**32, height % 2**32, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@cache
def bomb(depth: int, colour: int) -> bytes:
    """A PNG of 170 million pixels, all the same, in some hundred kilobytes: as many as Pillow opens."""
    side, size = 13_000, {0: 1, 2: 3, 6: 4}[colour] * depth // 8
    packer, row = zlib.compressobj(1), bytes(1 + side * size)
    return png(
        side, side, depth, colour, b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    )


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@cache
def arrays() -> dict[str, bytes]:
    """Samples, statistics and pictures as .npz and .npy files."""
    packed = io.BytesIO()
    np.savez_compressed(packed, arr_0=pixels(4, 6, 6, 3))
    return {
        "samples.npz": npz(arr_0=pixels(6, 8, 8, 1), arr_1=np.arange(6)),
        "packed.npz": packed.getvalue(),
        "statistics.npz": npz(mu=np.zeros(3), sigma=np.eye(3)),
        "both.npz": npz(
            mu=np.zeros(2), sigma=np.eye(2), mu_s=np.zeros(1), sigma_s=np.eye(1), arr_0=pixels(3, 4, 4, 3)
        ),
        "pictures.npy": npy(pixels(5, 4, 4, 3)),
        "grey.npy": npy(pixels(5, 4, 4)),
    }


@cache
def idx() -> dict[str, bytes]:
    """Fashion-MNIST's four files, of four pictures each; two of them gzipped."""
    made = {}
    for part in ("train", "t10k"):
        images, labels = pixels(4, 28, 28), np.arange(4, dtype=np.uint8)
        made[f"{part}-images-idx3-ubyte"] = struct.pack(">4I", 0x803, *images.shape) + images.tobytes()
        made[f"{part}-labels-idx1-ubyte"] = struct.pack(">2I", 0x801, 4) + labels.tobytes()
    return {
        f"{k}.gz" if "t10k" in k else k: gzip.compress(v, mtime=0) if "t10k" in k else v
        for k, v in made.items()
    }


def cifar_batch() -> dict[str, Any]:
    return {"data": pixels(2, 3072), "labels": [0, 1], "filenames": ["a", "b"]}


@cache
def weights() -> tuple[bytes, ...]:
    """Small files of somebody's weights, of each kind."""
    state = small_weights()
    jem = settled(Jem(10, 1, 2, 1, False, 8)).state_dict()
    numbers = {"epoch": 3, "best": np.float64(0.5), "model": {f"module.{k}": v for k, v in state.items()}}
    files = []
    for value in (state, {"model_state_dict": jem, "replay_buffer": torch.rand(2, 1, 8, 8)}, numbers):
        for new in (True, False):
            stream = io.BytesIO()
            torch.save(value, stream, _use_new_zipfile_serialization=new)
            files.append(stream.getvalue())
    return (*files, pickle.dumps({k: v.numpy() for k, v in state.items()}), pickle.dumps(state, 2))


@cache
def run_files() -> dict[str, bytes]:
    """A run folder as training leaves it after its one step, by path."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        make_finished(Path(folder))
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file()
        }


def make_finished(folder: Path) -> None:
    """A run of RECIPE after its one step, without the hours: a state to resume from, weights, records, pictures."""
    config = build_config(RECIPE | {"output": "run"})
    torch.manual_seed(0)
    train = load_splits(config.data).train
    model = new_model(config, train, torch.device("cpu"))
    ((_, method, stage),) = stage_plan(config, train)
    optimizer = build_optimizer(model, stage.optimizer)
    model(train.float(slice(0, 8))).logsumexp(1).mean().backward()
    optimizer.step()
    average = EMA(model, 0.9)
    average.update(model)
    state = TrainingState(
        1,
        1,
        model.state_dict(),
        average.average,
        1,
        optimizer.state_dict(),
        method.state(),
        {},
        method.tensors(),
    )
    make_run(folder)
    (folder / "config.yaml").write_text(to_yaml(config))
    (folder / "metrics.jsonl").write_text('{"stage": 1, "step": 1, "loss": 2.0, "lr": 0.1}\n{"stage": 1, "st')
    (folder / "outcome.json").write_text(json.dumps({"outcome": "finished", "divergences": []}))
    save_state(folder / "checkpoints", state)
    save_model(model, folder / "model")
    save_model(model, folder / "checkpoints" / "stage1")


def model_file() -> bytes:
    return run_files()["model.safetensors"]


def state_name() -> str:
    return next(name for name in run_files() if name.startswith("checkpoints/state-"))


def records() -> list[dict[str, Any]]:
    return made_up()


def full_recipe() -> dict[str, Any]:
    """Every setting with its default."""
    return json.loads(json.dumps(plain(RunConfig())))


__all__ = ["BENCHMARK", "LISTS", "RECIPE", "STUDY", "sha256"]
