"""Fewer sampling steps: schedules, momentum and longer steps, chosen on validation images, reported on test images.

    python benchmarks/sampler.py runs/fashion-mnist --output benchmarks/results/sampler-fashion-mnist.json

For each number of steps, every sampler is drawn once (500 samples of a seed that no reported figure uses) and the one
with the smallest Frechet distance to the validation split is kept. Those, and the run's own sampler, are then measured
against the test split with three other seeds. The distance is taken in the judge's features.
"""

import argparse
import itertools
import json
import statistics
from dataclasses import asdict, replace
from pathlib import Path

import torch

from dualat.config import load_recipe
from dualat.data.images import ImageData
from dualat.data.in_distribution import load_splits
from dualat.evaluation.frechet import frechet_distance
from dualat.evaluation.judge import Judge
from dualat.evaluation.samples import from_model
from dualat.models.model import LoadedModel, SamplingSettings, load
from dualat.results.record import versions
from dualat.system.files import write_text
from dualat.system.seeds import mix_seed

SHARES = (1 / 5, 1 / 3, 1 / 2, 1)  # of the run's own number of steps
PATHS = (0.6, 0.8, 1.0, 1.3)  # length of the path, in units of the own T * eta
MOMENTA = (0.0, 0.5)


def measure(
    model: LoadedModel, sampling: SamplingSettings, real: ImageData, judge: Judge, count: int, seed: int
) -> tuple[float, float]:
    """Frechet distance and class accuracy of samples drawn so."""
    model.description.sampling = sampling
    drawn = from_model(model, count, seed)
    images = drawn.images.float() / 255
    distance = frechet_distance(judge.features(images), judge.features(real.float()))
    return distance, float((judge.predict(images) == drawn.labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1000, help="samples of a reported figure")
    arguments = parser.parse_args()
    config = load_recipe(str(arguments.run / "config.yaml"))
    splits, model = load_splits(config.data), load(arguments.run)
    judge, own = Judge(splits.train), model.sampling
    path = own.steps * own.step_size
    rows, tried = [], []
    for share in SHARES:
        steps = max(1, round(own.steps * share))
        found = []
        for schedule, momentum, length in itertools.product(("constant", "linear", "cosine"), MOMENTA, PATHS):
            sampling = SamplingSettings(steps, length * path / steps, schedule, momentum)
            value = measure(model, sampling, splits.validation, judge, 500, mix_seed("sampler", 0))
            found.append((*value, sampling))
            tried.append(
                {**asdict(sampling), "validation_frechet": value[0], "validation_class_accuracy": value[1]}
            )
        best = min(found, key=lambda entry: entry[0])[2]
        rows.append(report(model, best, splits.test, judge, arguments.count, f"best of {steps} steps"))
        print(rows[-1], flush=True)
    rows.append(report(model, replace(own), splits.test, judge, arguments.count, "the run's own"))
    print(rows[-1], flush=True)
    result = {"run": arguments.run.name, "rows": rows, "tried": tried, "versions": versions()}
    write_text(arguments.output, json.dumps(result, indent=1) + "\n")


def report(
    model: LoadedModel, sampling: SamplingSettings, real: ImageData, judge: Judge, count: int, name: str
) -> dict:
    """Test figures over three seeds."""
    with torch.no_grad():
        values = [measure(model, sampling, real, judge, count, seed) for seed in (0, 1, 2)]
    distances, accuracies = zip(*values, strict=True)
    return {
        "sampler": name,
        **asdict(sampling),
        "n": count,
        "frechet": statistics.mean(distances),
        "frechet_of_seeds": distances,
        "class_accuracy": statistics.mean(accuracies),
    }


if __name__ == "__main__":
    main()
