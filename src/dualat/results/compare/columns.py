"""Which figures may stand in one column, what a column is called, and what is still different inside it.

Figures share a column only where what decides their meaning is the same: attack and radius, features, reference and,
where the number of samples biases the figure, that number. Whatever else differs in a column gets a footnote.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_SAMPLES = (
    "features",
    "resize",
    "weights_sha256",
    "reference",
    "reference_images",
    "reference_sha256",
    "reference_resize",
    "judge",
    "splits",
    "subsets",
    "subset_size",
    "neighbours",
)
_SPEED = ("task", "batch_size", "steps", "device", "threads", "precision", "tf32")
_BALL = ("norm", "eps", "steps", "step_size", "objective", "features")
BIASED = {"fid", "kid", "inception_score", "frechet_distance", "kernel_distance", "precision", "recall"}
"""Metrics whose value depends on the number of samples."""
IDENTITY: dict[str, tuple[str, ...]] = {
    "clean_accuracy": (),
    "robust_accuracy": ("attack", "version", "attacks", "restarts", "norm", "eps", "steps"),
    "sample_class_accuracy": _SAMPLES,
    **dict.fromkeys(sorted(BIASED), _SAMPLES),
    "ece": ("bins", "temperature", "attack"),
    "throughput": _SPEED,
    **dict.fromkeys(("ood_auroc", "ood_aupr", "ood_fpr95"), ("score", "source", "attack")),
    **{f"counterfactual_{name}": _BALL for name in ("validity", "confidence", "distance", "frechet")},
}
"""Settings that make another figure of a metric; of a metric not named here: all."""
BETTER: dict[str, int] = {
    **dict.fromkeys(("clean_accuracy", "robust_accuracy", "sample_class_accuracy", "inception_score"), 1),
    **dict.fromkeys(("precision", "recall", "ood_auroc", "ood_aupr", "throughput"), 1),
    **dict.fromkeys(("counterfactual_validity", "counterfactual_confidence"), 1),
    **dict.fromkeys(("fid", "kid", "frechet_distance", "kernel_distance", "ece", "ood_fpr95"), -1),
    **dict.fromkeys(("counterfactual_distance", "counterfactual_frechet"), -1),
}
"""1: more is better, -1: less. Other metrics have no best value."""
TITLES = {
    "fid": "FID",
    "kid": "KID",
    "ece": "ECE",
    "r1": "R1",
    "inception_score": "Inception Score",
    "frechet_distance": "Frechet distance",
    "throughput": "images/s",
    "ood_auroc": "OOD AUROC",
    "ood_aupr": "OOD AUPR",
    "ood_fpr95": "OOD FPR95",
}
OWN = {"seed", "interval", "samples_sha256", "seconds_each"}
"""What differs between any two records and needs no footnote."""
Record = Mapping[str, Any]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as text by dotted name; what is None is left out."""
    result: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            result[f"{prefix}{key}"] = written(value)
    return result


