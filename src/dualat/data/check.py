"""Every image of a folder or of shards decoded once, to list those that cannot be read before a long run meets them."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from dualat.data.decode import BadImage, View
from dualat.data.folder import FolderFiles
from dualat.data.images import ImageData
from dualat.data.listing import list_images
from dualat.data.on_disk import all_shards, require_images
from dualat.data.shards import ShardFiles
from dualat.system.files import keep, write_text

_SMALL = View((3, 32, 32))  # a file is decoded whole, whatever it is resized to
UNREADABLE = "# images of "
"""How such a list begins."""
_EVERY = 5.0  # seconds between states on disk
_TOLD = 100  # images between calls of progress


@dataclass
class Checked:
    """How many images there are, and the names of those that cannot be read, each with the reason."""

    count: int
    bad: dict[str, str]


def all_files(source: str, workers: int | None = None) -> ImageData:
    """All images below a folder, in its shards where it has any, or of shards named by a pattern."""
    shards = all_shards(source)
    folder = Path(source).expanduser()
    files = (
        ShardFiles(shards, _SMALL, workers)
        if shards
        else FolderFiles(folder, list_images(folder), _SMALL, workers)
    )
    require_images(len(files), source)
    return ImageData(files, torch.zeros(len(files), dtype=torch.int64), ("all",), source)


def check_images(
    source: str,
    output: Path,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Checked:
    """Decode all images and write the names of the bad ones to `output`, for `exclude`.

    A call that was killed goes on from a state beside `output` where the files are the same.

    Args:
        workers: threads; None: one per core, 16 at most.
        progress: called as progress("images", done, in all).

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no images, or damaged shards.
    """
    data = all_files(source, workers)
    names, content = data.told(), data.content
    state_file = output.with_name(f".{output.name}.state.json")
    done, bad = _state(state_file, content)
    written = time.monotonic()
    try:
        for result in data.files.decoded(range(done, len(data))):
            if isinstance(result, BadImage):
                bad[names[done]] = str(result)
            done += 1
            if done % _TOLD == 0 or done == len(data):
                progress("images", done, len(data))
            if time.monotonic() - written > _EVERY:
                _keep(state_file, content, done, bad)
                written = time.monotonic()
    finally:
        if done < len(data):
            _keep(state_file, content, done, bad)
    lines = [f"{UNREADABLE}{source} that cannot be read", *bad]
    write_text(output, "\n".join(lines) + "\n")
    state_file.unlink(missing_ok=True)
    return Checked(len(data), bad)


def _state(state_file: Path, content: str) -> tuple[int, dict[str, str]]:
    """How many images a call before has decoded, and the bad ones; none where the files are others."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(state_file.read_text(encoding="utf-8"))
        if kept["content"] == content:
            return int(kept["done"]), dict(kept["bad"])
    return 0, {}


def _keep(state_file: Path, content: str, done: int, bad: dict[str, str]) -> None:
    text = json.dumps({"content": content, "done": done, "bad": bad})
    keep(state_file, lambda path: path.write_text(text, encoding="utf-8"))
