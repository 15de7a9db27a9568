"""NumPy's .npz files, read with suspicion: plain numbers alone, and no more of them than memory takes.

numpy itself believes an array's header: one that is damaged asks for any amount of memory, and fails with whatever its
parser and zipfile happen to raise.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dualat.data.pictures import MEMORY_LIMIT


class Unreadable(ValueError):
    """Why an array cannot be read, as the end of a sentence that begins with the file's name."""


def read_members(path: Path, names: Iterable[str] | None = None) -> tuple[dict[str, np.ndarray], list[str]]:
    """The named arrays of an .npz file as far as it has them (None: all), and the names of all that it holds.

    Raises:
        ValueError: no .npz file, a damaged one, Python objects, or an array of more than 8 GiB.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise Unreadable("is a single array, and no .npz file")
        with archive as opened:
            held = list(opened.files)
            wanted = held if names is None else [name for name in names if name in held]
            return {name: _member(opened, name) for name in wanted}, held
    except Unreadable as error:
        raise ValueError(f"{path} {error}: write it anew with numpy.savez.") from error
    except PermissionError:
        raise
    except Exception as error:  # a damaged file makes numpy, zipfile and tokenize raise whatever they like
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path} holds Python objects or a pickle, which may run code when they are read: write plain arrays "
                "with numpy.savez."
            ) from error
        raise ValueError(f"{path} is damaged or no .npz file: write it anew with numpy.savez.") from error


def _member(opened: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """One array, once its header is known to claim no more than there may be."""
    size = _claimed(opened, name)
    if size > MEMORY_LIMIT:
        raise Unreadable(
            f"claims an array of {size / 2**30:.3g} GiB, more than the {MEMORY_LIMIT / 2**30:.0f} GiB that are held in "
            "memory"
        )
    found = opened[name]
    if not isinstance(found, np.ndarray):  # a member that is no array comes as bytes
        raise Unreadable("is damaged or no .npz file")
    return found


def _claimed(opened: np.lib.npyio.NpzFile, name: str) -> int:
    """Bytes that the array's header asks for."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    held = opened.zip
    assert held is not None
    member = f"{name}.npy" if f"{name}.npy" in held.namelist() else name
    with held.open(member) as handle:
        reader = readers[np.lib.format.read_magic(handle)]  # 3.0 is of records with names beyond ASCII alone
        shape, _, kind = reader(handle)
    return math.prod(shape) * max(1, kind.itemsize)
