"""The report's sections without curves: headline, tables, pictures, settings. Each says what makes what it lacks."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dualat.results.report.parts import (
    Card,
    Group,
    Section,
    Table,
    attack_name,
    described,
    half,
    interval,
    plain,
    shown,
    threat_name,
)
from dualat.results.report.reading import Figure, Picture, methods, number, read_picture, setting

STRENGTH = {"autoattack": 3, "apgd": 2, "pgd": 1}
TITLES: dict[str, str] = {
    "clean_accuracy": "Clean accuracy",
    "sample_class_accuracy": "Samples: class accuracy",
    "fid": "FID",
    "frechet_distance": "Samples: Frechet distance",
    "inception_score": "Inception Score",
    "ece": "Calibration error",
    "ood_auroc": "OOD detection, AUROC",
    "counterfactual_validity": "Counterfactuals: validity",
}
"""Headline figures in their order, robust accuracy after clean."""


def facts(config: dict[str, Any]) -> str:
    """The run in one line."""
    names = {
        "data.source": "data",
        "network.name": "network",
        "seed": "seed",
        "precision": "precision",
    }
    known = {"method": method} if (method := list(methods(config).values())[-1].get("name")) else {}
    known |= {text: value for key, text in names.items() if (value := setting(config, key)) is not None}
    return " · ".join(f"{text} {plain(value)}" for text, value in known.items())


def chosen(figures: Sequence[Figure]) -> list[Figure]:
    """The headline's figures: of the final model if it has any, one per metric, robust accuracy of the strongest
    attack at up to 3 radii."""
    models = [f.model for f in figures]
    model = "final" if "final" in models or not models else models[0]
    own = [f for f in figures if f.model == model]
    robust = [f for f in own if f.metric == "robust_accuracy"]
    most = max((f.n or 0 for f in robust), default=0)
    robust = [
        f for f in robust if 2 * (f.n or 0) >= most
    ]  # not the strongest attack's few images for all the others'
    strongest = max((STRENGTH.get(str(f.settings.get("attack")), 0) for f in robust), default=0)
    robust = [f for f in robust if STRENGTH.get(str(f.settings.get("attack")), 0) == strongest][:3]
    picked = []
    for metric in TITLES:
        found = [f for f in own if f.metric == metric]
        # under no attack, at temperature 1, where there is a choice
        found.sort(
            key=lambda f: (f.settings.get("attack") is not None, f.settings.get("temperature", 1) != 1)
        )
        picked += found[:1]
        if metric == "clean_accuracy":
            picked += robust
    return picked


def alike(figure: Figure) -> dict[str, Any]:
    """The settings that must agree for a figure to stand beside one of other weights: all but those of the samples."""
    return {k: v for k, v in figure.settings.items() if k not in ("samples_sha256", "sampling", "interval")}


def headline(figures: Sequence[Figure], run: str) -> Section:
    """The figures that one looks for first, beside what they were after stage 1."""
    section = Section("headline", "Headline figures")
    for figure in chosen(figures):
        notes = [f"n {figure.n:,}"] if figure.n else []
        label = TITLES.get(figure.metric, "")
        if figure.metric == "robust_accuracy":
            label = f"Robust accuracy, {threat_name(figure.settings)}"
            notes.append(attack_name(figure.settings))
        elif "features" in figure.settings:
            notes.append(f"features: {plain(figure.settings['features'])}")
        elif figure.metric.startswith("ood_"):
            notes.append(
                f"{plain(figure.settings.get('source'))}, score {plain(figure.settings.get('score'))}"
            )
        for other in figures:
            same = (other.metric, alike(other), other.split) == (figure.metric, alike(figure), figure.split)
            if same and other.model in ("stage1", "start") and other.model != figure.model:
                notes.append(f"{'stage 1' if other.model == 'stage1' else 'start'}: {shown(other.value)}")
        section.cards.append(Card(label, shown(figure.value), half(figure), notes))
    if not section.cards:
        section.missing = f"No evaluation.json in {run}: `dualat train` writes it at the end of a run, `dualat evaluate {run}` measures again."
    elif (model := chosen(figures)[0].model) != "final":
        section.lead = f"Of the weights {model}; there are no records of the final ones."
    return section


def records(figures: Sequence[Figure], run: str) -> Section:
    """Every record."""
    section = Section("records", "All records", "Each figure with all that is needed to trust it.")
    rows = [
        [
            f.metric.replace("_", " "),
            f.model,
            described(f.settings),
            shown(f.value),
            interval(f),
            f"{f.n:,}",
            plain(f.seed) if f.seed is not None else "",
            f"{f.seconds:,.1f}" if f.seconds == f.seconds else "",
            f.split,
        ]
        for f in figures
    ]
    head = ["figure", "weights", "settings", "value", "95 % interval", "n", "seed", "seconds", "split"]
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


def counterfactuals(figures: Sequence[Figure], paths: Sequence[Path], run: str) -> Section:
    """Figures and strips of counterfactuals."""
    section = Section(
        "counterfactuals",
        "Counterfactuals",
        "What would have to change in an image, inside a small ball, for the model to see another class.",
    )
    own = [f for f in figures if f.metric.startswith("counterfactual_")]
    if own:
        rows = [
            [
                f.metric.removeprefix("counterfactual_"),
                f.model,
                described(f.settings),
                shown(f.value),
                interval(f),
                f"{f.n:,}",
            ]
            for f in own
        ]
        head = ["figure", "weights", "settings", "value", "95 % interval", "n"]
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


def per_class(figures: Sequence[Figure]) -> Table | None:
    """A table of the records whose details hold a value per class, one column per record."""
    told = {
        f"{f.metric.removeprefix('counterfactual_')}, {f.model}": f.details.get("per_class") for f in figures
    }
    columns = {name: values for name, values in told.items() if isinstance(values, dict)}
    classes = list(dict.fromkeys(c for values in columns.values() for c in values))
    rows = [[str(c), *(shown(number(v[c])) if c in v else "" for v in columns.values())] for c in classes]
    return Table(["class", *columns], rows) if rows else None


def throughput(figures: Sequence[Figure], run: str) -> Section:
    """Images per second."""
    section = Section("throughput", "Throughput", "Images per second on the device named.")
    own = [f for f in figures if f.metric == "throughput"]
    keys = list(dict.fromkeys(k for f in own for k in f.settings))
    rows = [
        [f.model, *(plain(f.settings[k]) if k in f.settings else "" for k in keys), shown(f.value)]
        for f in own
    ]
    if rows:
        head = ["weights", *(k.replace("_", " ") for k in keys), "images per second"]
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


def versions(figures: Sequence[Figure], run: str) -> Section:
    """Versions behind the records."""
    section = Section("versions", "Versions", "Of what the figures were measured with.")
    count = Counter(tuple((str(k), plain(v)) for k, v in f.versions.items()) for f in figures if f.versions)
    keys = list(dict.fromkeys(k for versions in count for k, _ in versions))
    rows = [[*(dict(v).get(k, "") for k in keys), str(number)] for v, number in count.items()]
    if rows:
        section.groups.append(Group(table=Table([*keys, "records"], rows, left=len(keys))))
    else:
        section.missing = f"No records with versions: `dualat evaluate {run}` measures."
    return section


def lacking(metric: str, option: str, run: str) -> str:
    """Which command makes the records of a metric."""
    return f"No records of {metric}: `dualat evaluate {run} --metrics {option}` measures it."


def by_group(figures: Sequence[Figure], key: Callable[[Figure], Any]) -> dict[Any, list[Figure]]:
    """Figures with the same key, in the order in which keys come."""
    groups: dict[Any, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(key(figure), []).append(figure)
    return groups
