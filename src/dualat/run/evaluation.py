"""Evaluation of models and of samples: on a run's held-out images, and while training on its validation split."""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from dualat.config import RunConfig
from dualat.core.classifier import NotFinite, device_of
from dualat.core.geometry import ThreatModel
from dualat.core.sampler_settings import SamplingSettings
from dualat.counterfactuals import change_strip, explain
from dualat.data.grids import grid, save_picture
from dualat.data.images import evenly
from dualat.data.in_distribution import ImageData, Splits
from dualat.data.own import OwnData, own_splits, split_by
from dualat.data.starts import Start
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.features import JudgeFeatures
from dualat.evaluation.frechet import frechet_distance
from dualat.evaluation.judge import Judge
from dualat.evaluation.masking import masking_bounds, note_masking
from dualat.evaluation.measure import check_metrics, check_needs, lacks_initial, measure
from dualat.evaluation.metrics.clean_accuracy import clean_accuracy
from dualat.evaluation.metrics.robust_accuracy import robust_accuracy
from dualat.evaluation.registry import BASIC
from dualat.evaluation.samples import ImageSet, from_model
from dualat.evaluation.settings import EvaluationSettings
from dualat.evaluation.store import update_records
from dualat.models.model import LoadedModel, load
from dualat.models.own import as_model
from dualat.results.record import Record
from dualat.sampling import sample
from dualat.system.distributed import is_first, world_size
from dualat.system.precision import choose_device
from dualat.system.seeds import check_seed


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
            Metrics are measured on the test split.
        metrics: names in `dualat.evaluation.registry.METRICS`; None: clean and robust accuracy, and, where there is
            something that samples start from, generation.
        settings: radii, steps, numbers of images and samples ...
        seed: of samples, attacks and intervals.
        samples: as `dualat.evaluation.samples.read_samples` gives them; None: the model draws them.
        initial: what the model's samples start from, in place of its own ("gaussian" is fitted to the training split); a
            bare module has none.
        sampling: how they descend, in place of the model's own; of a bare module the defaults.

    Returns:
        One record per metric value.

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
    records = [record for name in metrics for record in measure(context, name)]
    note_masking(records, **masking_bounds(splits.test))
    return records


def splits_for(model: nn.Module | None, data: OwnData) -> Splits:
    """The splits meant; where one set of images is to be split, in the shares of the run that the model comes from."""
    settings = model.description.data if isinstance(model, LoadedModel) else None
    return own_splits(data) if settings is None else split_by(settings, data)


def check_final(settings: EvaluationSettings, data: Splits) -> None:
    """ValueError or FileNotFoundError, before training, where the reference is none for what a run ends with."""
    EvaluationContext(None, data, settings).check_reference(JudgeFeatures.dimension, "features of the judge")


def evaluate_run(
    folder: Path,
    config: RunConfig,
    splits: Splits,
    device: torch.device,
    network: nn.Module | None = None,
) -> list[Record]:
    """What a training run ends with: the basic metrics of its model, of what its samples start from, and of the models of
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
        records += update_records(path, context, name, metrics, by_name=True)
    if is_first():
        save_grid(final, folder / "samples" / "final.png", config.seed)
    return records


def save_grid(model: LoadedModel, path: Path, seed: int, per_class: int = 10) -> None:
    """A grid of samples, one class per column (at most 10 classes)."""
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
    """The evaluator that the training loop calls: metric values on the validation split, and a sample grid; none, and a
    warning, of a model that is not finite."""
    settings = config.evaluation
    chosen = splits.validation.take(evenly(len(splits.validation), settings.validation_images))
    judge = Judge(splits.train, device=choose_device(config.device))
    reference = judge.features_of(splits.validation)

    def values_of(model: LoadedModel, stage: int, step: int) -> dict[str, float]:
        threat = ThreatModel(settings.norm, settings.validation_eps)
        samples = from_model(model, settings.validation_samples, config.seed)
        images, labels = samples.images.float() / 255, samples.labels
        if is_first():
            save_grid(model, folder / "samples" / f"stage{stage}-{step:06d}.png", config.seed)
        values = {
            "clean_accuracy": clean_accuracy(model, chosen).value,
            "robust_accuracy": robust_accuracy(model, chosen, threat, settings.steps).value,
            "frechet_distance": frechet_distance(judge.features(images), reference),
        }
        if labels is not None:
            values["sample_class_accuracy"] = float((judge.predict(images) == labels).float().mean())
        return values

    def evaluator(model: LoadedModel, stage: int, step: int) -> dict[str, float]:
        try:
            return values_of(model, stage, step)
        except NotFinite as error:
            if world_size() > 1:  # the others are in the middle of an exchange
                raise
            # whether training has diverged is told by its loss; a validation does not end it
            warnings.warn(f"stage {stage}, step {step} has no validation values: {error}", stacklevel=2)
            return {}

    return evaluator
