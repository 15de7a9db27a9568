"""1,000 files with random damage: each gives one sentence, or loads."""

import io
import pickle
import random
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_networks import Jem, settled, small_weights

from dualat.models.import_weights.convert import import_network
from dualat.models.import_weights.settings import ImportSettings

PLAIN = ImportSettings(normalize="none", image_size=8)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One to eight changes: bits turned, bytes swapped for opcodes, stretches moved, cut off or doubled."""
    whole = bytearray(content)
    opcodes = b"(.012FIJKLMNPQRSTUVXabcdeghijlopqrst}]u)G\x80\x81\x82\x85\x86\x87\x88\x8a\x8c\x8f\x90\x91\x92\x93\x94\x95"
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(whole)) if whole else 0
        action = rng.randrange(6)
        if not whole:
            break
        if action == 0:
            whole[place] ^= 1 << rng.randrange(8)
        elif action == 1:
            whole[place] = rng.choice(opcodes)
        elif action == 2:
            whole[place : place + 4] = struct.pack(
                "<I", rng.choice([0, 1, 2**31, 2**32 - 1, rng.getrandbits(32)])
            )
        elif action == 3:
            other, length = rng.randrange(len(whole)), rng.randint(1, 40)
            whole[place : place + length] = whole[other : other + length]
        elif action == 4:
            whole[place:place] = whole[place : place + rng.randint(1, 100)]
        elif rng.random() < 0.3:
            del whole[place:]
    return bytes(whole)


def originals() -> list[bytes]:
    """Small files of each kind."""
    state = small_weights()
    files = []
    jem = settled(Jem(10, 1, 2, 1, False, 8)).state_dict()
    numbers = {"epoch": 3, "best": np.float64(0.5), "model": {f"module.{k}": v for k, v in state.items()}}
    for value in (state, {"model_state_dict": jem, "replay_buffer": torch.rand(2, 1, 8, 8)}, numbers):
        for new in (True, False):
            stream = io.BytesIO()
            torch.save(value, stream, _use_new_zipfile_serialization=new)
            files.append(stream.getvalue())
    files.append(pickle.dumps({k: v.numpy() for k, v in state.items()}))
    files.append(pickle.dumps(state, 2))
    return files


def fuzzed(files: list[bytes], rng: random.Random) -> bytes:
    """A mutated file; of most, the pickle alone, so that checksums and weights are right around it."""
    content = rng.choice(files)
    if rng.random() < 0.3:
        return mutated(content, rng)
    if not content.startswith(b"PK"):
        head = min(len(content), rng.choice([300, 3_000, 10_000]))
        return mutated(content[:head], rng) + content[head:]
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            raw = old.read(name)
            new.writestr(name, mutated(raw, rng) if name.endswith("data.pkl") else raw)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pickletools")
def test_a_thousand_fuzzed_files_give_a_sentence_each_or_load(tmp_path: Path):
    rng, files, path = random.Random(0), originals(), tmp_path / "w.pt"
    refused: dict[str, int] = {}
    loaded = 0
    for number in range(1000):
        path.write_bytes(fuzzed(files, rng))
        try:
            network = import_network(path, PLAIN).network
        except ValueError as error:
            text = str(error)
            assert str(path) in text and "\n" not in text and text.endswith("."), (number, text)
            assert text.isprintable()
            reason = text.split(": ", 1)[-1]
            refused[reason] = refused.get(reason, 0) + 1
        else:
            loaded += 1
            assert all(torch.isfinite(v).all() for v in network.state_dict().values())
    assert loaded > 20 and sum(refused.values()) > 500  # both ends are reached
    assert len(refused) > 20  # in many ways
