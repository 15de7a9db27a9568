"""What the studies measure: figures of a run's records, of its course, and of its cost."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from reading import Figure, Measured, Run, Study, Values

from dualat.results.catalogue import described
from dualat.results.naming import flat, name
from dualat.results.record import outcomes


def measured(
    metric: str, called: Mapping[str, Any] | None = None, short: str = "", **settings: Any
) -> Figure:
    """The figure of a record's metric and settings, named as everywhere; a callable setting is asked whether the value fits.
    called: settings for the name, where it is not the record's own; short: its column's heading."""

    def fits(found: dict[str, Any]) -> bool:
        return all(
            wanted(found.get(name)) if callable(wanted) else found.get(name) == wanted
            for name, wanted in settings.items()
        )

    def of(run: Run) -> Measured | None:
        for record in run.get("records", []):
            if record.metric == metric and record.model == "final" and fits(record.settings):
                half = None if record.ci95 is None else (record.ci95[1] - record.ci95[0]) / 2
                return Measured(record.value, record.n, half, outcomes(record))
        return None

    plain = {name: value for name, value in settings.items() if not callable(value)}
    key = {"metric": metric, **flat(plain | dict(called or {}))}
    row = described(metric)
    return Figure(name(key), of, row.unit, short or name(key, short=True), row.of_samples, better=row.better)


def starts(text: str) -> Callable[[Any], bool]:
    """Whether a setting is a string that begins so."""
    return lambda value: isinstance(value, str) and value.startswith(text)


def in_features(features: str) -> Figure:
    """Frechet distance in the features of a network whose name begins so."""
    return measured("frechet_distance", {"features": features}, features=starts(features))


CLEAN = measured("clean_accuracy")
JUDGED = in_features("judge-cnn")
IMAGENET = in_features("imagenet-efficientnet")
CLASS_ACCURACY = measured("sample_class_accuracy", origin="model")
ECE = measured("ece", attack=None)


def pgd(eps: float) -> Figure:
    """Robust accuracy under PGD of 20 steps in L2."""
    return measured("robust_accuracy", attack="pgd", norm="L2", eps=eps, steps=20)


def autoattack(eps: float) -> Figure:
    """Robust accuracy under AutoAttack in L2."""
    return measured("robust_accuracy", attack="autoattack", norm="L2", eps=eps)


def counterfactual(value: str, eps: float) -> Figure:
    """A value of counterfactuals that climb f(x)[target]: validity, confidence, frechet."""
    return measured(f"counterfactual_{value}", norm="L2", eps=eps, objective="target logit")


def ood(source: str, score: str, eps: float | None = None) -> Figure:
    """AUROC of a score between test images and those of a source, clean or under the adaptive attack in L2."""
    said = {"source": source_name(source), "attack": eps and {"norm": "L2", "eps": eps}}
    return measured(
        "ood_auroc",
        said,
        f"{said['source']}, {'attacked' if eps else 'clean'}",
        source=source,
        score=score,
        attack=lambda found: bool(found) == bool(eps),
    )


def ood_sources(study: Study) -> list[str]:
    """Sources of all out-of-distribution records, in the order in which they were measured."""
    records = [r for runs in study.runs.values() for run in runs.values() for r in run.get("records", [])]
    return list(dict.fromkeys(r.settings["source"] for r in records if r.metric == "ood_auroc"))


def source_name(source: str) -> str:
    """A source for a heading; a folder by its own name."""
    path = Path(source)
    if path.is_absolute():
        return f"clip art ({path.name})" if "openclipart" in path.parts else path.name
    return source


def roughness(run: Run) -> Measured | None:
    """Mean |difference| of successive logged values of L_BCE in stage 2."""
    return _roughness([v for _, v in curve(run, "loss_energy", 2)])


def late_roughness(run: Run) -> Measured | None:
    """The same over the second half of stage 2, without the fall that it begins with."""
    values = [v for _, v in curve(run, "loss_energy", 2)]
    return _roughness(values[len(values) // 2 :])


def _roughness(values: list[float]) -> Measured | None:
    if len(values) < 2:
        return None
    return Measured(sum(abs(b - a) for a, b in pairwise(values)) / (len(values) - 1))


def late_r1(run: Run) -> Measured | None:
    """Mean R1 over the last fifth of stage 2's logged steps; infinite where it is no finite number."""
    return _late_r1(run, 2)


