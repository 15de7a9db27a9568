"""The report's sections without curves: headline, tables, pictures, settings. Each says what makes what it lacks."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dualat.results.catalogue import described, strength
from dualat.results.naming import identity, in_words, name_of, spoken, text
from dualat.results.record import Record
from dualat.results.report.parts import Card, Group, Section, Table, capital, half, interval, shown
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
    names = {
        "data.source": "data",
        "network.name": "network",
        "seed": "seed",
        "precision": "precision",
    }
    known = {"method": method} if (method := list(methods(config).values())[-1].get("name")) else {}
    known |= {word: value for key, word in names.items() if (value := setting(config, key)) is not None}
    return " · ".join(f"{word} {text(value)}" for word, value in known.items())


def chosen(figures: Sequence[Record]) -> list[Record]:
    """The headline's metric values: of the final model if it has any, one per metric, robust accuracy of the strongest
    attack at up to 3 radii."""
    models = [f.model for f in figures]
    model = "final" if "final" in models or not models else models[0]
    own = [f for f in figures if f.model == model]
    robust = [f for f in own if f.metric == "robust_accuracy"]
    most = max((f.n for f in robust), default=0)
    robust = [
        f for f in robust if 2 * f.n >= most
    ]  # not the strongest attack's few images for all the others'
    strongest = max((strength(f.settings.get("attack")) for f in robust), default=0)
    robust = [f for f in robust if strength(f.settings.get("attack")) == strongest][:3]
    picked = []
    for metric in HEADLINE:
        found = [f for f in own if f.metric == metric]
        # under no attack, at temperature 1, where there is a choice
        found.sort(
            key=lambda f: (f.settings.get("attack") is not None, f.settings.get("temperature", 1) != 1)
        )
        picked += found[:1]
        if metric == "clean_accuracy":
            picked += robust
    return picked


def headline(figures: Sequence[Record], run: str) -> Section:
    """The metric values that one looks for first, beside what they were after stage 1."""
    section = Section("headline", "Main results")
    for figure in chosen(figures):
        notes = [f"n {figure.n:,}"] if figure.n else []
        others = [f for f in figures if f.model in ("stage1", "start") and f.model != figure.model]
        for other in others:
            if identity(other) == identity(figure):
                notes.append(f"{'stage 1' if other.model == 'stage1' else 'start'}: {shown(other.value)}")
        label = capital(name_of(figure, omit=("n",)))
        section.cards.append(Card(label, shown(figure.value), half(figure), notes))
    if not section.cards:
        section.missing = f"No evaluation.json in {run}: `dualat train` writes it at the end of a run, `dualat evaluate {run}` measures again."
    elif (model := chosen(figures)[0].model) != "final":
        section.lead = f"Of the weights {model}; there are no records of the final ones."
    return section


def records(figures: Sequence[Record], run: str) -> Section:
    """Every record."""
    section = Section("records", "All records", "Each metric value with all that is needed to trust it.")
    rows = [
        [
            name_of(f, omit=("n",)),
            f.model,
            in_words(f.settings),
            shown(f.value),
            interval(f),
            f"{f.n:,}",
            "" if f.seed is None else str(f.seed),
            f"{f.seconds:,.1f}" if f.seconds else "",
            f.split,
        ]
        for f in figures
    ]
    head = ["metric value", "weights", "settings", "value", "95 % interval", "n", "seed", "seconds", "split"]
    if rows:
        section.groups.append(Group(table=Table(head, rows, left=3, wide=2)))
    else:
        section.missing = f"No records: `dualat evaluate {run}` measures, `dualat train` ends with it."
    return section


def samples(grids: Sequence[Picture], run: str) -> Section:
    """Sample grids: of the finished model, and on the way to it."""
    section = Section("samples", "Samples", "One class per column, nothing picked.")
    final = [p for p in grids if p.name == "final"]
    others = [p for p in grids if p.name != "final"]
    if final:
        section.groups.append(
            Group("Final model", pictures=[(p, "Samples of the final model") for p in final])
        )
    if others:
        words = [(p, moment(p.name)) for p in others]
        section.groups.append(Group("On the way", pictures=words))
    if not grids:
        section.missing = (
            f"No pictures in {run}/samples: training writes them; `dualat sample {run}` draws others."
        )
    return section


def moment(name: str) -> str:
    """'Stage 2, step 400' of stage2-000400."""
    numbers = re.findall(r"\d+", name)
    return f"Stage {int(numbers[0])}, step {int(numbers[1]):,}" if len(numbers) == 2 else name


def counterfactuals(figures: Sequence[Record], paths: Sequence[Path], run: str) -> Section:
    """Metric values and strips of counterfactuals."""
    section = Section(
        "counterfactuals",
        "Counterfactuals",
        "What would have to change in an image, inside a small ball, for the model to see another class.",
    )
    own = [f for f in figures if f.metric.startswith("counterfactual_")]
    if own:
        rows = [
            [
                name_of(f),
                f.model,
                in_words(f.settings),
                shown(f.value),
                interval(f),
                f"{f.n:,}",
            ]
            for f in own
        ]
        head = ["metric value", "weights", "settings", "value", "95 % interval", "n"]
        section.groups.append(Group(table=Table(head, rows, left=3, wide=2)))
    if table := per_class(own):
        section.groups.append(Group("Per class", table=table))
    strips = [(p, f"Counterfactual strip {p.name}") for path in paths if (p := read_picture(path))]
    if strips:
        section.groups.append(Group("Strips", pictures=strips))
    if not section.groups:
        section.missing = (
            f"No records and no PNG files in {run}/counterfactuals: `dualat evaluate {run} --metrics counterfactual` measures, "
            f"`dualat counterfactual {run} IMAGE --output {run}/counterfactuals/NAME.png` draws a strip."
        )
    return section


def per_class(figures: Sequence[Record]) -> Table | None:
    """A table of the records whose details hold a value per class, one column per record."""
    told = {f"{name_of(f)}, {f.model}": f.details.get("per_class") for f in figures}
    columns = {name: values for name, values in told.items() if isinstance(values, dict)}
    classes = list(dict.fromkeys(c for values in columns.values() for c in values))
    rows = [[str(c), *(shown(number(v[c])) if c in v else "" for v in columns.values())] for c in classes]
    return Table(["class", *columns], rows) if rows else None


def throughput(figures: Sequence[Record], run: str) -> Section:
    """Images per second."""
    section = Section("throughput", "Throughput", "Images per second on the device named.")
    own = [f for f in figures if f.metric == "throughput"]
    keys = list(dict.fromkeys(k for f in own for k in f.settings))
    rows = [
        [f.model, *(text(f.settings[k]) if k in f.settings else "" for k in keys), shown(f.value)]
        for f in own
    ]
    if rows:
        head = ["weights", *map(spoken, keys), "images per second"]
        section.groups.append(Group(table=Table(head, rows, left=len(keys) + 1)))
    else:
        section.missing = lacking("throughput", "throughput", run)
    return section


def resolved(text: str, run: str) -> Section:
    """config.yaml."""
    section = Section("settings", "Settings", "As resolved: every setting of the run.", text=text.strip())
    if not section.text:
        section.missing = f"No config.yaml in {run}: `dualat train` writes it."
    return section


def versions(figures: Sequence[Record], run: str) -> Section:
    """Versions behind the records."""
    section = Section("versions", "Versions", "Of what measured them.")
    count = Counter(tuple((k, text(v)) for k, v in f.versions.items()) for f in figures if f.versions)
    keys = list(dict.fromkeys(k for versions in count for k, _ in versions))
    rows = [[*(dict(v).get(k, "") for k in keys), str(number)] for v, number in count.items()]
    if rows:
        section.groups.append(Group(table=Table([*keys, "records"], rows, left=len(keys))))
    else:
        section.missing = f"No records with versions: `dualat evaluate {run}` measures."
    return section


def lacking(metric: str, option: str, run: str) -> str:
    """Which command makes the records of a metric."""
    return f"No records of {described(metric).title}: `dualat evaluate {run} --metrics {option}` measures it."


def by_group(figures: Sequence[Record], key: Callable[[Record], Any]) -> dict[Any, list[Record]]:
    """Records with the same key, in the order in which keys come."""
    groups: dict[Any, list[Record]] = {}
    for figure in figures:
        groups.setdefault(key(figure), []).append(figure)
    return groups
