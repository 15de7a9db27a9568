"""The sampler of each model: of several, the one with the least Frechet distance to validation images."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reading import read_json
from torch import Tensor

from dualat.core.sampler_settings import SamplingSettings
from dualat.data.in_distribution import Splits
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.frechet import frechet_distance
from dualat.evaluation.samples import from_model
from dualat.models.model import LoadedModel
from dualat.system.files import sha256, write_text
from dualat.system.seeds import mix_seed


def choose_sampler(
    model: LoadedModel,
    splits: Splits,
    context: EvaluationContext,
    candidates: list[dict[str, Any]],
    folder: Path,
) -> tuple[SamplingSettings, list[dict[str, Any]]]:
    """Of several samplers the one with the least Frechet distance to validation images; samples of a seed of its own.
    Distances stay in the run folder, so that a resumed run, or one with more samplers, measures the missing ones alone."""
    path, weights = folder / "samplers.json", sha256(folder / "model.safetensors")
    known = known_distances(path, weights)
    samplers = [SamplingSettings(**candidate) for candidate in candidates]
    keys = [json.dumps(asdict(settings), sort_keys=True) for settings in samplers]
    missing = [(key, settings) for key, settings in zip(keys, samplers, strict=True) if key not in known]
    if missing:
        target = context.judge.features_of(splits.validation)
        for key, settings in missing:
            known[key] = validation_distance(model, context, settings, target)
            write_text(path, json.dumps({"weights": weights, "distances": known}, indent=1) + "\n")
    distances = [known[key] for key in keys]
    best = min(range(len(keys)), key=lambda i: math.inf if math.isnan(distances[i]) else distances[i])
    tried = [c | {"validation_frechet": d} for c, d in zip(candidates, distances, strict=True)]
    return samplers[best], tried


def known_distances(path: Path, weights: str) -> dict[str, float]:
    """Distances that were measured of the same weights, by the sampler's complete settings."""
    if not path.is_file():
        return {}
    kept = read_json(path, "python studies/run.py")
    return kept["distances"] if kept.get("weights") == weights else {}


def validation_distance(
    model: LoadedModel, context: EvaluationContext, settings: SamplingSettings, target: Tensor
) -> float:
    """Frechet distance between 500 samples and validation images, whose features are `target`."""
    model.description.sampling = settings
    images = from_model(model, 500, mix_seed("choose-sampler", context.seed)).images.float() / 255
    return frechet_distance(context.judge.features(images), target)
