"""Files that are either complete or absent: written beside their final place, flushed to disk, then renamed."""

import errno
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it replaces `path` atomically, on failure it is removed.

    A process killed at any moment leaves the old file or the new one, never half of either. A full disk is an
    `OSError` that names the file, and the old file stays. A link stays, and what it leads to is replaced. ValueError for a
    path without a name, as `.`; OSError for a device or a pipe: root could put a file in the place of /dev/null.
    """
    if Path(path).name in ("", ".."):
        raise ValueError(f"{str(path)!r} is no name of a file: give one to write.")
    named, path = path, Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(
            errno.EINVAL, f"cannot write {named}: it is a device or a pipe, not a file; name another"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # some writers make files that only their owner can read
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            getattr(error, "errno", None) or errno.EIO, f"cannot write {named}: {reason}"
        ) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def cache_folder() -> Path:
    """Where that lies which only saves time between runs: $DUALAT_CACHE, or ~/.cache/dualat."""
    named, home = os.environ.get("DUALAT_CACHE"), os.path.expanduser("~")
    if named:
        return Path(named)
    # a user without a home has no cache: nothing can be written below this
    return Path(os.devnull if home == "~" else home) / ".cache" / "dualat"


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that only saves time, by `write`, whole or not at all. Where that cannot be, a warning says so, once."""
    try:
        with atomic_path(path) as temporary:
            write(temporary)
    except OSError as error:
        cache = cache_folder()
        _cannot_keep(str(cache if cache in path.parents else path.parent), error.strerror or str(error))


@cache
def _cannot_keep(place: str, reason: str) -> None:
    warnings.warn(
        f"what would save time at the next call cannot be kept in {place} ({reason}): going on without it; DUALAT_CACHE "
        "names another folder for the cache.",
        stacklevel=3,
    )


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


REPORT_MARK = '<meta name="generator" content="dualat '
"""By which a report is known as one; its template has it."""
MOST_VALUES = 100_000
"""What a YAML text may hold with its references written out; a study has some hundred values."""


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader without its traps: the last of equal keys counts, 010 is 8, 1:30 is 90."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.CollectionNode):
                raise yaml.YAMLError(f"a key in line {line} is a list or a mapping: keys are words")
            if isinstance(key, yaml.ScalarNode) and key.value in lines and key.value != "<<":
                raise yaml.YAMLError(
                    f"{key.value} is in line {lines[key.value]} and again in line {line}: keep one"
                )
            if isinstance(key, yaml.ScalarNode):
                lines[key.value] = line
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Numbers in base 8 or 60 that do not look like it are refused."""
        text = node.value.lstrip("+-")
        of_int = node.tag.endswith(":int")
        if ":" in text or (of_int and text[:1] == "0" and text[1:2].isdigit()):
            base = 60 if ":" in text else 8
            raise yaml.YAMLError(
                f"{node.value} in line {node.start_mark.line + 1} is a number in base {base} to YAML: write it without "
                f"{'colons' if base == 60 else '0 in front'}, or in quotes if it is a word"
            )
        return self.construct_yaml_int(node) if of_int else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _PlainLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _PlainLoader.construct_number)


def read_yaml(text: str) -> Any:
    """What a YAML text says, plain values alone; None for an empty one.

    Values that it refers to in several places (&name, *name) are one object: copy before changing.

    Raises yaml.YAMLError where it is damaged, a key is there twice, or it stands for more than 100,000 values.
    """
    if len(text) > 10 * MOST_VALUES:
        raise yaml.YAMLError(f"it has {len(text):,} characters, too many for settings")
    try:
        loader = _PlainLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"its references stand for more than {MOST_VALUES:,} values")
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:  # odd tags and dates
        raise yaml.YAMLError(f"it has a value that is none of its kind ({error})") from error


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for. yaml.YAMLError where it refers to itself."""
    if known.get(id(node)) == 0:
        raise yaml.YAMLError(f"what begins in line {node.start_mark.line + 1} refers to itself")
    if id(node) not in known:
        known[id(node)] = 0
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for entry in inner for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def bears(path: Path | str, mark: str) -> bool:
    """Whether a file has a text near its beginning, by which its writer is known."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return mark in handle.read(4000)
    except OSError:
        return False


def check_own(path: Path | str, mark: str, command: str) -> None:
    """ValueError where a file is there that does not bear the mark of what `command` writes: it would be lost."""
    if os.path.isfile(path) and os.path.getsize(path) and not bears(path, mark):
        raise ValueError(
            f"{path} is there, and `{command}` did not write it: give another --output, or move it away."
        )


def sha256(path: Path | str) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
