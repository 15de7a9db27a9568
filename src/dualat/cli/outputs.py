"""Where a command may write: looked at before any work, so that none is lost, and nothing that is not the command's own is
replaced."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from dualat.cli.arguments import UsageError

_SAMPLE = re.compile(r"\d{5,}-(class\d+|unconditional)\.png")
_OF_A_RUN = ("checkpoints", "samples", "counterfactuals", "tensorboard")


def output_file(
    text: str, endings: tuple[str, ...] = (), inputs: Iterable[str] = (), option: str = "--output"
) -> Path:
    """A file that can be written.

    Args:
        text: what the command line says.
        endings: that its name may have, as .png; none: any.
        inputs: files that the command reads, which it must not replace.

    Raises:
        UsageError: it is empty, a folder, in no folder, one of `inputs`, or ends otherwise.
    """
    path = _place(text, option)
    if path.is_dir():
        raise UsageError(f"{option} is {text}, but that is a folder: name a file.")
    if endings and path.suffix.lower() not in endings:
        wanted = f"{', '.join(endings[:-1])} or {endings[-1]}" if endings[1:] else endings[0]
        raise UsageError(f"{option} is {text}, but must end in {wanted}.")
    for read in inputs:
        if path.exists() and os.path.exists(read) and os.path.samefile(path, read):
            raise UsageError(f"{option} is {text}, but that is what the command reads: name another file.")
    return path


def _place(text: str, option: str) -> Path:
    if not text.strip():
        raise UsageError(f"{option} is empty: name a file or a folder.")
    path = Path(text)
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise UsageError(f"{option} is {text}, but {nearest.name} is a file: name another place.")
    if not path.exists() and not os.access(nearest, os.W_OK):
        raise UsageError(f"{option} is {text}, but {nearest} cannot be written: name another place.")
    return path


def sample_folder(text: str, overwrite: bool, option: str = "--output") -> Path:
    """A folder for samples, which holds no other pictures: an evaluation scores all that are there.

    Raises:
        UsageError: it is empty, no folder, that of a run, one that the process is in, or holds pictures that are no samples,
            or samples that `overwrite` does not let go.
    """
    from dualat.data.listing import pictures

    path = _place(text, option)
    if path.exists() and not path.is_dir():
        raise UsageError(
            f"{option} is {text}, but {path.name} is a file: name a folder, or end in .png or .npz."
        )
    whole = path.resolve()
    if whole == Path.cwd() or whole in Path.cwd().parents:
        raise UsageError(
            f"{option} is {text}, the folder that you are in, or above it: name a folder for the samples alone."
        )
    if _is_run(whole) or (whole.name in _OF_A_RUN and _is_run(whole.parent)):
        raise UsageError(f"{option} is {text}, a folder of a run: name one for the samples alone.")
    found = [name for name, _ in pictures(path)] if path.is_dir() else []
    if others := [name for name in found if not _SAMPLE.fullmatch(name)]:
        raise UsageError(
            f"{option} is {text}, which holds pictures that were not sampled into it, such as {min(others)}: name another "
            "folder."
        )
    if found and not overwrite:
        raise UsageError(
            f"{option} is {text}, which holds {len(found)} samples already: add --overwrite to replace them, or name "
            "another folder."
        )
    return path


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.yaml", "model.safetensors"))


def sample_name(position: int, label: int | None) -> str:
    """Name of the file of one sample: its position, and the class that was asked for."""
    return f"{position:05d}-{'unconditional' if label is None else f'class{label}'}.png"


def remove_samples(folder: Path) -> None:
    """Remove the files of earlier samples, and nothing else."""
    for path in folder.iterdir():
        if _SAMPLE.fullmatch(path.name) and path.is_file():
            path.unlink()
