"""Turn a finished run into a model that comes with dualat: its weights, its description, and a record of what it does.

    python scripts/ship_model.py runs/fashion-mnist fashion-mnist --steps 8 --step-size 0.3

Writes src/dualat/models/shipped/NAME.safetensors, NAME.json and NAME.record.json.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from dualat.config import load_recipe, plain
from dualat.data.in_distribution import load_splits
from dualat.models.model import load, save_model
from dualat.models.shipped import FOLDER
from dualat.results.record import as_json, versions
from dualat.run.evaluation import evaluate
from dualat.system.files import sha256, write_text

LICENCES = {
    "fashion-mnist": "Fashion-MNIST (Zalando Research), MIT licence, github.com/zalandoresearch/fashion-mnist"
}
METRICS = ("clean_accuracy", "robust_accuracy", "calibration", "generation", "counterfactual")
MOST = 8 * 2**20  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("name", choices=LICENCES)
    parser.add_argument("--steps", type=int, required=True, help="sampling steps")
    parser.add_argument("--step-size", type=float, required=True, help="L2 length of one")
    arguments = parser.parse_args()
    config = load_recipe(str(arguments.run / "config.yaml"))
    model = load(arguments.run)
    sampling = replace(model.sampling, steps=arguments.steps, step_size=arguments.step_size)
    model.description.sampling = sampling
    save_model(model, FOLDER / arguments.name)
    weights = FOLDER / f"{arguments.name}.safetensors"
    if weights.stat().st_size > MOST:
        raise SystemExit(
            f"{weights} has {weights.stat().st_size} bytes, more than the {MOST} that are shipped."
        )
    records = evaluate(load(weights), load_splits(config.data), METRICS, config.evaluation, config.seed)
    record = {
        "made_by": [
            f"dualat train {arguments.name} --seed {config.seed}",
            f"python scripts/ship_model.py {arguments.run} {arguments.name} --steps {sampling.steps} "
            f"--step-size {sampling.step_size}",
        ],
        "data": LICENCES[arguments.name],
        "sha256": sha256(weights),
        "config": plain(config),
        "versions": versions(),
        "records": as_json(records),
    }
    write_text(FOLDER / f"{arguments.name}.record.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
