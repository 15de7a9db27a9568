"""What is known of each metric value: its title, its unit, which way is better, and what makes two of them comparable.

The table, the comparison, the report and the studies read it here. `describe` adds a row. A metric value without a row
works everywhere: its title is its name, all of its settings tell it from others, and none is the best.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

Key = Mapping[str, str]
"""What tells a metric value from others, as text: "metric", and by dotted name the settings that decide its meaning."""
Part = Callable[[Key], str]

ATTACKS = {"pgd": "PGD", "apgd": "APGD", "autoattack": "AutoAttack"}
"""Titles of attacks, the weakest first."""


@dataclass(frozen=True)
class MetricValue:
    """One row of the catalogue."""

    title: str
    unit: str = ""
    """share (from 0 to 1), distance, images/s ...; "": none."""
    better: Literal["more", "less", ""] = ""
    """"": no value is the best."""
    identity: tuple[str, ...] | None = None
    """Settings that make it another one, so that the two are not comparable; None: all."""
    told: tuple[Part, ...] = ()
    """What its name tells besides the title."""
    biased: bool = False
    """Whether it depends on the number of samples, so that this makes it another one as well."""
    of_samples: bool = False
    """Whether it is one of samples, which each seed draws anew."""
    stated: tuple[str, ...] = ()
    """Settings that a published value must state to be comparable with a measured one."""
    counted: Mapping[str, Callable[[Any], str]] = field(default_factory=dict)
    """As what a setting counts, where that is not its value."""
    short: str = ""
    """The title where there is little room."""


_OWN: dict[str, MetricValue] = {}


def describe(name: str, value: MetricValue) -> None:
    """Describe a metric value of one's own, by the name that its records have.

    Raises:
        ValueError: the name is one of dualat's.
    """
    if name in CATALOGUE:
        raise ValueError(f"metric value {name!r} is one of dualat's: give yours another name.")
    _OWN[name] = value


def described(name: str) -> MetricValue:
    """The row of a metric value; one that says nothing where there is none."""
    return CATALOGUE.get(name) or _OWN.get(name) or MetricValue(name.replace("_", " "))


def setting(name: str, words: str = "{}") -> Part:
    """A part of a name: the value of a setting, in words."""
    return lambda key: words.format(key[name]) if name in key else ""


def ball(key: Key) -> str:
    """'L2 0.5', 'Linf 8/255'."""
    if "norm" not in key or "eps" not in key:
        return "radius not stated"
    return f"{key['norm']} {radius(key['norm'], key['eps'])}"


def radius(norm: str, eps: str) -> str:
    """A radius; in Linf as levels where it is some: 8/255 rather than 0.0313725."""
    try:
        levels = float(eps) * 255
    except ValueError:
        return eps
    whole = norm == "Linf" and 0 < levels < 64 and abs(levels - round(levels)) < 1e-3
    return f"{round(levels)}/255" if whole else eps


def attack(key: Key) -> str:
    """'PGD-20', 'AutoAttack' ...; 'attack' where none is stated."""
    name = ATTACKS.get(key.get("attack", ""), key.get("attack", "attack"))
    return f"{name}-{key['steps']}" if "steps" in key and name != "AutoAttack" else name


def strength(name: Any) -> int:
    """Rank of an attack, 0 the weakest; -1: unknown."""
    return list(ATTACKS).index(str(name)) if str(name) in ATTACKS else -1


def attacked(key: Key) -> str:
    """Under which attack a value was taken; the score that it climbs where that is another than the value's."""
    if "attack.eps" not in key:
        return ""
    through = key.get("attack.objective", key.get("score"))
    words = f" through {through}" if through != key.get("score") else ""
    norm = key.get("attack.norm", "")
    return f"attacked{words} {norm} {radius(norm, key['attack.eps'])}"


def features(key: Key) -> str:
    """The network whose features are compared, shortly."""
    return key.get("features", "").split(",")[0]


def source(key: Key) -> str:
    """Where images come from; of a folder the last name."""
    path = PurePath(key.get("source", ""))
    return path.name if path.is_absolute() else key.get("source", "")


