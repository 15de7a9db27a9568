"""A run folder before training: what is in it already, and whether it belongs to the same configuration."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dualat.config import RunConfig, load_recipe, resolved


def check_folder(config: RunConfig, resume: bool, overwrite: bool) -> Path:
    """The run folder; refuses to mix two runs in one."""
    assert config.output is not None
    folder = Path(config.output)
    if resume and overwrite:
        raise ValueError(
            "resume and overwrite contradict each other: resume goes on with the run that is there, overwrite removes it."
        )
    known = folder / "config.yaml"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output is {folder}, which is a file: give a folder.")
    if known.is_file() and not overwrite:
        if not resume:
            raise ValueError(
                f"{folder} already holds a run: add --resume to go on with it, --overwrite to replace it, or give "
                "another --output."
            )
        if text := changed_setting(known, config, may_differ=("output", "stability")):
            raise ValueError(
                f"{folder} was started with other settings ({text}): resume it with its own, as in "
                f"`dualat train {known} --output {folder} --resume`."
            )
    return folder


RUN_FILES = (
    "config.yaml",
    "metrics.jsonl",
    "model.safetensors",
    "model.json",
    "evaluation.json",
    "outcome.json",
    "report.html",
    "checkpoints/*",
    "samples/*.png",
    "tensorboard/**/*",
)


def clear_run(folder: Path) -> None:
    """Remove the files of an earlier run, and nothing else."""
    for pattern in RUN_FILES:
        for path in folder.glob(pattern):
            if path.is_file():
                path.unlink()


def changed_setting(known: Path, config: RunConfig, may_differ: tuple[str, ...]) -> str | None:
    """The first setting that a run's config.yaml and a configuration do not share, for a person; None where there is none.

    Settings that came into the package after the run was started have their defaults.

    Args:
        may_differ: settings, or groups of them, that are not compared.
    """
    started = load_recipe(str(known))
    old, new = flatten(asdict(resolved(started))), flatten(asdict(config))
    for name in old | new:
        before, now = old.get(name), new.get(name)
        if name.split(".")[0] not in may_differ and before != now:
            return f"{name}: there {before}, here {now}"
    return None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names with values that every tracker can show."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, (int, float, str, bool)) else str(value)
    return flat