def written(value: Any) -> str:
    """A setting's value as text."""
    if isinstance(value, (list, tuple)):
        return " ".join(written(v) for v in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def identity(record: Record) -> dict[str, str]:
    """What tells a figure from its neighbours: the metric and what decides its meaning."""
    metric, settings = record["metric"], record["settings"]
    names = IDENTITY.get(metric, tuple(settings))
    chosen = {k: settings[k] for k in names if k in settings}
    if metric == "ece":  # a fitted temperature is the model's own, as its weights are
        chosen["temperature"] = "1" if chosen.get("temperature", 1) in (1, None) else "fitted"
    if metric in BIASED - {"inception_score"}:  # what the samples are compared with
        chosen["split"] = record["split"]
    if metric in BIASED:
        chosen["n"] = record["n"]
    if metric not in BIASED and record["split"] != "test":
        chosen["split"] = record["split"]
    return {"metric": metric, **flat(chosen)}


def everything(record: Record) -> dict[str, str]:
    """All that a record says of how it was measured."""
    rest = {"n": record["n"], "seed": record["seed"]}
    if record["metric"] != "inception_score":
        rest["split"] = record["split"]
    return {"metric": record["metric"], **flat(record["settings"]), **flat(rest)}


def agree(stated: Mapping[str, str], column: Mapping[str, str]) -> bool:
    """Whether a published figure belongs to a column: nothing that it states contradicts it, and what makes an attack
    is stated."""
    if any(key in column and column[key] != value for key, value in stated.items()):
        return False
    needed = ("attack", "norm", "eps") if stated["metric"] == "robust_accuracy" else ()
    return stated["metric"] == column["metric"] and all(key in stated and key in column for key in needed)


def spoken(key: str) -> str:
    return key.replace("_", " ").replace(".", " ")


def named(keys: Sequence[dict[str, str]]) -> list[str]:
    """A different name for each column: short, with what tells it from columns of the same short name."""
    short = [short_name(key) for key in keys]
    names = []
    for key, name in zip(keys, short, strict=True):
        alike = [k for k, s in zip(keys, short, strict=True) if s == name]
        telling = [
            k for k in dict.fromkeys(k for a in alike for k in a) if len({a.get(k) for a in alike}) > 1
        ]
        words = [f"{spoken(k)} {key.get(k, 'not stated')}" for k in telling]
        names.append(", ".join([name, *words]))
    return [
        f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name for i, name in enumerate(names)
    ]


def short_name(key: Mapping[str, str]) -> str:
    """A figure with the settings that a reader asks for first."""
    metric = key["metric"]
    title = TITLES.get(metric, spoken(metric))
    ball = f"{key['norm']} {radius(key['eps'])}" if "norm" in key and "eps" in key else "radius not stated"
    if metric == "robust_accuracy":
        parts = [ball, attack_name(key)]
    elif metric in ("sample_class_accuracy", *BIASED):
        title = title if metric in TITLES else f"samples: {spoken(metric.removeprefix('sample_'))}"
        parts = [key.get("features", ""), f"n {key['n']}" if "n" in key else ""]
    elif metric.startswith("ood_"):
        parts = [key.get("source", ""), f"score {key['score']}" if "score" in key else ""]
    elif metric.startswith("counterfactual_"):
        parts = [ball, "by p(target)" if key.get("objective") == "target probability" else ""]
    else:
        parts = [key[k] for k in ("task", "images") if k in key]
    if metric == "ece" and key.get("temperature") == "fitted":
        parts.append("temperature fitted")
    if "attack.eps" in key:
        parts.append(f"attacked {key.get('attack.norm', '')} {key['attack.eps']}")
    if "split" in key and key["split"] != "test":
        parts.append(f"{'against ' if metric in BIASED else ''}{key['split']} images")
    return ", ".join([title, *(p for p in parts if p)])


def radius(eps: str) -> str:
    """A radius; 8/255 rather than 0.0313725."""
    try:
        levels = float(eps) * 255
    except ValueError:
        return eps
    return f"{round(levels)}/255" if 0 < levels < 64 and abs(levels - round(levels)) < 1e-3 else eps


def attack_name(key: Mapping[str, str]) -> str:
    name = key.get("attack", "attack")
    name = {"pgd": "PGD", "apgd": "APGD", "autoattack": "AutoAttack"}.get(name, name)
    return f"{name}-{key['steps']}" if "steps" in key and name != "AutoAttack" else name


def differences(records: Sequence[Record]) -> list[str]:
    """For each figure of a column, in words, the settings in which it differs from another one; "" where none does."""
    facts = []
    for record in records:
        told = everything(record)
        known = identity(record)
        open_ = {k: v for k, v in told.items() if k not in OWN and known.get(k) != v}
        if record["metric"] == "ece" and known["temperature"] == "1":
            open_.pop("temperature", None)
        facts.append(open_)
    keys = [k for k in dict.fromkeys(k for f in facts for k in f) if len({f.get(k) for f in facts}) > 1]
    return [", ".join(f"{spoken(k)} {f.get(k, 'not stated')}" for k in keys) for f in facts]
