"""Where a run's files lie and what its images are: `data.json`, beside config.yaml, which holds paths as they were given.

With it a run finds its data from another working directory, and the same images in another place are told from others.
"""

import glob
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dualat.config import RunConfig
from dualat.data.in_distribution import Splits, load_splits
from dualat.data.names import BASES
from dualat.data.registry import SOURCES
from dualat.system.files import write_text

FILE = "data.json"
MOVABLE = ("data.source", "data.root", "data.exclude", "data.test_list")
"""Settings that may change where a run is resumed, as long as the images are the same."""
_PATHS = (*MOVABLE, "weights", "initial.source", "initial.root", "initial.include", "initial.exclude")
_MODELS = ("model", "checkpoints/stage1", "checkpoints/best-robust", "checkpoints/best-generation")


def write_data(folder: Path, config: RunConfig, places: RunConfig, splits: Splits) -> None:
    """Write where the files of a configuration are, each path as given and as found, and the hash of each split."""
    given, found = dict(_paths(config)), dict(_paths(places))
    paths = {name: {"given": given[name], "absolute": _each(found[name], _absolute)} for name in given}
    content = {"paths": paths, "sha256": _content(splits)}
    write_text(folder / FILE, json.dumps(content, indent=2) + "\n")


def located(folder: Path, config: RunConfig) -> RunConfig:
    """The configuration of the run in `folder` with its paths as they were found when it began, where those still exist and
    the configuration gives them as it did then."""
    known = _read(folder).get("paths")
    for name, value in _paths(config):
        told = known.get(name) if isinstance(known, dict) else None
        if not isinstance(told, dict) or told.get("given") != _each(value, str):
            continue
        if all(isinstance(path, str) and _exists(path) for path in _listed(told.get("absolute"))):
            group, _, key = name.partition(".")
            path = told["absolute"]
            config = replace(
                config, **{group: replace(getattr(config, group), **{key: path}) if key else path}
            )
    return config


def load_run_splits(config: RunConfig, places: RunConfig) -> Splits:
    """The splits of a configuration, read at `places` and named as the configuration names them."""
    return renamed(load_splits(places.data), config.data.source)


def renamed(splits: Splits, source: str) -> Splits:
    """The same images, named by another source."""
    return Splits(
        **{
            part: getattr(splits, part).renamed(f"{source} {part}")
            for part in ("train", "validation", "test")
        }
    )


def known_content(folder: Path) -> dict[str, str]:
    """The hash of each split that a run was begun with, by its name. Of runs older than data.json the training split's, from
    one of its models; none where none is known."""
    known = _read(folder).get("sha256")
    if isinstance(known, dict):
        return {str(part): str(digest) for part, digest in known.items()}
    for name in _MODELS:
        digest = _read(folder, f"{name}.json").get("train_sha256")
        if isinstance(digest, str) and digest:
            return {"train": digest}
    return {}


def check_same(folder: Path, config: RunConfig, started: RunConfig, splits: Splits) -> None:
    """ValueError where a run is resumed with other images in another place; a warning where they have changed in theirs."""
    content = _content(splits)
    other = [part for part, digest in known_content(folder).items() if content.get(part) != digest]
    if not other:
        return
    if [value for name, value in _paths(config) if name in MOVABLE] != [
        value for name, value in _paths(started) if name in MOVABLE
    ]:
        advice = "pass the same as data=" if config.data.is_own else "name the place where the same are"
        raise ValueError(
            f"{config.data.source} holds other {other[0]} images than those that the run in {folder} began with: {advice}."
        )
    warnings.warn(
        f"the {other[0]} images in {config.data.source} are others than those that the run in {folder} began with.",
        stacklevel=2,
    )


def _content(splits: Splits) -> dict[str, str]:
    return {part: getattr(splits, part).content for part in ("train", "validation", "test")}


def _paths(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of the settings that name files."""
    for name in _PATHS:
        group, _, key = name.partition(".")
        value = getattr(config, group) if not key else getattr(getattr(config, group), key)
        if value and value not in SOURCES:
            yield name, value


def _each(value: Any, change: Any) -> Any:
    return [change(v) for v in value] if isinstance(value, tuple | list) else change(value)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _split(entry: str) -> tuple[str, str]:
    """What a list's entry says before its path, as zero-based:, and the path."""
    prefix, colon, rest = entry.partition(":")
    return (prefix + colon, rest) if colon and prefix in BASES else ("", entry)


def _absolute(entry: str) -> str:
    prefix, path = _split(entry)
    return prefix + os.path.abspath(os.path.expanduser(path))


def _exists(entry: str) -> bool:
    path = _split(entry)[1]
    return os.path.exists(path) or bool(glob.glob(path))


def _read(folder: Path, name: str = FILE) -> dict[str, Any]:
    """A JSON object; an empty one where the file is absent or damaged, which costs no more than its help."""
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
