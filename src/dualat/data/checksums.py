"""Files against a list of checksums, as md5sum and sha256sum write it; what was right before is not read again."""

import hashlib
import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dualat.data.names import read_lines
from dualat.system.files import keep

_ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
_EVERY = 5.0  # seconds between states on disk


@dataclass
class Outcome:
    """Names of the files that are as the list says, that are not, and that are not there."""

    right: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def read_sums(path: Path) -> dict[str, str]:
    """Name of each file to its checksum in hexadecimal, from lines `CHECKSUM  NAME` or `SHA256 (NAME) = CHECKSUM`.

    Raises:
        FileNotFoundError: no such list.
        ValueError: another layout, or a checksum of unknown length.
    """
    sums = {}
    for line in read_lines(path, "lines CHECKSUM  NAME, as sha256sum and md5sum write them"):
        found = re.fullmatch(r"(?P<sum>[0-9a-fA-F]+) [ *](?P<name>.+)", line) or re.fullmatch(
            r"\w+ \((?P<name>.+)\) = (?P<sum>[0-9a-fA-F]+)", line
        )
        if found is None or len(found["sum"]) not in _ALGORITHMS:
            raise ValueError(
                f"the list {path} has the line {line[:60]!r}, but must have lines CHECKSUM  NAME as sha256sum or md5sum "
                "write them."
            )
        sums[found["name"]] = found["sum"].lower()
    if not sums:
        raise ValueError(f"the list {path} is empty: give one with lines CHECKSUM  NAME.")
    return sums


def verify(
    sums: dict[str, str],
    folder: Path,
    state_file: Path,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Outcome:
    """Compare files below `folder` with their checksums.

    Args:
        state_file: remembers size, time of change and checksum of files that were right, so that a call after a kill goes
            on; a file that has changed since is read again.
        progress: called as progress("files", done, in all).
    """
    known: dict[str, list] = {}
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(state_file.read_text(encoding="utf-8"))
        known = found if isinstance(found, dict) else {}
    outcome, written = Outcome(), time.monotonic()
    try:
        for done, (name, expected) in enumerate(sums.items()):
            progress("files", done, len(sums))
            path = folder / name
            if not path.is_file():
                outcome.missing.append(name)
                continue
            state = [path.stat().st_size, path.stat().st_mtime_ns, expected]
            if known.get(name) != state:
                known.pop(name, None)
                with open(path, "rb") as handle:
                    found = hashlib.file_digest(handle, _ALGORITHMS[len(expected)]).hexdigest()
                if found != expected:
                    outcome.wrong.append(name)
                    continue
                known[name] = state
            outcome.right.append(name)
            if time.monotonic() - written > _EVERY:
                keep(state_file, partial(_write, known=known))
                written = time.monotonic()
        progress("files", len(sums), len(sums))
    finally:
        keep(state_file, partial(_write, known=known))
    return outcome


def _write(path: Path, known: dict[str, list]) -> None:
    path.write_text(json.dumps(known), encoding="utf-8")
