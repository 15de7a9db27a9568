"""Evaluation of models and of samples: on a run's held-out images, and while training on its validation split."""

import copy
import difflib
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dualat.config import RunConfig
from dualat.core.classifier import NotFinite, device_of
from dualat.core.geometry import ThreatModel
from dualat.core.sampler_settings import SamplingSettings
from dualat.counterfactuals import change_strip, explain
from dualat.data.images import evenly
from dualat.data.in_distribution import ImageData, Splits
from dualat.data.own import OwnData, own_splits, split_by
from dualat.data.pictures import grid, save_picture
from dualat.data.starts import Start
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.features import JudgeFeatures
from dualat.evaluation.frechet import frechet_distance
from dualat.evaluation.inception_weights import MissingWeights
from dualat.evaluation.judge import Judge
from dualat.evaluation.masking import grey_radius, masking_warnings, note_masking
from dualat.evaluation.metrics.clean_accuracy import clean_accuracy
from dualat.evaluation.metrics.robust_accuracy import robust_accuracy
from dualat.evaluation.registry import BASIC, METRICS
from dualat.evaluation.samples import ImageSet, from_model
from dualat.evaluation.settings import EvaluationSettings
from dualat.evaluation.store import change_records, check_writable, known_records, set_aside
from dualat.models.model import LoadedModel, load
from dualat.models.own import as_model
from dualat.results.record import Record
from dualat.system.distributed import is_first, ranks, total
from dualat.system.precision import choose_device, float32_by_default, strict_fp32
from dualat.system.seeds import check_seed

Told = Callable[[str], None]
"""Takes a line for a person."""


def evaluate(
    model: nn.Module | None,
    data: OwnData,
    metrics: Sequence[str] | None = None,
    settings: EvaluationSettings | None = None,
    seed: int = 0,
    samples: ImageSet | None = None,
    *,
    initial: Start | None = None,
    sampling: SamplingSettings | None = None,
) -> list[Record]:
    """Measure a model, or samples made elsewhere, on held-out images, in fp32.

    Args:
        model: what `dualat.load` gives, or any module from images (N, C, H, W) in [0, 1] to logits (N, K); None where
            samples alone are measured.
        data: real images: splits, as `dualat.data.in_distribution.load_splits` gives them, a mapping with the keys train,
            validation and test, or a Dataset or pair of tensors, which is split as `dualat.train` splits it (own.py).
            Figures are of the test split.
        metrics: names in `dualat.evaluation.registry.METRICS`; None: clean and robust accuracy, and, where there is
            something that samples start from, generation.
        settings: radii, steps, numbers of images and samples ...
        seed: of samples, attacks and intervals.
        samples: as `dualat.evaluation.samples.read_samples` gives them; None: the model draws them.
        initial: what the model's samples start from, in place of its own ("gaussian" is fitted to the training split); a
            bare module has none.
        sampling: how they descend, in place of the model's own; of a bare module the defaults.

    Returns:
        One record per figure.

    Raises:
        ValueError: an unknown metric, data and settings that cannot work, or something that a bare module lacks.
        FileNotFoundError: weights that a metric needs are not there.
    """
    check_metrics(metrics or ())
    check_seed(seed)
    splits = splits_for(model, data)
    if model is not None:
        train = splits.train
        model = as_model(
            model, train.shape, train.class_names, initial=initial, sampling=sampling, train=train
        )
    context = EvaluationContext(model, splits, settings or EvaluationSettings(), seed, samples)
    if metrics is None:
        metrics = [name for name in BASIC if not lacks_initial(context, name)]
        if len(metrics) < len(BASIC):
            warnings.warn(
                "samples are not measured: there is no `initial` that they start from.", stacklevel=2
            )
    for name in metrics:  # before hours are spent on another metric
        check_needs(context, name)
    records = [record for name in metrics for record in measured(context, name)]
    note_masking(records, **masking_bounds(splits.test))
    return records


def splits_for(model: nn.Module | None, data: OwnData) -> Splits:
    """The splits meant; where one set of images is to be split, in the shares of the run that the model comes from."""
    settings = model.description.data if isinstance(model, LoadedModel) else None
    return own_splits(data) if settings is None else split_by(settings, data)


def lacks_initial(context: EvaluationContext, name: str) -> bool:
    """Whether the metric draws samples, and the model has nothing that they start from."""
    metric = METRICS[name]
    draws = metric.draws or (metric.of_samples and context.given is None)
    return draws and context.model is not None and context.model.initial is None


def check_metrics(names: Iterable[str]) -> None:
    """ValueError that names the first metric that does not exist, and the nearest that does."""
    if unknown := [m for m in names if m not in METRICS]:
        near = difflib.get_close_matches(unknown[0], METRICS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"metric {unknown[0]!r} is unknown.{hint} There are {', '.join(METRICS)}.")


