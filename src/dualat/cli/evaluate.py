"""`dualat evaluate MODEL [--metrics ...]`."""

import json
from pathlib import Path
from typing import Annotated

import tyro
from pydantic.dataclasses import dataclass

from dualat.cli.arguments import UsageError, parse
from dualat.settings import STRICT


@dataclass(config=STRICT)
class EvaluateArguments:
    """Measure a trained model on the held-out images of its run."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Run folder."""
    metrics: tuple[str, ...] = ("clean_accuracy", "robust_accuracy", "generation")
    """What to measure: clean_accuracy, robust_accuracy, generation (sample class accuracy, Frechet distance)."""
    weights: str = "final"
    """Which weights: final, stage1, best-robust, best-generation."""
    eps: tuple[float, ...] | None = None
    """Radii of the attack; None: those of the run's settings."""
    steps: int | None = None
    """Steps of the attack; None: those of the run's settings."""
    samples: int | None = None
    """Number of samples; None: that of the run's settings."""
    seed: int | None = None
    """Seed of the samples; None: the run's own."""
    device: str = "auto"
    """auto, cpu, cuda ..."""
    json: bool = False
    """Print records as JSON."""


def main(args: list[str]) -> int:
    parsed = parse(EvaluateArguments, args, "dualat evaluate")
    if "robust_accuracy" not in parsed.metrics and (parsed.eps or parsed.steps):
        raise UsageError(
            "--eps and --steps belong to robust_accuracy: name it in --metrics, or leave them out."
        )
    if "generation" not in parsed.metrics and (parsed.samples or parsed.seed is not None):
        raise UsageError(
            "--samples and --seed belong to generation: name it in --metrics, or leave them out."
        )
    from dataclasses import replace

    from rich.console import Console

    from dualat.config import load_recipe
    from dualat.data.in_distribution import load_splits
    from dualat.evaluate import as_json, evaluate, table
    from dualat.load import load
    from dualat.precision import choose_device

    folder = Path(parsed.model)
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(
            f"{folder} is no run folder: it holds no config.yaml, which says what data to use."
        )
    config = load_recipe(str(folder / "config.yaml"))
    path = (
        folder / "model.safetensors"
        if parsed.weights == "final"
        else folder / "checkpoints" / f"{parsed.weights}.safetensors"
    )
    model = load(path, choose_device(parsed.device))
    chosen = {
        k: v
        for k, v in (("eps", parsed.eps), ("steps", parsed.steps), ("samples", parsed.samples))
        if v is not None
    }
    settings = replace(config.evaluation, **chosen)
    seed = config.seed if parsed.seed is None else parsed.seed
    records = [
        replace(r, model=parsed.weights, seed=seed)
        for r in evaluate(model, load_splits(config.data), parsed.metrics, settings, seed)
    ]
    if parsed.json:
        print(json.dumps(as_json(records), indent=2))
    else:
        Console().print(table(records, f"{folder}: held-out images"))
    return 0
