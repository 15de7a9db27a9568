"""What is measured, and what several metrics need of it and is computed once: logits, attacks, judge, samples, reference."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from dualat import __version__
from dualat.core.classifier import device_of
from dualat.core.geometry import ThreatModel
from dualat.data.images import ImageData, Shape, Splits, evenly
from dualat.data.listing import walk
from dualat.evaluation.attack import Attacked, under_attack
from dualat.evaluation.judge import Judge
from dualat.evaluation.logits import gradient_norms, shared_logits
from dualat.evaluation.needs import check_reference, own_split, reference_of
from dualat.evaluation.outside import outside_images
from dualat.evaluation.reference import Reference
from dualat.evaluation.registry import METRICS
from dualat.evaluation.samples import ImageSet, from_model
from dualat.evaluation.settings import EvaluationSettings
from dualat.models.model import LoadedModel
from dualat.system.devices import device_name
from dualat.system.files import cache_folder

Progress = Callable[[str, int, int], None]
"""progress(what, done, in all)"""
Found = TypeVar("Found")


@dataclass(eq=False)
class EvaluationContext:
    """A model or somebody's samples, with the data that they are measured on.

    Attributes:
        model: what `dualat.load` gives; None where samples alone are measured.
        data: the real images, in splits; figures are of the test split.
        given: samples made elsewhere; None: the model draws them.
        sampling_steps: in place of the model's own; 0 measures what samples start from.
        keep: folder in which half-done work survives a kill; None: nothing is kept.
    """

    model: LoadedModel | None
    data: Splits
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    seed: int = 0
    given: ImageSet | None = None
    sampling_steps: int | None = None
    keep: Path | None = None
    progress: Progress = lambda what, done, total: None
    _known: dict[tuple, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.given is not None:
            self.given = self.given.of_classes(self.data.train.class_names, self.data.train.name)

    @property
    def required_model(self) -> LoadedModel:
        """The model, or a ValueError where there are samples alone."""
        if self.model is None:
            raise ValueError(
                "this figure is one of a model, and there are samples alone: give a run folder or weights."
            )
        return self.model

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.data.train, device=self.device)

    def held_out(self, wanted: int | None = None) -> ImageData:
        """Test images: all, or `wanted` evenly picked ones."""
        test = self.data.test
        return test if wanted is None else test.take(evenly(len(test), wanted))

    def once(self, key: tuple, compute: Callable[[], Found]) -> Found:
        """compute(), or what it gave when this key was asked for before."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def logits(self, wanted: int | None = None) -> Tensor:
        """The model's logits (N, K) of `held_out(wanted)`, float32 on the CPU."""
        data = self.held_out(wanted)
        return self.once(("logits", len(data)), lambda: shared_logits(self.required_model, data))

    def gradient_norms(self, wanted: int | None = None) -> Tensor:
        """|| grad_x E(x) || (N,) of `held_out(wanted)`."""
        data = self.held_out(wanted)
        return self.once(("gradient norms", len(data)), lambda: gradient_norms(self.required_model, data))

    def attacked(self, threat: ThreatModel, wanted: int | None = None) -> Attacked:
        """What PGD of the settings' number of steps makes of `held_out(wanted)`, one attack for all metrics."""
        data, steps = self.held_out(wanted), self.settings.steps
        key = ("attacked", len(data), threat, steps)
        return self.once(key, lambda: under_attack(self.required_model, data, threat, steps))

    def outside(self, source: str, wanted: int) -> ImageData:
        """`wanted` out-of-distribution images of a source, in the shape of the data's."""
        shape = self.data.test.shape
        return self.once(
            ("outside", source, wanted), lambda: outside_images(source, shape, wanted, self.seed)
        )

    def drawn(self, count: int) -> ImageSet:
        """Class-balanced samples of the model by its own number of steps, with this seed; `samples`, where they are that."""
        if self.given is None and self.sampling_steps is None and count == self.settings.samples:
            return self.samples
        return self.once(("drawn", count), lambda: from_model(self.required_model, count, self.seed))

    @cached_property
    def samples(self) -> ImageSet:
        """The given samples, or class-balanced ones of the model."""
        if self.given is not None:
            return self.given
        return from_model(
            self.required_model,
            self.settings.samples,
            self.seed,
            state=self.partial("samples", ("samples",)),
            steps=self.sampling_steps,
            progress=lambda done, total: self.progress("samples", done, total),
        )

    @cached_property
    def reference(self) -> Reference:
        """What samples are compared with, in their shape."""
        return reference_of(self.settings.reference, self.data, self.sample_shape)

    def check_reference(self, dimension: int, features: str, published: bool = False) -> None:
        """ValueError or FileNotFoundError where the reference is none for this number of these features (see needs.py)."""
        split = own_split(self.settings.reference, self.data)
        reference = self.reference if split is None else split
        check_reference(reference, self.sample_count, dimension, features, published)

    @property
    def sample_shape(self) -> Shape:
        """(C, H, W) of the samples, drawn or not."""
        return self.required_model.shape if self.given is None else self.given.shape

    @property
    def sample_count(self) -> int:
        """Number of the samples, drawn or not."""
        return self.settings.samples if self.given is None else len(self.given)

    @cached_property
    def content(self) -> str:
        """Hash of the weights, or of the samples with their labels, and of every real image."""
        digest = hashlib.sha256()
        for part in (self.data.train, self.data.validation, self.data.test):
            digest.update(part.content.encode())
        if self.given is not None:
            digest.update(self.given.content.encode())
            if self.given.labels is not None:
                digest.update(self.given.labels.contiguous().numpy().data)
        if self.model is not None:
            digest.update(json.dumps(asdict(self.model.description), sort_keys=True).encode())
            initial = self.model.initial.state() if self.model.initial else {}
            for name, tensor in sorted({**self.model.state_dict(), **initial}.items()):
                digest.update(f"{name} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    @property
    def device(self) -> torch.device:
        """Where the model is; the CPU for samples alone."""
        return torch.device("cpu") if self.model is None else device_of(self.model)

    def key(self, metric: str, used: Sequence[str]) -> str:
        """Fingerprint of a metric's records, METRIC:CONTENT:HASH; the hash is taken over content, seed, kind of device,
        dualat's version, the settings that the metric uses, and the state of the files that they name."""
        values = asdict(self.settings)
        told: dict[str, Any] = {
            "content": self.content,
            "seed": self.seed,
            "sampling_steps": self.sampling_steps,
            "device": self.device.type,
            "dualat": __version__,
            **{name: [values[name], file_state(values[name])] for name in used},
        }
        if (row := METRICS.get(metric)) is not None:
            told |= row.own()
            if row.of_machine:
                told["hardware"] = [device_name(self.device), torch.get_num_threads()]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        return f"{metric}:{self.content[:12]}:{digest[:16]}"

    def partial(self, name: str, used: Sequence[str]) -> Path | None:
        """A folder for half-done work of a metric, of this fingerprint alone; None where nothing is kept."""
        return None if self.keep is None else self.keep / self.key(name, used).replace(":", "-")

    def forget(self, name: str, used: Sequence[str]) -> None:
        """Remove the half-done work of a metric: it is measured."""
        if (folder := self.partial(name, used)) is not None:
            shutil.rmtree(folder, ignore_errors=True)


def file_state(value: Any) -> list[Any]:
    """Name, size and time of change of every file that a setting (a path, or several) names; [] for other values."""
    found = []
    for entry in value if isinstance(value, tuple | list) else (value,):
        path = Path(entry).expanduser() if isinstance(entry, str) else None
        if path is None or not path.exists():
            continue
        files = (
            [(path / name, entry.stat()) for name, entry in walk(path) if entry.is_file()]
            if path.is_dir()
            else []
        )
        for file, state in sorted(files) if path.is_dir() else [(path, path.stat())]:
            found.append([str(file), state.st_size, state.st_mtime_ns])
    return found


def partial_folder(target: Path, name: str) -> Path:
    """Where half-done work on a target (a path) and one of its models is kept between calls."""
    digest = hashlib.sha256(f"{target.resolve()} {name}".encode()).hexdigest()
    return cache_folder() / "partial" / digest[:16]
