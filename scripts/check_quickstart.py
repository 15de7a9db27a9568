"""Checks the figures of a quick-start run against their bounds: python scripts/check_quickstart.py runs/digits"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dualat.results.record import Record, read_records

CLEAN_ACCURACY = 0.95
ROBUST_LOSS = 0.03  # how far stage 2 may fall below stage 1, under the same attack
ATTACK_STEPS = 20
SAMPLE_CLASS_ACCURACY = 0.95
SAMPLES = 500
FRECHET_FACTOR = 1 / 3  # of the distance that sampling the stage-1 model gives


class Row(NamedTuple):
    figure: str
    value: str
    bound: str
    ok: bool


def read(folder: Path) -> list[Record]:
    path = folder / "evaluation.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing: run `make quickstart` first.")
    return read_records(path)


def select(records: list[Record], metric: str, model: str) -> list[Record]:
    found = [r for r in records if r.metric == metric and r.model == model]
    if not found:
        raise ValueError(f"evaluation.json has no {metric} of the {model} model.")
    return found


def single(records: list[Record], metric: str, model: str) -> Record:
    found = select(records, metric, model)
    if len(found) > 1:
        raise ValueError(
            f"evaluation.json has {len(found)} records of {metric} of the {model} model, not one."
        )
    return found[0]


def at_least(figure: str, value: float, bound: float) -> Row:
    return Row(figure, f"{value:.4g}", f">= {bound:.4g}", value >= bound)


def at_most(figure: str, value: float, bound: float) -> Row:
    return Row(figure, f"{value:.4g}", f"<= {bound:.4g}", value <= bound)


def robust(records: list[Record]) -> Iterator[Row]:
    """Each eps of the final model beside the stage-1 model's record with the same eps."""
    stage1 = {r.settings["eps"]: r for r in select(records, "robust_accuracy", "stage1")}
    for record in select(records, "robust_accuracy", "final"):
        settings = record.settings
        eps = settings["eps"]
        if eps not in stage1:
            raise ValueError(f"evaluation.json has no robust_accuracy of the stage1 model at eps {eps}.")
        yield at_least(f"robust accuracy, eps {eps}", record.value, stage1[eps].value - ROBUST_LOSS)
        same = settings == stage1[eps].settings
        yield Row(f"same attack, eps {eps}", "yes" if same else "no", "yes", same)
        yield at_least(f"attack steps, eps {eps}", settings["steps"], ATTACK_STEPS)


def check(records: list[Record]) -> list[Row]:
    samples = single(records, "sample_class_accuracy", "final")
    distance = single(records, "frechet_distance", "final").value
    before = single(records, "frechet_distance", "stage1").value
    return [
        at_least("clean accuracy", single(records, "clean_accuracy", "final").value, CLEAN_ACCURACY),
        *robust(records),
        at_least("sample class accuracy", samples.value, SAMPLE_CLASS_ACCURACY),
        Row("samples judged", str(samples.n), f"= {SAMPLES}", samples.n == SAMPLES),
        at_most("Frechet distance", distance, before * FRECHET_FACTOR),
    ]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: check_quickstart.py RUN_FOLDER", file=sys.stderr)
        return 2
    try:
        rows = check(read(Path(arguments[0])))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyError, TypeError) as error:
        print(f"evaluation.json has a record without what is checked: {error!r}.", file=sys.stderr)
        return 1
    for figure, value, bound, good in [
        ("figure", "value", "bound", "ok"),
        *((*r[:3], "yes" if r.ok else "NO") for r in rows),
    ]:
        print(f"{figure:28} {value:>10}  {bound:12} {good}")
    return 0 if all(r.ok for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
