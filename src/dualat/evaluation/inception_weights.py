"""The weights file of torch-fidelity's Inception network: found, checked by its hash, and read without unpickling code."""

import os
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from dualat.system.files import sha256


class MissingWeights(FileNotFoundError):
    """Weights that a metric needs, and that do not come with dualat, are not here."""


FILE = "weights-inception-2015-12-05-6726825d.pth"
OFFICIAL_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def find_inception_weights(path: Path | str | None = None) -> tuple[Path, str]:
    """The file and its SHA-256.

    Args:
        path: a file, of other weights too (unless it bears the official name); None: torch hub's cache, where only the
            official file will do.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: a file of the official name with another content.
    """
    found = Path(torch.hub.get_dir()) / "checkpoints" / FILE if path is None else Path(path).expanduser()
    if not os.path.isfile(found):  # which a home that cannot be read is not, either
        where = f"put it into {found.parent}" if path is None else "give its path"
        raise MissingWeights(
            f"{found} does not exist, which FID, KID and the Inception Score need: get {FILE} (95 MB) from the releases "
            f"of toshas/torch-fidelity on GitHub (v0.2.0) and {where}."
        )
    digest = sha256(found)
    if found.name == FILE and digest != OFFICIAL_SHA256:
        raise ValueError(
            f"{found} is not torch-fidelity's file of that name (its SHA-256 begins {digest[:8]}, not "
            f"{OFFICIAL_SHA256[:8]}): get it anew, or rename it if these weights are meant."
        )
    return found, digest


def read_inception_weights(path: Path, digest: str) -> dict[str, Tensor]:
    """The tensors of a file whose hash has been taken.

    Raises:
        ValueError: it holds anything but tensors, or has changed since.
    """
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError, ImportError) as error:
        raise ValueError(
            f"{path} is damaged, or holds more than tensors, which may run code when it is read: give the weights file "
            "that torch-fidelity publishes."
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(
            f"{path} holds no network's weights by name: give the file that torch-fidelity publishes."
        )
    if sha256(path) != digest:
        raise ValueError(f"{path} changed while it was read: try again.")
    return tensors
