"""Checkpoints: everything that a resumed run needs, in one safetensors file, checked by checksum.

`checkpoints/latest.json` lists the two newest state files with their SHA-256. A state file is complete before it is
listed, so a kill at any moment leaves a list of complete files. A damaged newest one falls back to the one before, a
damaged list to the files that lie beside it.
"""

import json
import re
import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dualat.system.distributed import all_gathered
from dualat.system.files import atomic_path, sha256, write_text

GENERATIONS = 2
INDEX = "latest.json"
STATE = re.compile(r"state-\d+-\d{8,}\.safetensors")
TENSORS = ("model", "ema", "method_tensors")
"""Parts of the state that are tensors; the rest is JSON."""


@dataclass
class TrainingState:
    """Where a run stands. Random numbers and data order are functions of (seed, stage, step), so those three are
    their whole state."""

    stage: int
    step: int
    """Training steps of this stage that are done."""
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    ema_updates: int
    optimizer: dict[str, Any]
    method: dict[str, Any]
    best: dict[str, float] = field(default_factory=dict)
    """Best figures of this stage so far, by evaluator's name."""
    method_tensors: dict[str, Tensor] = field(default_factory=dict)
    pending: dict[str, float] = field(default_factory=dict)
    """Metric values of the last step, where a process was lost before they were written and an evaluation made; else empty."""

    @property
    def reported(self) -> int:
        """The last step whose lines in `metrics.jsonl` are complete."""
        return self.step - bool(self.pending)


def save_state(folder: Path, state: TrainingState) -> None:
    """Write the state as a new generation of `folder`, list it, and remove generations beyond the second."""
    tensors = {f"model.{k}": v for k, v in state.model.items()} | {
        f"ema.{k}": v for k, v in state.ema.items()
    }
    slots, scalars = {}, {}
    for index, values in state.optimizer["state"].items():
        for key, value in values.items():
            (slots if isinstance(value, Tensor) else scalars)[f"{index}.{key}"] = value
    tensors |= {f"optimizer.{k}": v for k, v in slots.items()}
    tensors |= {f"method.{k}": v for k, v in state.method_tensors.items()}
    rest = {f.name: getattr(state, f.name) for f in fields(state)} | dict.fromkeys(TENSORS)
    rest["optimizer"] = {"scalars": scalars, "groups": state.optimizer["param_groups"]}

    path = folder / f"state-{state.stage}-{state.step:08d}.safetensors"
    with atomic_path(path) as temporary:
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
            temporary,
            metadata={"state": json.dumps(rest)},
        )
    before = _listed(folder) or [entry for entry in _found(folder) if _opens(folder / entry["file"])]
    known = [entry for entry in before if entry["file"] != path.name]
    kept = [{"file": path.name, "sha256": ""}, *known][:GENERATIONS]
    kept = [{**entry, "sha256": entry["sha256"] or sha256(folder / entry["file"])} for entry in kept]
    write_text(folder / INDEX, json.dumps({"generations": kept}, indent=2) + "\n")
    for old in _found(folder):
        if old["file"] not in {entry["file"] for entry in kept}:
            (folder / old["file"]).unlink()


def load_state(folder: Path) -> TrainingState | None:
    """The newest undamaged state, or None where no checkpoint was ever written. All ranks ask together.

    Where the list of states is damaged, absent, or of files that are, the files that lie there are tried, newest first.
    Warns where it is not the newest of the list; raises ValueError where none can be read, or where ranks find different ones.
    """
    state = _newest(folder)
    places = (
        all_gathered(torch.tensor([[state.stage, state.step] if state else [0, 0]])).unique(dim=0).tolist()
    )
    if len(places) > 1:
        seen = ", ".join(f"stage {stage} step {step}" if stage else "none" for stage, step in places)
        raise ValueError(
            f"the processes of this run find different checkpoints in {folder} ({seen}): start it again with --resume when "
            "all machines see the same files there."
        )
    return state


