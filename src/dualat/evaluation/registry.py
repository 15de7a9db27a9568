"""Every metric by name: its file, what it gives, the settings that its values depend on, and what it needs. No torch.

A metric of dualat is a file in `evaluation/metrics/` and a row here. One of your own is a function in a file of your own:

    @dualat.register_metric("brightness", "mean pixel of samples", uses=("samples",), of_samples=True)
    def brightness(context): return dualat.Record("brightness", value, n)

`dualat.evaluate`, `dualat evaluate`, the fingerprints and the studies find both in METRICS.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dualat.evaluation.settings import EvaluationSettings
from dualat.results.catalogue import MetricValue, describe
from dualat.results.record import Record, as_json

if TYPE_CHECKING:
    from dualat.evaluation.context import EvaluationContext

Measure = Callable[["EvaluationContext"], Record | Sequence[Record]]
Function = TypeVar("Function", bound=Measure)


@dataclass(frozen=True)
class Metric:
    """One row."""

    name: str
    what: str
    """For people: the values that it gives."""
    uses: tuple[str, ...] = ()
    """Settings of EvaluationSettings that its values depend on."""
    of_samples: bool = False
    """Measured on samples, so that a file of them is enough."""
    draws: bool = False
    """Draws samples of its own, so that the model must have an initial distribution."""
    of_machine: bool = False
    """Its values depend on this machine and its number of threads."""
    function: Measure | None = None
    """What measures it; None: `measure` of the file of its name in `evaluation/metrics/`."""
    needs: Callable[["EvaluationContext"], object] | None = None
    """Asked before anything is measured: raises MissingWeights where weights are not there that not everybody has, and what
    the function would raise for images that it compares with. None: `needs` of that file, if it has one."""
    settings: Any = None
    """Settings of its own: a dataclass or a mapping of plain values, part of the fingerprint."""

    def measure(self, context: "EvaluationContext") -> list[Record]:
        """Its records, at least one."""
        found = (self.function or self._file().measure)(context)
        records = [found] if isinstance(found, Record) else found
        if not (
            isinstance(records, list | tuple) and records and all(isinstance(r, Record) for r in records)
        ):
            raise ValueError(
                f"the metric {self.what!r} gave {found!r:.60}: give a dualat.Record, or a list of them."
            )
        try:
            json.dumps(as_json(records))
        except TypeError as error:
            raise ValueError(
                f"a record of the metric {self.what!r} holds what cannot be written ({error}): give plain numbers, text, "
                "lists and dictionaries."
            ) from error
        return list(records)

    def check(self, context: "EvaluationContext") -> None:
        """Raise where what it needs is not there (see `needs`)."""
        needs = self.needs or (None if self.function else getattr(self._file(), "needs", None))
        if needs is not None:
            needs(context)

    def _file(self) -> Any:
        return import_module(f"dualat.evaluation.metrics.{self.name}")

    def own(self) -> dict[str, Any]:
        """What its values depend on besides dualat's version and settings: of a metric of one's own, code and settings."""
        told: dict[str, Any] = {}
        if self.function is not None:
            told["code"] = hashlib.sha256(_code(self.function)).hexdigest()
        if self.settings is not None:
            plain = isinstance(self.settings, Mapping)
            told["settings"] = dict(self.settings) if plain else asdict(self.settings)
        return told


def _code(function: Measure) -> bytes:
    """Content of the file in which a function stands; its own code, where there is none, as in a notebook."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # an object that can be called
        file = inspect.getsourcefile(type(function))
    if file and Path(file).is_file():
        return Path(file).read_bytes()
    code = getattr(function, "__code__", None)
    return b"" if code is None else code.co_code + repr(code.co_consts).encode()