def steps(key: Key) -> str:
    return f"{key['steps']} steps" if key.get("steps", "0") != "0" else ""


def fitted(value: Any) -> str:
    """A fitted temperature is the model's own, as its weights are, whatever its value."""
    return "1" if value in (1, None) else "fitted"


def temperature(key: Key) -> str:
    return "temperature fitted" if key.get("temperature") == "fitted" else ""


_NETWORK = ("features", "resize", "weights_sha256")
_REFERENCE = (*_NETWORK, "reference", "reference_images", "reference_sha256", "reference_resize")
_SUBSETS = (*_REFERENCE, "subsets", "subset_size")
_BALL = ("norm", "eps", "steps", "step_size", "objective", "features")
_SPEED = ("task", "batch_size", "steps", "device", "threads", "precision", "tf32")


def _distance(title: str, identity: tuple[str, ...] = _REFERENCE, told: tuple[Part, ...] = ()) -> MetricValue:
    """Between samples and real images."""
    return MetricValue(title, "distance", "less", identity, told, biased=True, of_samples=True)


def _neighbours(title: str) -> MetricValue:
    """Precision and recall of Kynkäänniemi et al."""
    identity = (*_REFERENCE, "neighbours")
    return MetricValue(title, "share", "more", identity, (features,), biased=True, of_samples=True)


def _detection(title: str, better: Literal["more", "less"] = "more") -> MetricValue:
    parts = (source, setting("score", "score {}"), attacked)
    return MetricValue(title, "share", better, ("score", "source", "attack"), parts)


def _counterfactual(title: str, unit: str, better: Literal["more", "less"]) -> MetricValue:
    return MetricValue(
        title,
        unit,
        better,
        _BALL,
        (ball, lambda key: "by p(target)" if key.get("objective") == "target probability" else ""),
    )


CATALOGUE: dict[str, MetricValue] = {
    "clean_accuracy": MetricValue("clean accuracy", "share", "more", ()),
    "robust_accuracy": MetricValue(
        "robust accuracy",
        "share",
        "more",
        ("attack", "version", "attacks", "restarts", "norm", "eps", "steps"),
        (ball, attack),
        stated=("attack", "norm", "eps"),
        short="robust",
    ),
    "ece": MetricValue(
        "ECE",
        "share",
        "less",
        ("bins", "temperature", "attack"),
        (temperature, attacked),
        counted={"temperature": fitted},
    ),
    "sample_class_accuracy": MetricValue(
        "sample class accuracy", "share", "more", ("judge", "resize"), of_samples=True
    ),
    "frechet_distance": _distance("Frechet distance", told=(features,)),
    "kernel_distance": _distance("kernel distance", _SUBSETS, (features,)),
    "fid": _distance("FID"),
    "kid": _distance("KID", _SUBSETS),
    "inception_score": MetricValue(
        "Inception Score", "", "more", (*_NETWORK, "splits"), biased=True, of_samples=True
    ),
    "precision": _neighbours("precision of samples"),
    "recall": _neighbours("recall of samples"),
    "step_sweep": MetricValue("sampling steps by the sweep", "steps"),
    "ood_auroc": _detection("OOD AUROC"),
    "ood_aupr": _detection("OOD AUPR"),
    "ood_fpr95": _detection("OOD FPR95", "less"),
    "counterfactual_validity": _counterfactual("counterfactual validity", "share", "more"),
    "counterfactual_confidence": _counterfactual("counterfactual confidence", "share", "more"),
    "counterfactual_distance": _counterfactual("counterfactual distance", "distance", "less"),
    "counterfactual_frechet": _counterfactual("counterfactual Frechet distance", "distance", "less"),
    "energy": MetricValue("mean energy", told=(setting("images"),)),
    "r1": MetricValue("gradient norm R1", told=(setting("images"),)),
    "throughput": MetricValue("images/s", "images/s", "more", _SPEED, (setting("task"), steps)),
}
