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

    function: str | Measure
    """What measures it: FILE:NAME in `evaluation/metrics/`, or the function itself."""
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
    needs: str | Callable[["EvaluationContext"], object] | None = None
    """Asked before anything is measured: raises MissingWeights where weights are not there that not everybody has, and what
    the function would raise for images that it compares with."""
    settings: Any = None
    """Settings of its own: a dataclass or a mapping of plain values, part of the fingerprint."""

    def measure(self, context: "EvaluationContext") -> list[Record]:
        """Its records, at least one."""
        found = _function(self.function)(context)
        records = [found] if isinstance(found, Record) else found
        if (
            not isinstance(records, list | tuple)
            or not records
            or not all(isinstance(r, Record) for r in records)
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
        if self.needs is not None:
            _function(self.needs)(context)

    def own(self) -> dict[str, Any]:
        """What its values depend on besides dualat's version and settings: of a metric of one's own, code and settings."""
        told: dict[str, Any] = {}
        if not isinstance(self.function, str):
            told["code"] = hashlib.sha256(_code(self.function)).hexdigest()
        if self.settings is not None:
            plain = isinstance(self.settings, Mapping)
            told["settings"] = dict(self.settings) if plain else asdict(self.settings)
        return told


def _function(named: str | Callable[..., Any]) -> Callable[..., Any]:
    """The function of a row, its file loaded."""
    if not isinstance(named, str):
        return named
    file, _, name = named.partition(":")
    return getattr(import_module(f"dualat.evaluation.metrics.{file}"), name)


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
ENSEMBLE = ("norm", "autoattack_eps", "validation_eps", "autoattack_images", "robust_images")

METRICS: dict[str, Metric] = {
    "clean_accuracy": Metric("clean_accuracy:measure", "clean accuracy"),
    "robust_accuracy": Metric(
        "robust_accuracy:measure", "robust accuracy under PGD, over eps", (*ATTACK, "eps", "large_eps")
    ),
    "calibration": Metric(
        "calibration:measure",
        "ECE, clean and under attack",
        (*ATTACK, "bins", "temperature_scaling", "validation_eps"),
    ),
    "generation": Metric(
        "generation:measure",
        "samples: class accuracy; Frechet, kernel, precision, recall",
        SAMPLES,
        of_samples=True,
        needs="generation:needs",
    ),
    "imagenet_features": Metric(
        "imagenet_features:measure",
        "samples: the same in ImageNet features",
        SAMPLES,
        of_samples=True,
        needs="imagenet_features:needs",
    ),
    "inception": Metric(
        "inception:measure",
        "samples: FID, KID, Inception Score, precision, recall",
        (*SAMPLES, "inception_weights"),
        of_samples=True,
        needs="inception:needs",
    ),
    "step_sweep": Metric(
        "step_sweep:measure", "number of sampling steps", ("sweep_steps", "sweep_samples"), draws=True
    ),
    "ood": Metric(
        "ood:measure", "OOD detection, clean and under the adaptive attack", OOD, needs="ood:needs"
    ),
    "counterfactual": Metric(
        "counterfactual:measure",
        "counterfactuals: validity, confidence, distance, Frechet distance",
        ("counterfactual_eps", "counterfactual_images", "counterfactual_steps", "counterfactual_climb"),
    ),
    "energy": Metric(
        "energy:measure",
        "energy of train, test, contrastive, adversarial, OOD images; R1",
        ("energy_images", "ood_sources", "norm", "steps", "validation_eps"),
        needs="ood:needs",
    ),
    "throughput": Metric(
        "throughput:measure", "images/s", ("norm", "steps", "validation_eps"), of_machine=True
    ),
    "apgd": Metric("autoattack:measure_apgd", "robust accuracy under APGD", ENSEMBLE),
    "autoattack": Metric("autoattack:measure", "robust accuracy under AutoAttack standard", ENSEMBLE),
}

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
        METRICS[name] = Metric(function, what, tuple(uses), of_samples, draws, needs=needs, settings=settings)
        return function

    return register
