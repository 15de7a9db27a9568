"""Evaluation of models: on a run's held-out images, and while training on its validation split."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.table import Table

from dualat.config import RunConfig
from dualat.data.images import evenly
from dualat.data.in_distribution import ImageData, Splits
from dualat.evaluation.accuracy import clean_accuracy
from dualat.evaluation.frechet import frechet_distance
from dualat.evaluation.generation import balanced_samples, generation_records
from dualat.evaluation.judge import Judge
from dualat.evaluation.record import Record, timed, write_records
from dualat.evaluation.robust import robust_accuracy
from dualat.evaluation.settings import EvaluationSettings
from dualat.geometry import ThreatModel
from dualat.load import LoadedModel, load
from dualat.pictures import grid, save_picture

METRICS = ("clean_accuracy", "robust_accuracy", "generation")


def evaluate(
    model: LoadedModel,
    data: ImageData | Splits,
    metrics: Sequence[str] = METRICS,
    settings: EvaluationSettings | None = None,
    seed: int = 0,
    judge: Judge | None = None,
) -> list[Record]:
    """Measure a model on held-out images, in fp32.

    Args:
        model: what `dualat.load` gives.
        data: held-out images; splits (their test split is used) where `generation` is measured, since its judge
            is trained on the training images.
        metrics: any of clean_accuracy, robust_accuracy, generation.
        settings: radii, attack steps, number of samples.
        seed: seed of the samples.
        judge: an independent judge, where one is there already.

    Returns:
        One record per figure. Raises ValueError for an unknown metric or splits that are missing.
    """
    settings = settings or EvaluationSettings()
    if unknown := [m for m in metrics if m not in METRICS]:
        raise ValueError(f"metric {unknown[0]!r} is unknown: give any of {', '.join(METRICS)}.")
    held_out = data.test if isinstance(data, Splits) else data
    records = []
    if "clean_accuracy" in metrics:
        records.append(timed(lambda: clean_accuracy(model, held_out)))
    if "robust_accuracy" in metrics:
        attacked = held_out.take(evenly(len(held_out), settings.robust_images or len(held_out)))
        for eps in settings.eps:
            threat = ThreatModel(settings.norm, eps)
            records.append(
                timed(lambda threat=threat: robust_accuracy(model, attacked, threat, settings.steps))
            )
    if "generation" in metrics:
        if judge is None:
            if not isinstance(data, Splits):
                raise ValueError("generation needs a judge trained on the training images: pass the splits.")
            judge = Judge(data.train)
        records += generation_records(model, held_out, judge, settings.samples, seed)
    return records


def evaluate_run(folder: Path, config: RunConfig, splits: Splits, device: torch.device) -> list[Record]:
    """Measure a finished run's model, what its samples start from, and its stage-1 model where there is one; write evaluation.json and the
    final sample grid."""
    judge = Judge(splits.train)
    paths = {"final": folder / "model.safetensors"}
    if config.method == "dat" and config.stages == "both":
        paths["stage1"] = folder / "checkpoints" / "stage1.safetensors"
    records = []
    for name, path in paths.items():
        model = load(path, device)
        for record in evaluate(model, splits, METRICS, config.evaluation, config.seed, judge):
            records.append(replace(record, model=name, seed=config.seed))
        if name == "final":
            starts = generation_records(
                model, splits.test, judge, config.evaluation.samples, config.seed, steps=0
            )
            records += [replace(record, model="start") for record in starts]
    write_records(folder / "evaluation.json", records)
    save_grid(load(paths["final"], device), folder / "samples" / "final.png", config.seed)
    return records


def table(records: Sequence[Record], title: str) -> Table:
    """Records as a table: one row per figure, one column per model."""
    models = list(dict.fromkeys(r.model for r in records))
    view = Table(title=title, title_justify="left")
    view.add_column("figure")
    for name in models:
        view.add_column(name, justify="right")
    view.add_column("n", justify="right")
    rows: dict[str, dict[str, Record]] = {}
    for record in records:
        rows.setdefault(row_name(record), {})[record.model] = record
    for name, cells in rows.items():
        view.add_row(
            name, *(cell(cells[m]) if m in cells else "" for m in models), str(next(iter(cells.values())).n)
        )
    return view


def row_name(record: Record) -> str:
    """A figure with the settings that tell it from its neighbours."""
    s = record.settings
    if record.metric == "robust_accuracy":
        return f"robust accuracy, {s['norm']} {s['eps']:g}, PGD-{s['steps']}"
    if record.metric == "sample_class_accuracy":
        return "samples: class accuracy"
    if record.metric == "frechet_distance":
        return "samples: Frechet distance"
    return record.metric.replace("_", " ")


def cell(record: Record) -> str:
    """Value, and half the width of its 95 % interval."""
    if record.ci95 is None:
        return f"{record.value:.2f}"
    return f"{record.value:.3f} ±{(record.ci95[1] - record.ci95[0]) / 2:.3f}"


def save_grid(model: LoadedModel, path: Path, seed: int, per_class: int = 10) -> None:
    """A grid of samples, one class per column (at most 10 classes)."""
    classes = min(10, len(model.class_names))
    images, _ = balanced_samples_of(model, classes, per_class * classes, seed)
    save_picture(grid(images, classes), path)


def balanced_samples_of(
    model: LoadedModel, classes: int, count: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples of the first `classes` classes in turn."""
    from dualat.sampling import sample

    labels = torch.arange(count) % classes
    return sample(model, labels, generator=torch.Generator().manual_seed(seed)).cpu(), labels


def validation_evaluator(
    config: RunConfig, splits: Splits, folder: Path
) -> Callable[[LoadedModel, int, int], dict[str, float]]:
    """The evaluator that the training loop calls: figures on the validation split, and a sample grid."""
    settings = config.evaluation
    chosen = splits.validation.take(evenly(len(splits.validation), settings.validation_images))
    judge = Judge(splits.train)
    reference = judge.features(splits.validation.float())

    def evaluator(model: LoadedModel, stage: int, step: int) -> dict[str, float]:
        threat = ThreatModel(settings.norm, settings.validation_eps)
        images, labels = balanced_samples(model, settings.validation_samples, config.seed)
        save_grid(model, folder / "samples" / f"stage{stage}-{step:06d}.png", config.seed)
        return {
            "clean_accuracy": clean_accuracy(model, chosen).value,
            "robust_accuracy": robust_accuracy(model, chosen, threat, settings.steps).value,
            "sample_class_accuracy": float((judge.predict(images) == labels).float().mean()),
            "frechet_distance": frechet_distance(judge.features(images), reference),
        }

    return evaluator


def as_json(records: Sequence[Record]) -> list[dict]:
    """Records as plain values."""
    return [asdict(r) for r in records]