def last_r1(run: Run) -> Measured | None:
    """The same of the run's last stage."""
    return _late_r1(run, max(run["curves"]["stage"], default=1))


def _late_r1(run: Run, stage: int) -> Measured | None:
    values = [v for _, v in curve(run, "r1", stage)]
    if not values:
        return None
    tail = values[-max(1, len(values) // 5) :]
    mean = sum(tail) / len(tail)
    return Measured(mean if math.isfinite(mean) else math.inf)


def last_t(run: Run) -> Measured | None:
    """T of the curriculum at the last logged step."""
    values = logged_t(run)
    return Measured(values[-1]) if values else None


def mean_t(run: Run) -> Measured | None:
    """Mean T over the logged steps: what the steps cost on average."""
    values = logged_t(run)
    return Measured(sum(values) / len(values)) if values else None


def logged_t(run: Run) -> list[float]:
    """T of the curriculum, step by step: of DAT's stage 2, of AT-EBM's only stage; none where there is no curriculum."""
    return [t for t in run["curves"].get("T", []) if t is not None]


EXPLODED = 1000
"""|loss| beyond which a run counts as diverged: losses that train are below 10."""


def exploded(run: Run) -> bool:
    """Whether a logged loss was beyond it, or no number."""
    losses = [loss for loss in run["curves"].get("loss", []) if loss is not None]
    return any(not math.isfinite(loss) or abs(loss) > EXPLODED for loss in losses)


def unsteady(run: Run) -> bool:
    """Whether a run diverged, for a while or for good, or came near it: see `exploded`."""
    return bool(run["divergences"]) or exploded(run)


ROUGHNESS = Figure("roughness of L_BCE", roughness)
LATE_ROUGHNESS = Figure("roughness of L_BCE, second half", late_roughness)
LATE_R1 = Figure("R1 at the end of stage 2", late_r1, of_diverged=True)
LAST_R1 = Figure("R1 at the end", last_r1)
LAST_T = Figure("T at the end", last_t)
MEAN_T = Figure("mean T", mean_t)


def curve(run: Run, name: str, stage: int) -> list[tuple[int, float]]:
    """(step, value) of a logged figure in one stage."""
    curves = run["curves"]
    rows = zip(curves["stage"], curves["step"], curves.get(name, []), strict=False)
    return [(step, value) for at, step, value in rows if at == stage and value is not None]


def step_seconds(cost: dict[str, Any], variant: str, stage: str) -> dict[int, float] | None:
    """Seconds of a step by T of the curriculum, {0: seconds} where there is none; None for what was not timed."""
    by_t = cost["seconds_per_step"].get(variant, {}).get(stage)
    return None if by_t is None else {int(t): seconds for t, seconds in by_t.items()}


def seconds_at(by_t: dict[int, float], t: float) -> float:
    """Seconds of a step at T = t, on the line through the two that were timed."""
    if len(by_t) == 1:
        return by_t[0]
    (a, first), (b, second) = sorted(by_t.items())
    return first + (second - first) * (t - a) / (b - a)


def stage_seconds(run: Run, cost: dict[str, Any] | None) -> float | None:
    """Seconds of training: of cost.json where it knows the variant, else as the run's own log has it."""
    total = 0.0
    for stage, speed in run["images_per_second"].items():
        settings = run["config"][f"stage{stage}"]
        steps = settings["steps"]
        if steps is None:
            return None
        if cost is None:
            total += steps * settings["batch_size"] / speed
            continue
        by_t = step_seconds(cost, run["variant"], stage)
        if by_t is None:
            return None
        logged = [t for _, t in curve(run, "T", int(stage))]
        total += steps * seconds_at(by_t, sum(logged) / len(logged) if logged else 0)
    return total or None


def relative_cost(study: Study, variant: str) -> Values | None:
    """Training seconds of a variant's finished runs, relative to the mean of standard-at's."""

    def of(run: Run) -> Measured | None:
        seconds = stage_seconds(run, study.cost) if run["outcome"] == "finished" else None
        return None if seconds is None else Measured(seconds)

    figure = Figure("training seconds", of)
    own, base = study.values(variant, figure), study.values("standard-at", figure)
    if own is None or base is None:
        return None
    return Values({seed: Measured(m.value / base.mean) for seed, m in own.by_seed.items()})
