"""What a study needs, checked before anything is trained: metrics, settings, files, run folders."""

import difflib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from plan import naming, nearest

from dualat.cli.arguments import UsageError
from dualat.config import RunConfig
from dualat.data.images import ImageData, Shape
from dualat.data.in_distribution import Splits, named_images
from dualat.data.initial import build_initial
from dualat.data.on_disk import open_images
from dualat.data.registry import SOURCES
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.measure import check_metrics, check_needs
from dualat.evaluation.metrics.ood import SCORES
from dualat.evaluation.registry import METRICS
from dualat.run.folder import changed_setting
from dualat.run.stages import stage_plan
from dualat.training.step import check_division

OOD_NOISE = ("uniform", "normal")
"""Out-of-distribution sources that need no files."""


def check_measured(metrics: list[str], evaluation: dict[str, Any]) -> None:
    """ValueError for a metric or a score that does not exist, and for settings that none of the metrics reads."""
    with naming("metrics"):
        check_metrics(metrics)
    used = {setting for name in metrics for setting in METRICS[name].uses}
    for key in evaluation:
        if metrics and key not in used:
            raise ValueError(f"evaluation.{key} is read by none of `metrics`: leave it out.")
    for score in evaluation.get("ood_scores", ()):
        if score not in SCORES:
            raise ValueError(f"evaluation.ood_scores: {score!r} is no score.{nearest(str(score), SCORES)}")


def check_files(name: str, study: dict[str, Any], config: RunConfig, splits: Splits) -> None:
    """FileNotFoundError or ValueError where images to start from, or weights that a metric needs, are not there; UsageError
    for sources that the study names itself."""
    if config.initial.kind == "images":
        build_initial(config.initial, splits.train.shape, splits.train)
    context = EvaluationContext(None, splits, replace(config.evaluation, **study["evaluation"]))
    if "ood_sources" in {setting for metric in study["metrics"] for setting in METRICS[metric].uses}:
        for source in context.settings.ood_sources:
            check_source(source, splits.train.shape, f"studies/{name}/study.yaml")
    for metric in study["metrics"]:
        check_needs(context, metric)


def check_stages(variant: str, config: RunConfig, train: ImageData) -> None:
    """UsageError where a variant's method, or the division of its batches, cannot be."""
    try:
        for _, method, settings in stage_plan(config, train):
            check_division(method, settings, min(settings.batch_size, len(train)))
    except ValueError as error:
        raise UsageError(f"variants.{variant}: {error}") from None


def check_source(source: str, shape: Shape, path: str) -> None:
    """UsageError where an out-of-distribution source is not there; no image of a folder is read."""
    try:
        if source in SOURCES:
            named_images(source, None)
        elif source not in OOD_NOISE:
            open_images(source, None, shape)
    except (ValueError, FileNotFoundError) as error:
        near = difflib.get_close_matches(source, OOD_NOISE, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"{path}: evaluation.ood_sources: {error}{hint}") from None


def check_run_folder(folder: Path, config: RunConfig, record: Path) -> None:
    """ValueError where the folder was trained with other settings: a record must not hold what was never trained."""
    known = folder / "config.yaml"
    if not known.is_file():
        return
    if difference := changed_setting(known, config, may_differ=("output",)):
        raise ValueError(
            f"{folder} was trained with other settings than the study has now ({difference}): restore the setting in "
            f"study.yaml, or remove the folder and its record, {os.path.relpath(record)}, to make the run again."
        )