ATTACK = ("norm", "steps", "robust_images")
SAMPLES = ("samples", "reference")
OOD = ("ood_sources", "ood_images", "ood_scores", "ood_eps", "ood_steps", "ood_step_size")
COUNTERFACTUAL = tuple(f"counterfactual_{name}" for name in ("eps", "images", "steps", "climb"))
ENERGY = ("energy_images", "ood_sources", "norm", "steps", "validation_eps")
ENSEMBLE = ("norm", "autoattack_eps", "validation_eps", "autoattack_images", "robust_images")

_ROWS = (
    Metric("clean_accuracy", "clean accuracy"),
    Metric("robust_accuracy", "robust accuracy under PGD, over eps", (*ATTACK, "eps", "large_eps")),
    Metric(
        "calibration",
        "ECE, clean and under attack",
        (*ATTACK, "bins", "temperature_scaling", "validation_eps"),
    ),
    Metric(
        "generation", "samples: class accuracy; Frechet, kernel, precision, recall", SAMPLES, of_samples=True
    ),
    Metric("imagenet_features", "samples: the same in ImageNet features", SAMPLES, of_samples=True),
    Metric(
        "inception",
        "samples: FID, KID, Inception Score, precision, recall",
        (*SAMPLES, "inception_weights"),
        of_samples=True,
    ),
    Metric("step_sweep", "number of sampling steps", ("sweep_steps", "sweep_samples"), draws=True),
    Metric("ood", "OOD detection, clean and under the adaptive attack", OOD),
    Metric(
        "counterfactual", "counterfactuals: validity, confidence, distance, Frechet distance", COUNTERFACTUAL
    ),
    Metric("energy", "energy of train, test, contrastive, adversarial, OOD images; R1", ENERGY),
    Metric("throughput", "images/s", ("norm", "steps", "validation_eps"), of_machine=True),
    Metric("apgd", "robust accuracy under APGD", ENSEMBLE),
    Metric("autoattack", "robust accuracy under AutoAttack standard", ENSEMBLE),
)
METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}

BASIC = ("clean_accuracy", "robust_accuracy", "generation")
"""What a training run ends with."""

_OURS = frozenset(METRICS)


def register_metric(
    name: str,
    what: str,
    *,
    uses: Sequence[str] = (),
    settings: Any = None,
    of_samples: bool = False,
    draws: bool = False,
    needs: Callable[["EvaluationContext"], object] | None = None,
    values: Mapping[str, MetricValue] | None = None,
) -> Callable[[Function], Function]:
    """A decorator that makes a function a metric: `measure(context) -> Record | list[Record]`.

    The fingerprint of its records holds its file's content, the settings that it uses and those of its own: where one of
    them changes, it is measured anew. A name that was registered before gets the new function.

    Args:
        name: by which it is asked for, as in `--metrics NAME`: letters, digits and _.
        what: for people: the values that it gives.
        uses: names of fields of EvaluationSettings that its values depend on.
        settings: settings of its own, a dataclass or a mapping of plain values.
        of_samples: it reads `context.samples` alone, so that a file of samples is enough.
        draws: it draws samples of its own, so that the model must have an initial distribution.
        needs: raises, before anything is measured, where the metric could not be.
        values: how its metric values are shown and compared, by the names in its records (see `describe`).

    Raises:
        ValueError: a name of dualat's or with other characters, or a setting that does not exist.
    """
    if name in _OURS:
        raise ValueError(f"metric {name!r} is one of dualat's: give yours another name.")
    if not name.isidentifier():
        raise ValueError(f"a metric cannot be named {name!r}: take letters, digits and _ alone.")
    known = {entry.name for entry in fields(EvaluationSettings)}
    if unknown := [setting for setting in uses if setting not in known]:
        raise ValueError(
            f"metric {name!r} uses {unknown[0]!r}, which is no setting of EvaluationSettings: pass settings of your own by "
            "`settings`."
        )

    def register(function: Function) -> Function:
        for value, row in (values or {}).items():
            describe(value, row)
        METRICS[name] = Metric(name, what, tuple(uses), of_samples, draws, False, function, needs, settings)
        return function

    return register