def measured(context: EvaluationContext, name: str) -> list[Record]:
    """The records of one metric, with all that does not depend on the metric: fingerprint, data, seed, seconds."""
    metric = METRICS[name]
    key = context.key(name, metric.uses)
    test = context.data.test
    began = time.perf_counter()
    with strict_fp32(), float32_by_default():
        records = metric.measure(context)
    seconds = round(time.perf_counter() - began, 3)
    for record in records:
        record.key, record.data = key, f"{test.name}, sha256 {test.content[:12]}"
        record.seconds = record.seconds or seconds  # the metric's, where its figures are measured together
        record.seed = context.seed if record.seed is None else record.seed
    return records


def complete(
    path: Path,
    context: EvaluationContext,
    model_name: str,
    metrics: Sequence[str],
    *,
    by_name: bool,
    again: bool = False,
    tell: Told = lambda line: None,
) -> list[Record]:
    """Bring the records in `path` up to date, metric by metric; the file is whole after each.

    What is there with the same fingerprint is used again. A file that holds no records is moved aside.

    Args:
        by_name: the metrics were asked for by name: one whose weights are missing is an error. Otherwise it is left
            out.
        again: measure anew what is there.
        tell: is told what is used again and what is left out.

    Returns:
        The records of these metrics and this model.
    """
    found: list[Record] = []
    if is_first():
        set_aside(path, tell)
    known = {} if again else {name: there(path, context, model_name, name) for name in metrics}
    reused = [name for name in metrics if known.get(name)]
    left_out = []
    for name in metrics:  # before hours are spent on another metric
        try:
            if name not in reused:
                check_needs(context, name)
        except MissingWeights as error:
            if by_name:
                raise
            tell(f"{name} is left out: {error}")
            left_out.append(name)
    if is_first() and len(reused) + len(left_out) < len(metrics):
        check_writable(path)
    for name in metrics:
        if name in reused:
            found += known[name]
        if name in reused or name in left_out:
            continue
        new = [replace(r, model=model_name) for r in measured(context, name)]
        found += new
        if is_first():
            change_records(path, partial(merged, new=new))
        context.forget(name, METRICS[name].uses)
    if reused:
        tell(f"already in {path}, with the same settings: {', '.join(reused)}")
    if any(METRICS[name].of_samples for name in metrics) or "samples" in vars(context):
        context.forget("samples", ("samples",))
    if is_first():
        note_doubts(path, context, model_name, found)
    return found


def note_doubts(path: Path, context: EvaluationContext, model_name: str, found: Sequence[Record]) -> None:
    """Signs of masked gradients, in the file's records of this model as it is and in `found`, which are some of them."""

    def noted(known: list[Record]) -> list[Record]:
        current = [r for r in known if r.model == model_name and f":{context.content[:12]}:" in r.key]
        note_masking([*current, *found], **masking_bounds(context.data.test))
        return known

    known = known_records(path)
    before = [r.warnings for r in known]
    if [r.warnings for r in noted(known)] != before:
        change_records(path, noted)


def there(path: Path, context: EvaluationContext, model_name: str, name: str) -> list[Record]:
    """The records of a metric in `path`, if they have the fingerprint that they would have now; else none."""
    key = context.key(name, METRICS[name].uses)
    mine = [r for r in known_records(path) if r.model == model_name and r.key == key]
    # all ranks must decide alike, whoever has read the file before it was written
    return mine if total(int(bool(mine))) == ranks() else []


def check_needs(context: EvaluationContext, name: str) -> None:
    """MissingWeights where the metric needs weights that are not there; ValueError or FileNotFoundError where they, or the
    images that it compares with, are not as it needs them."""
    if lacks_initial(context, name):
        _ = context.required_model.required_initial
    METRICS[name].check(context)


def check_final(settings: EvaluationSettings, data: Splits) -> None:
    """ValueError or FileNotFoundError, before training, where the reference is none for the figures a run ends with."""
    EvaluationContext(None, data, settings).check_reference(JudgeFeatures.dimension, "features of the judge")


