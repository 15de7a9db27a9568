"""The weights among all that a file holds, without the prefixes that wrappers gave them; normalisation beside them."""

import re
from dataclasses import dataclass, field
from typing import Any

from dualat.system.pickles.values import Inert, Refused, StoredTensor, as_tensor

PREFERRED = ("model_state_dict", "state_dict", "model", "net", "network", "last")
"""Names under which checkpoints keep weights, the one to take first."""
_AVERAGED = re.compile(r"(.*[._])?(ema|swa|averaged?|(model|module|net|network)_avg|avg_\w+)([._].*)?")
_NO_WEIGHTS = re.compile(r"opt|optim|grad|exp_avg")
WRAPPERS = ("module.", "model.", "base_model.", "network.", "net.", "_orig_mod.")
"""Prefixes by DataParallel, averaging, normalising and attacking wrappers, and torch.compile."""
_NORMALISER = re.compile(r"(?:(?:normalizer|normalize|normalization)\.)?(?:new_)?(mean|mu|std|sigma)")
_DEEPEST = 4


@dataclass
class State:
    """Weights of one network.

    Attributes:
        tensors: by name, wrappers' prefixes taken off.
        mean, std: input normalisation, where the file has it.
        marks: what was taken off or left out; they tell whose file it is.
        part: name of the part of the file; "" for all of it.
        other_parts: further parts that hold weights.
    """

    tensors: dict[str, StoredTensor]
    mean: StoredTensor | None = None
    std: StoredTensor | None = None
    marks: set[str] = field(default_factory=set)
    part: str = ""
    other_parts: list[str] = field(default_factory=list)


def find_state(content: Any, part: str | None = None) -> State:
    """The weights in a file's content.

    part: name of the part to take, as in "state_dict" or "checkpoint.model"; None: averaged weights, as timm does, else by
    PREFERRED, else the largest.

    Raises Refused where there are none, or no such part.
    """
    parts = weight_parts(content)
    if not parts:
        what = f"an object of {content.name}" if isinstance(content, Inert) else "no state dict"
        raise Refused(
            f"it holds {what}, and weights are read from a state dict alone: save state_dict() where you trust the file"
        )
    if part is not None and part not in parts:
        raise Refused(f"it has no part {part!r}: give one of {', '.join(repr(name) for name in parts)}")
    chosen = first_choice(parts) if part is None else part
    state = unwrap(parts[chosen])
    state.part, state.other_parts = chosen, [name for name in parts if name != chosen]
    return state


def weight_parts(content: Any) -> dict[str, dict[str, StoredTensor]]:
    """Every dict of the content most of whose entries are tensors, by dotted name; "" for the content itself."""
    parts: dict[str, dict[str, StoredTensor]] = {}
    seen: set[int] = set()
    level = {"": content}
    for _ in range(_DEEPEST):
        below: dict[str, Any] = {}
        for name, value in level.items():
            if not isinstance(value, dict) or id(value) in seen:
                continue
            seen.add(id(value))
            tensors = {key: entry for key, raw in value.items() if (entry := as_tensor(raw)) is not None}
            if len(tensors) > 1 and 2 * len(tensors) >= len(value):
                parts[name] = tensors
            below |= {f"{name}.{key}".lstrip("."): v for key, v in value.items() if isinstance(v, dict)}
        level = below
    return parts


def first_choice(parts: dict[str, dict[str, StoredTensor]]) -> str:
    """Averaged weights before others: those with such a word in their dotted name."""
    averaged = [name for name in parts if _AVERAGED.fullmatch(name) and not _NO_WEIGHTS.search(name)]
    if averaged:
        return max(averaged, key=lambda name: len(parts[name]))
    for wanted in PREFERRED:
        for name in parts:
            if name.rpartition(".")[2] == wanted:
                return name
    return max(parts, key=lambda name: len(parts[name]))


def unwrap(tensors: dict[str, StoredTensor]) -> State:
    """Take off wrappers' prefixes, one after the other, and what the wrappers themselves hold."""
    state = State(dict(tensors))
    while True:
        take_extras(state)
        prefix = next(
            (p for p in WRAPPERS if state.tensors and all(k.startswith(p) for k in state.tensors)), None
        )
        if prefix is None:
            return state
        state.marks.add(prefix)
        state.tensors = {name.removeprefix(prefix): value for name, value in state.tensors.items()}


def take_extras(state: State) -> None:
    """Averaging's counter, MadryLab's second copy of the network in its attacker, and a normaliser's numbers."""
    names = list(state.tensors)
    for name in names:
        if name == "n_averaged":
            state.marks.add("n_averaged")
            del state.tensors[name]
        elif name.startswith("attacker.") and any(other.startswith("model.") for other in names):
            state.marks.add("attacker.")
            del state.tensors[name]
    found = {match[1]: name for name in state.tensors if (match := _NORMALISER.fullmatch(name))}
    for mean, std in (("mean", "std"), ("mu", "sigma")):
        if mean in found and std in found:
            state.mean, state.std = state.tensors.pop(found[mean]), state.tensors.pop(found[std])
