"""The report's sections without curves: headline, tables, pictures, settings. Each says what makes what it lacks."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dualat.results.catalogue import described, strength
from dualat.results.naming import identity, in_words, name_of, spoken, text
from dualat.results.record import Record
from dualat.results.report.parts import Card, Group, Section, Table, capital, filled, half, interval, shown
from dualat.results.report.reading import Picture, methods, number, read_picture, setting

HEADLINE = (
    "clean_accuracy",
    "sample_class_accuracy",
    "fid",
    "frechet_distance",
    "inception_score",
    "ece",
    "ood_auroc",
    "counterfactual_validity",
)
"""Metric values of the headline in their order, robust accuracy after clean."""


def facts(config: dict[str, Any]) -> str:
    """The run in one line."""
    names = {"data": "data.source", "network": "network.name", "seed": "seed", "precision": "precision"}
    known = {"method": list(methods(config).values())[-1].get("name") or None}
    known |= {word: setting(config, key) for word, key in names.items()}
    return " · ".join(f"{word} {text(value)}" for word, value in known.items() if value is not None)


def chosen(records: Sequence[Record]) -> list[Record]:
    """The headline's metric values: of the final model if it has any, one per metric, robust accuracy of the strongest
    attack at up to 3 radii."""
    models = [r.model for r in records]
    model = "final" if "final" in models or not models else models[0]
    own = [r for r in records if r.model == model]
    robust = [r for r in own if r.metric == "robust_accuracy"]
    most = max((r.n for r in robust), default=0)
    # not the strongest attack's few images for all the others'
    robust = [r for r in robust if 2 * r.n >= most]
    strongest = max((strength(r.settings.get("attack")) for r in robust), default=0)
    robust = [r for r in robust if strength(r.settings.get("attack")) == strongest][:3]
    picked = []
    for metric in HEADLINE:
        found = [r for r in own if r.metric == metric]
        # under no attack, at temperature 1, where there is a choice
        found.sort(
            key=lambda r: (r.settings.get("attack") is not None, r.settings.get("temperature", 1) != 1)
        )
        picked += found[:1]
        if metric == "clean_accuracy":
            picked += robust
    return picked


def headline(records: Sequence[Record], run: str) -> Section:
    """The metric values that one looks for first, beside what they were at the start and after each earlier stage."""
    section = Section(
        "headline",
        "Main results",
        "",
        f"No evaluation.json in {run}: `dualat train` writes it at the end of a run, `dualat evaluate {run}` measures again.",
    )
    for record in chosen(records):
        notes = [f"n {record.n:,}"] if record.n else []
        for other in records:
            stage = re.fullmatch(r"(start|stage)(\d*)", other.model)
            if stage and other.model != record.model and identity(other) == identity(record):
                notes.append(f"{' '.join(filter(None, stage.groups()))}: {shown(other.value)}")
        label = capital(name_of(record, omit=("n",)))
        section.cards.append(Card(label, shown(record.value), half(record), notes))
    if section.cards and (model := chosen(records)[0].model) != "final":
        section.lead = f"Of the weights {model}; there are no records of the final ones."
    return section


def table_of(records: Sequence[Record], more: bool = True) -> Table:
    """A row per record. more: with seed, seconds and split."""
    head = ["metric value", "weights", "settings", "value", "95 % interval", "n", "seed", "seconds", "split"]
    rows = [
        [
            name_of(r, omit=("n",)),
            r.model,
            in_words(r.settings),
            shown(r.value),
            interval(r),
            f"{r.n:,}",
            "" if r.seed is None else str(r.seed),
            f"{r.seconds:,.1f}" if r.seconds else "",
            r.split,
        ]
        for r in records
    ]
    width = len(head) if more else 6
    return Table(head[:width], [row[:width] for row in rows], left=3, wide=2)


def every_record(records: Sequence[Record], run: str) -> Section:
    return Section(
        "records",
        "All records",
        "Each metric value with all that is needed to trust it.",
        f"No records: `dualat evaluate {run}` measures, `dualat train` ends with it.",
        filled(Group(table=table_of(records))),
    )


def samples(grids: Sequence[Picture], run: str) -> Section:
    """Sample grids: of the finished model, and on the way to it."""
    final = [(p, "Samples of the final model") for p in grids if p.name == "final"]
    others = [(p, moment(p.name)) for p in grids if p.name != "final"]
    return Section(
        "samples",
        "Samples",
        "One class per column, nothing picked.",
        f"No pictures in {run}/samples: training writes them; `dualat sample {run}` draws others.",
        filled(Group("Final model", pictures=final), Group("On the way", pictures=others)),
    )


def moment(name: str) -> str:
    """'Stage 2, step 400' of stage2-000400."""
    numbers = re.findall(r"\d+", name)
    return f"Stage {int(numbers[0])}, step {int(numbers[1]):,}" if len(numbers) == 2 else name


def counterfactuals(records: Sequence[Record], paths: Sequence[Path], run: str) -> Section:
    """Metric values and strips of counterfactuals."""
    own = [r for r in records if r.metric.startswith("counterfactual_")]
    strips = [(p, f"Counterfactual strip {p.name}") for path in paths if (p := read_picture(path))]
    return Section(
        "counterfactuals",
        "Counterfactuals",
        "What would have to change in an image, inside a small ball, for the model to see another class.",
        f"No records and no PNG files in {run}/counterfactuals: `dualat evaluate {run} --metrics counterfactual` measures, "
        f"`dualat counterfactual {run} IMAGE --output {run}/counterfactuals/NAME.png` draws a strip.",
        filled(
            Group(table=table_of(own, more=False)),
            Group("Per class", table=per_class(own)),
            Group("Strips", pictures=strips),
        ),
    )


def per_class(records: Sequence[Record]) -> Table:
    """The records whose details hold a value per class, one column per record."""
    told = {f"{name_of(r)}, {r.model}": r.details.get("per_class") for r in records}
    columns = {name: values for name, values in told.items() if isinstance(values, dict)}
    classes = list(dict.fromkeys(c for values in columns.values() for c in values))
    rows = [[str(c), *(shown(number(v[c])) if c in v else "" for v in columns.values())] for c in classes]
    return Table(["class", *columns], rows)


def throughput(records: Sequence[Record], run: str) -> Section:
    """Images per second."""
    own = [r for r in records if r.metric == "throughput"]
    keys = list(dict.fromkeys(k for r in own for k in r.settings))
    rows = [
        [r.model, *(text(r.settings[k]) if k in r.settings else "" for k in keys), shown(r.value)]
        for r in own
    ]
    table = Table(["weights", *map(spoken, keys), "images per second"], rows, left=len(keys) + 1)
    return Section(
        "throughput",
        "Throughput",
        "Images per second on the device named.",
        lacking("throughput", "throughput", run),
        filled(Group(table=table)),
    )


def resolved(config: str, run: str) -> Section:
    """config.yaml."""
    missing = f"No config.yaml in {run}: `dualat train` writes it."
    lead = "As resolved: every setting of the run."
    return Section("settings", "Settings", lead, missing, text=config.strip())


def versions(records: Sequence[Record], run: str) -> Section:
    """Versions behind the records."""
    count = Counter(tuple((k, text(v)) for k, v in r.versions.items()) for r in records if r.versions)
    keys = list(dict.fromkeys(k for versions in count for k, _ in versions))
    rows = [[*(dict(v).get(k, "") for k in keys), str(number)] for v, number in count.items()]
    missing = f"No records with versions: `dualat evaluate {run}` measures."
    groups = filled(Group(table=Table([*keys, "records"], rows, left=len(keys))))
    return Section("versions", "Versions", "Of what measured them.", missing, groups)


def lacking(metric: str, option: str, run: str) -> str:
    """Which command makes the records of a metric."""
    return f"No records of {described(metric).title}: `dualat evaluate {run} --metrics {option}` measures it."