def merged(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """Old and new records of one metric and model. Dropped are those of other weights or data, which are out of date,
    and those of the same figure; the same metric with other settings stays."""
    (model,), (metric, content, _) = {r.model for r in new}, new[0].key.split(":")
    figures = [(r.metric, r.settings, r.n, r.seed) for r in new]

    def stays(r: Record) -> bool:
        if r.model != model or not r.key.startswith(f"{metric}:"):
            return True
        current = r.key.startswith(f"{metric}:{content}:")
        return current and (r.metric, r.settings, r.n, r.seed) not in figures

    return [r for r in old if stays(r)] + list(new)


def evaluate_run(
    folder: Path,
    config: RunConfig,
    splits: Splits,
    device: torch.device,
    network: nn.Module | None = None,
) -> list[Record]:
    """What a training run ends with: the basic figures of its model, of what its samples start from, and of the models of
    earlier stages; evaluation.json and the final sample grid. network: somebody's own, for `load`."""
    path = folder / "evaluation.json"
    final = load(folder / "model.safetensors", device, network=copy.deepcopy(network))
    contexts: list[tuple[str, tuple[str, ...], EvaluationContext]] = [
        ("final", BASIC, EvaluationContext(final, splits, config.evaluation, config.seed))
    ]
    contexts.append(("start", ("generation",), replace(contexts[0][2], sampling_steps=0)))
    for number in sorted(config.stages)[:-1]:
        weights = folder / "checkpoints" / f"stage{number}.safetensors"
        earlier = load(weights, device, network=copy.deepcopy(network))
        contexts.append(
            (f"stage{number}", BASIC, EvaluationContext(earlier, splits, config.evaluation, config.seed))
        )
    judge = contexts[0][2].judge
    records = []
    for name, metrics, context in contexts:
        context.judge = judge
        records += complete(path, context, name, metrics, by_name=True)
    if is_first():
        save_grid(final, folder / "samples" / "final.png", config.seed)
    return records


def warnings_of(records: Sequence[Record], data: ImageData) -> list[str]:
    """Signs of masked gradients in records measured on `data`."""
    return masking_warnings(records, **masking_bounds(data))


def masking_bounds(data: ImageData) -> dict[str, Any]:
    """What a robust accuracy on these images is held against: see masking.py."""
    share = float(data.labels.bincount().max()) / len(data)
    return {"grey": {"L2": grey_radius("L2", data.shape)}, "largest_class": share}


def save_grid(model: LoadedModel, path: Path, seed: int, per_class: int = 10) -> None:
    """A grid of samples, one class per column (at most 10 classes)."""
    from dualat.sampling import sample

    classes = min(10, len(model.class_names))
    labels = torch.arange(per_class * classes) % classes
    images = sample(model, labels, generator=torch.Generator().manual_seed(seed)).cpu()
    save_picture(grid(images, classes), path)


def save_strips(model: LoadedModel, data: ImageData, settings: EvaluationSettings, folder: Path) -> None:
    """Counterfactual strips of one held-out image per class (at most 5), towards 3 other classes each."""
    eps = sorted(settings.counterfactual_eps)[len(settings.counterfactual_eps) // 2]
    classes = len(model.class_names)
    for label in range(min(5, classes)):
        where = (data.labels == label).nonzero().flatten()
        if not len(where) or classes < 2:
            continue
        x = data.float(where[:1])[0].to(device_of(model))
        targets = sorted({(label + shift) % classes for shift in (1, 3, 5)} - {label})
        changes = explain(
            model,
            x,
            targets,
            ThreatModel("L2", eps),
            settings.counterfactual_steps,
            settings.counterfactual_climb,
        )
        strip = change_strip(x, model.class_names[label], changes, "L2")
        save_picture(strip, folder / f"{label}-eps{eps:g}.png")


def validation_evaluator(
    config: RunConfig, splits: Splits, folder: Path
) -> Callable[[LoadedModel, int, int], dict[str, float]]:
    """The evaluator that the training loop calls: figures on the validation split, and a sample grid; no figures, and a
    warning, of a model that is not finite."""
    settings = config.evaluation
    chosen = splits.validation.take(evenly(len(splits.validation), settings.validation_images))
    judge = Judge(splits.train, device=choose_device(config.device))
    reference = judge.features_of(splits.validation)

    def figures_of(model: LoadedModel, stage: int, step: int) -> dict[str, float]:
        threat = ThreatModel(settings.norm, settings.validation_eps)
        samples = from_model(model, settings.validation_samples, config.seed)
        images, labels = samples.images.float() / 255, samples.labels
        if is_first():
            save_grid(model, folder / "samples" / f"stage{stage}-{step:06d}.png", config.seed)
        figures = {
            "clean_accuracy": clean_accuracy(model, chosen).value,
            "robust_accuracy": robust_accuracy(model, chosen, threat, settings.steps).value,
            "frechet_distance": frechet_distance(judge.features(images), reference),
        }
        if labels is not None:
            figures["sample_class_accuracy"] = float((judge.predict(images) == labels).float().mean())
        return figures

    def evaluator(model: LoadedModel, stage: int, step: int) -> dict[str, float]:
        try:
            return figures_of(model, stage, step)
        except NotFinite as error:
            if ranks() > 1:  # the others are in the middle of an exchange
                raise
            # whether training has diverged is told by its loss; a validation does not end it
            warnings.warn(f"stage {stage}, step {step} has no validation figures: {error}", stacklevel=2)
            return {}

    return evaluator
