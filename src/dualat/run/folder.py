"""A run folder before training: what is in it already, whose it is, and whether it belongs to the same configuration."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from dualat.config import RunConfig, load_recipe, plain
from dualat.run.data import MOVABLE, known_content
from dualat.short_form import STAGE
from dualat.system.distributed import is_first, total
from dualat.system.files import REPORT_MARK, bears, read_yaml
from dualat.system.lock import Held, check_free, locked

CONFIG = "config.yaml"
LOCK = ".lock"
_OF_EVERY_RUN = (
    *("weights", "seed", "output", "device", "precision", "data", "network", "initial"),
    *("sampling", "evaluation", "tracking"),
)
"""Settings that the configuration of every run has had since the first version; a recipe states some of them."""


def check_folder(config: RunConfig, resume: bool, overwrite: bool) -> Path:
    """The run folder; refuses to mix two runs in one, and to write into what is no run's.

    Raises:
        ValueError: it holds another run, or files that are not a run's, or the settings are others.
    """
    assert config.output is not None
    folder = Path(config.output)
    if not config.output.strip():
        raise ValueError("output is empty: give a folder, as in --output runs/mine.")
    if resume and overwrite:
        raise ValueError(
            "resume and overwrite contradict each other: resume goes on with the run that is there, overwrite removes it."
        )
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output is {folder}, which is a file: give a folder.")
    known = folder / CONFIG
    if known.exists() and not is_run(folder):
        raise ValueError(f"{known} is no configuration of a dualat run: give another --output.")
    if not known.exists() and (found := next(run_files(folder), None)):
        raise ValueError(
            f"{folder} holds {found.relative_to(folder)}, but no {CONFIG} of a run that it belongs to: give another "
            "--output, or move it away."
        )
    if known.exists() and not overwrite:
        if not resume:
            raise ValueError(
                f"{folder} already holds a run: add --resume to go on with it, --overwrite to replace it, or give "
                "another --output."
            )
        movable = MOVABLE if known_content(folder) else ()
        if text := changed_setting(known, config, may_differ=("output", "stability", *movable)):
            raise ValueError(
                f"{folder} was started with other settings ({text}): resume it with its own, as in "
                f"`dualat train {known} --output {folder} --resume`."
            )
    return folder


def is_run(folder: Path) -> bool:
    """Whether config.yaml is the complete configuration that a run of dualat writes, of whatever version."""
    try:
        values = read_yaml((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    whole = isinstance(values, dict) and all(name in values for name in _OF_EVERY_RUN)
    stages = whole and any(STAGE.fullmatch(str(name)) and isinstance(values[name], dict) for name in values)
    return stages and isinstance(values["output"], str)


def check_unused(folder: Path) -> None:
    """Held where another process trains in the folder now."""
    check_free(folder / LOCK, str(folder))


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Inside, this run alone writes into the folder; of several processes the first holds the lock. Held where another
    run has it."""
    with ExitStack() as stack:
        problem: Exception | None = None
        if is_first():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(folder / LOCK, str(folder)))
            except (Held, OSError) as error:
                problem = error
        if total(int(problem is not None)):
            raise problem or Held(f"{folder} cannot be had: the first process says why.")
        yield


_FILES: dict[str, str] = {
    "": r"metrics\.jsonl|model\.(safetensors|json)|evaluation\.json|(outcome|data)\.json",
    "checkpoints": r"state-\d+-\d{8,}\.safetensors|latest\.json|(stage\d+|best-robust|best-generation)\.(safetensors|json)",
    "samples": r"stage\d+-\d{6,}\.png|final\.png",
    "counterfactuals": r"\d+-eps[\d.e+-]+\.png",
    "tensorboard": r"events\.out\.tfevents\..+",
    "tensorboard/*": r"events\.out\.tfevents\..+|hparams\.yml",
}
"""What dualat writes into a run folder, by subfolder, beside config.yaml and report.html. Folders in tensorboard/ are named
by the second."""
_SECOND = re.compile(r"\d+\.\d+")


def run_files(folder: Path) -> Iterator[Path]:
    """The files in a folder that have the names of those that dualat writes into a run's, config.yaml apart."""
    for place, names in _FILES.items():
        parents = folder.glob(place) if "*" in place else [folder / place]
        for parent in parents:
            if parent.is_dir() and ("*" not in place or _SECOND.fullmatch(parent.name)):
                yield from (
                    p for p in sorted(parent.iterdir()) if re.fullmatch(names, p.name) and p.is_file()
                )
    if bears(folder / "report.html", REPORT_MARK):
        yield folder / "report.html"


def clear_run(folder: Path) -> None:
    """Remove what dualat has written of an earlier run, and nothing else. Its config.yaml stays until another replaces it:
    a kill on the way leaves a run that can be overwritten again."""
    if not is_run(folder):
        return
    for path in list(run_files(folder)):
        path.unlink()
        with suppress(OSError):  # not empty
            if path.parent != folder:
                path.parent.rmdir()


def changed_setting(known: Path, config: RunConfig, may_differ: tuple[str, ...]) -> str | None:
    """The first setting that a run's config.yaml and a configuration do not share, for a person; None where there is none.

    Settings that came into the package after the run was started have their defaults.

    Args:
        may_differ: settings, or groups of them, that are not compared.
    """
    started = load_recipe(str(known))
    old, new = flatten(plain(started)), flatten(plain(config))
    for name in old | new:
        before, now = old.get(name), new.get(name)
        if not {name, name.split(".")[0]} & set(may_differ) and before != now:
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
