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
from dualat.data.images import ImageData, Splits, evenly
from dualat.evaluation.attack import Attacked, under_attack
from dualat.evaluation.judge import Judge
from dualat.evaluation.logits import gradient_norms, shared_logits
from dualat.evaluation.outside import outside_images
from dualat.evaluation.precision_recall import require_neighbours
from dualat.evaluation.reference import Reference, read_reference
from dualat.evaluation.registry import METRICS
from dualat.evaluation.reuse import add_tensors, file_state
from dualat.evaluation.samples import ImageSet, from_model
from dualat.evaluation.settings import EvaluationSettings
from dualat.models.model import LoadedModel
from dualat.system.devices import device_name

Progress = Callable[[str, int, int], None]
"""progress(what, done, in all)"""
Found = TypeVar("Found")


@dataclass(eq=False)
class EvaluationContext:
    """A model or somebody's samples, with the data that they are measured on.

    Attributes:
        model: what `dualat.load` gives; None where samples alone are measured.
        data: the real images, in splits; metrics are measured on the test split.
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
                "this metric is one of a model, and there are samples alone: give a run folder or weights."
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

    @property
    def _reference_split(self) -> ImageData | None:
        """The split that the setting `reference` names; None where it names something else."""
        return {"test": self.data.test, "train": self.data.train}.get(self.settings.reference)

    @cached_property
    def reference(self) -> Reference:
        """What samples are compared with, in their shape."""
        source = self.settings.reference if self._reference_split is None else self._reference_split
        return read_reference(source, self.data.train.shape if self.given is None else self.given.shape)

    def check_reference(self, dimension: int, features: str, published: bool = False) -> None:
        """ValueError or FileNotFoundError, before a sample is drawn, where the reference is none for the metric.

        Args:
            dimension, features: number of the metric's features, and their name.
            published: the metric takes the statistics of a reference that has images too.
        """
        images = self._reference_split  # which is not decoded for it
        if images is None:
            images = self.reference.images
            if images is None or (published and self.reference.statistics):
                self.reference.require_statistics(dimension, features)
        if images is not None:
            require_neighbours(self.sample_count, len(images))

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
            add_tensors(digest, sorted({**self.model.state_dict(), **initial}.items()), types=False)
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