def _newest(folder: Path) -> TrainingState | None:
    listed, found = _listed(folder), _found(folder)
    names = {entry["file"] for entry in listed or ()}
    problems = [] if listed or not found else [f"{folder / INDEX} is damaged or missing"]
    for entry in [*(listed or ()), *(entry for entry in found if entry["file"] not in names)]:
        path = folder / entry["file"]
        try:
            if not path.is_file():
                raise ValueError("is missing")
            if entry["sha256"] and sha256(path) != entry["sha256"]:
                raise ValueError("does not match its checksum")
            state = _read(path)
        except OSError as error:
            problems.append(f"{path} cannot be read ({error.strerror or error})")
            continue
        except ValueError as error:
            problems.append(f"{path} {error}")
            continue
        if problems:
            warnings.warn(f"{problems[0]}: resuming from {path.name}, which is whole.", stacklevel=2)
        return state
    if problems:
        raise ValueError(f"no checkpoint can be read ({'; '.join(problems)}): start again with --overwrite.")
    return None


def _listed(folder: Path) -> list[dict[str, str]] | None:
    """States that the list names, newest first; None where it is absent or damaged."""
    try:
        entries = json.loads((folder / INDEX).read_text(encoding="utf-8"))["generations"]
        files = [{"file": str(entry["file"]), "sha256": str(entry["sha256"])} for entry in entries]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return files if all(STATE.fullmatch(entry["file"]) for entry in files) else None


def _found(folder: Path) -> list[dict[str, str]]:
    """State files that lie there, newest first. Their content is not known to be what was written."""
    names = [path.name for path in folder.glob("state-*.safetensors") if STATE.fullmatch(path.name)]
    newest = sorted(
        names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)], reverse=True
    )
    return [{"file": name, "sha256": ""} for name in newest]


def _opens(path: Path) -> bool:
    """Whether a file has a header that fits its length."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False


def _read(path: Path) -> TrainingState:
    try:
        with safe_open(path, framework="pt") as handle:
            rest = json.loads((handle.metadata() or {})["state"])
        return _put_together(rest, load_file(path))
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("is damaged, or no state of a run") from error


def _put_together(rest: dict[str, Any], tensors: dict[str, Tensor]) -> TrainingState:
    """The state of a file. Raises whatever reading a wrong one raises."""
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}, "method": {}}
    for key, value in tensors.items():
        group, _, name = key.partition(".")
        groups[group][name] = value
    slots: dict[int, dict[str, Any]] = {}
    for key, value in {**groups["optimizer"], **rest["optimizer"]["scalars"]}.items():
        index, _, name = key.partition(".")
        slots.setdefault(int(index), {})[name] = value
    optimizer: dict[str, Any] = {
        "state": slots,
        "param_groups": [dict(group) for group in rest["optimizer"]["groups"]],
    }
    parts: dict[str, Any] = dict(
        zip(TENSORS, (groups["model"], groups["ema"], groups["method"]), strict=True)
    )
    values: dict[str, Any] = {**rest, **parts, "optimizer": optimizer}
    if "owed" in values:  # its name in states of earlier versions
        values["pending"] = values.pop("owed")
    state = TrainingState(**values)
    counts = state.stage, state.step, state.ema_updates
    if not isinstance(state.method, dict) or not all(type(n) is int and 0 <= n < 2**63 for n in counts):
        raise TypeError
    if not all(isinstance(value, int | float) for value in (*state.best.values(), *state.pending.values())):
        raise TypeError
    return state


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load an optimiser's state; lists become the tuples that the optimiser had.

    A file holds tensors contiguous, weights are channels last, and fused kernels take both for equally laid out: each
    tensor of the state is laid out as its weight.
    """
    fresh = optimizer.state_dict()["param_groups"]
    for group, original in zip(saved["param_groups"], fresh, strict=True):
        for key, value in original.items():
            if isinstance(value, tuple):
                group[key] = tuple(group[key])
    optimizer.load_state_dict(saved)
    for weight, slots in optimizer.state.items():
        for name, slot in slots.items():
            if isinstance(slot, Tensor) and slot.dim():
                if slot.shape != weight.shape:
                    raise ValueError(
                        f"{name} has shape {tuple(slot.shape)}, and its weight {tuple(weight.shape)}"
                    )
                slots[name] = torch.empty_like(weight, dtype=slot.dtype).copy_(slot)
