"""Make `docs/claims.md`: each claim of the paper, the published figure, ours, and whether they agree.

    python studies/page.py

Figures and verdicts are computed from `studies/NAME/records/*.json` (and `studies/systems/cost.json`), pictures go to
`docs/claims/`. Claims, rules and reasons stand in claims.py and rules.py, notes in the study.yaml.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

from claims import CHANGED, CLAIMS, NO_SYSTEMS, WITHOUT_STUDY, Claim
from figures import draw
from measures import (
    CLASS_ACCURACY,
    CLEAN,
    ECE,
    EXPLODED,
    IMAGENET,
    JUDGED,
    LAST_R1,
    LAST_T,
    LATE_R1,
    LATE_ROUGHNESS,
    ROUGHNESS,
    autoattack,
    counterfactual,
    ood,
    ood_sources,
    pgd,
    relative_cost,
    unsteady,
)
from plan import answered
from reading import Figure, Run, Study, Values, read_studies
from rules import numbers, seeds_text

from dualat.system.files import write_text

HERE = Path(__file__).parent
OWN_FIGURES = {"ablation-batchnorm": [ROUGHNESS, LATE_ROUGHNESS], "ablation-at-branch": [LATE_R1]}
"""Figures of a study's curves, beside those that every ablation has."""

ABLATIONS = """\
All *ablations* have the smallest budget: WRN-10-1 on Fashion-MNIST, 200 steps of adversarial training (L2 radius 1.0) and 250 of
both losses, batch 64, unless said. So short a stage 2 needs its AUROC averaged over 256 images in place of 1,000, so that T grows
four times as fast, and a learning rate of 6e-3 (3e-2 diverged within 12 steps). T_max is 16 and AUC_th 0.7 where they are not
what is varied."""

HEAD = f"""\
# Claims, tested

Made by `python studies/page.py` from the records in `studies/*/records`: do not edit.

Published figures are those of [arXiv 2510.13872](https://arxiv.org/abs/2510.13872), other systems' as compared there
unless said otherwise, and belong to CIFAR-10, CIFAR-100 or ImageNet with large networks and long training. Ours belong to
small networks, Fashion-MNIST and minutes of training on a CPU: what can agree is the order and the size of differences, not
the figures. Frechet distances are measured in the features of a small classifier trained on Fashion-MNIST (the judge), or
of an ImageNet network: neither is FID.

*Agrees* and *disagrees* say whether the rule holds between means over the seeds that both sides have; behind it, how many of
these seeds agree alone. *Undecided* means that chance might turn it: the 95 % interval behind ± reaches across the rule's limit.
It holds what differs from seed to seed (Welch's interval) and the draw of test images: by the images on which the two differ
with the seeds whose records keep each image's outcome, as newer ones do; from either figure's own interval, which is wider, where
none does. With one seed everything is undecided, but for counts of divergences: those decide by themselves, whatever few runs
may hide. Runs that diverged for good are in no mean, but for that of R1.
In figures a mark is a mean over seeds, dots are seeds, a hollow mark is no system of the comparison, and bars are 95 % intervals:
of one seed's test images, or, with one seed, of its samples.
Figures are computed from the records; notes and reasons were written by hand. A command goes on with what is missing, and
is repeated until nothing is. `precision: auto` trains in bf16 on a CPU with AVX-512 BF16, and in fp32 on others: runs of the
latter kind are named with their study ([precision](#precision) has what that changed for DAT).

{CHANGED}

{ABLATIONS}

| word | meaning |
| --- | --- |
| f(x)[y], s(x) | the logit of class y, and log sum over y of exp f(x)[y]: minus the joint and the marginal energy |
| stage 1, stage 2 | DAT's adversarial training alone, and then together with the contrastive loss |
| L_BCE | that loss: binary cross-entropy of telling images from contrastive samples by s(x) |
| T, T_max, AUC_th | gradient steps that make a contrastive sample: one more, up to T_max, whenever the AUROC of telling images from contrastive samples by f(x)[y] reaches AUC_th |
| R1 | half the squared norm of the gradient of s(x), mean over training images |
| validity | share of counterfactuals that the network gives their target class |
| attacked | under the attack on the score itself, within L2 1.0, 20 steps |
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=Path, default=HERE, help="folder of the studies")
    parser.add_argument("--output", type=Path, default=HERE.parent / "docs" / "claims.md", help="the page")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args()
    sys.exit(answered(lambda: make(arguments.studies, arguments.output), arguments.debug))


def make(folder: Path, output: Path) -> int:
    """Write the page, and the figures into a folder beside it that bears its name."""
    studies = read_studies(folder)
    pictures = {name: draw(study, output.with_suffix("")) for name, study in studies.items()}
    names = dict.fromkeys([claim.study for claim in CLAIMS] + list(studies))  # those with claims first
    parts = [HEAD, overview(studies)]
    parts += [chapter(studies[name], output, pictures[name]) for name in names if name in studies]
    parts.append(without_study())
    write_text(output, "\n".join(parts))
    return 0


def overview(studies: dict[str, Study]) -> str:
    """One line per claim."""
    rows = [[link(c), verdict(c, studies)] for c in CLAIMS]
    return "## At a glance\n\n" + table(["claim", "ours"], rows)


def verdict(claim: Claim, studies: dict[str, Study]) -> str:
    """agrees, disagrees, no comparison, or not run yet."""
    study = studies.get(claim.study)
    finding = claim.check(study) if study is not None else None
    if study is None or finding is None:
        return "not run yet"
    return f"{finding.verdict}; of records with other settings" if study.outdated() else finding.verdict


def link(claim: Claim) -> str:
    return f"{claim.sentence} ([{claim.study}](#{claim.study}))"


def chapter(study: Study, output: Path, pictures: list[Path]) -> str:
    """A study: how much of it was run, its tables, its figures, its claims."""
    parts = [f"## {study.name}\n", f"{study.plan['title']}. {progress(study)}\n"]
    if study.plan["notes"] and study.made:
        parts.append(f"{study.plan['notes']}\n")
    if study.name == "systems" and study.made:
        parts.append(systems_tables(study))
        parts.append(not_the_best(study))
    elif study.made and study.plan["metrics"]:
        parts.append(variants_table(study))
    if study.made and ood_sources(study):
        parts.append(ood_tables(study))
    parts += [f"![{study.plan['title']}]({p.relative_to(output.parent).as_posix()})\n" for p in pictures]
    parts += [claim_text(claim, study) for claim in CLAIMS if claim.study == study.name]
    return "\n".join(parts)


def progress(study: Study) -> str:
    """'27 of 27 runs are made: `command`.', and a warning where they do not belong to the study as it is now."""
    text = f"{study.made} of {study.planned} runs are made" if study.made else "Not run yet"
    text = f"{text}: `{study.command}`."
    if full := in_full_precision(study):
        every = all(trained_in_full_precision(run) for runs in study.runs.values() for run in runs.values())
        text += " Trained in fp32." if every else f" Trained in fp32, the others in bf16: {'; '.join(full)}."
    if study.left_out:
        text += f" Left out, as they belong to no run of the plan: {', '.join(study.left_out)}."
    if old := study.outdated():
        text += f" **Made with other settings than `study.yaml` has now: {'; '.join(old)}.**"
    return text


def in_full_precision(study: Study) -> list[str]:
    """Variants, with their seeds, that `precision: auto` trained in fp32. Records that do not tell are of CPUs with bf16."""
    alike: dict[str, list[str]] = {}
    for variant, runs in study.runs.items():
        full = [seed for seed, run in runs.items() if trained_in_full_precision(run)]
        if full:
            alike.setdefault(seeds_text(full), []).append(f"`{variant}`")
    return [f"{', '.join(variants)} with {seeds}" for seeds, variants in alike.items()]


def trained_in_full_precision(run: Run) -> bool:
    return run["config"].get("precision", "auto") == "auto" and run.get("precision") == "float32"


def claim_text(claim: Claim, study: Study) -> str:
    """The claim in full."""
    finding = claim.check(study)
    lines = [f"**{claim.sentence}**\n", f"- published: {claim.published}"]
    if finding is None:
        lines.append(f"- ours: not run yet ({study.made} of {study.planned} runs are made)")
    else:
        lines += [f"- ours: {text}" for text in finding.ours]
    lines.append(f"- rule: {claim.check.rule}")
    if finding is not None:
        lines.append(f"- **{finding.verdict}**")
        if claim.why and finding.agrees is False:
            lines.append(f"- why: {claim.why}")
    if claim.note:
        lines.append(f"- note: {claim.note}")
    return "\n".join([*lines, f"- command: `{study.command}`\n"])


def systems_tables(study: Study) -> str:
    """All systems, most robust first: accuracy, samples, the rest."""
    radius = study.radius
    order = ranked(study, pgd(radius), JUDGED)

    def part(title: str, figures: list[Figure], **more: Callable[[Study, str], str]) -> str:
        heads = ["system", *(heading(study, f) for f in figures), *more, "seeds"]
        rows = [
            [
                f"`{v}`",
                *cells(study, v, figures),
                *(of(study, v) for of in more.values()),
                outcome(study, v)[1],
            ]
            for v in order
        ]
        return f"### {title}\n\n{table(heads, rows)}"

    notes = [
        f"Sorted by robust accuracy (PGD-20, L2 {radius:g}), equals by Frechet distance. Means over seeds, least and "
        "greatest seed below. sampler: steps × length of a step, chosen for each seed on validation images. "
        f"diverged: runs with a divergence, restarts among them, or with a logged loss beyond ±{EXPLODED:,}. Counterfactuals "
        "climb f(x)[target] from test images; their confidence is p(target), their Frechet distance that to training images of "
        "the target class.",
        *([cost_note(study)] if any(relative_cost(study, v) for v in study.runs) else []),
    ]
    ends = {"cost": cost_cell, "diverged": lambda study, variant: outcome(study, variant)[0]}
    return "\n".join(
        [
            part("Accuracy", accuracies(study)),
            part("Samples", [JUDGED, IMAGENET, CLASS_ACCURACY, LAST_T], sampler=samplers),
            part("Counterfactuals, gradients, training", [*of_counterfactuals(study), LAST_R1], **ends),
            *(f"{note}\n" for note in notes),
        ]
    )


def accuracies(study: Study) -> list[Figure]:
    """Accuracy, clean and attacked, and calibration."""
    evaluation = study.evaluation
    attacked = [
        *map(pgd, evaluation["eps"]),
        *map(autoattack, evaluation["autoattack_eps"] or [evaluation["validation_eps"]]),
    ]
    return [CLEAN, *attacked, ECE]


def of_counterfactuals(study: Study) -> list[Figure]:
    """Figures of counterfactuals."""
    radii = study.evaluation["counterfactual_eps"]
    return [counterfactual(value, eps) for eps in radii for value in ("validity", "confidence", "frechet")]


def of_detection(study: Study, score: str) -> list[Figure]:
    """AUROC by a score, clean and attacked for each source."""
    return [
        ood(source, score, eps)
        for source in ood_sources(study)
        for eps in (None, study.evaluation["ood_eps"])
    ]


def not_the_best(study: Study, own: str = "dat") -> str:
    """Every figure of the tables in which another system is better than DAT, and the best one."""
    figures = [*accuracies(study), JUDGED, IMAGENET, CLASS_ACCURACY, *of_counterfactuals(study)]
    figures += [figure for score in study.evaluation["ood_scores"] for figure in of_detection(study, score)]
    rows = []
    for figure in figures:
        found = {v: values for v in study.runs if v not in NO_SYSTEMS and (values := study.values(v, figure))}
        if own not in found:
            continue
        sign = -1 if figure.better == "more" else 1
        order = sorted(found, key=lambda v: sign * found[v].mean)
        better = [
            v for v in order[: order.index(own)] if figure.text(found[v].mean) != figure.text(found[own].mean)
        ]
        if better:
            text = figure.text(found[order[0]].mean)
            rows.append(
                [
                    figure.name,
                    figure.text(found[own].mean),
                    f"{len(better)} of {len(order) - 1}",
                    f"`{order[0]}` {text}",
                ]
            )
    if not rows:
        return ""
    note = "Means over the seeds that each has; systems that are not robust are among them. Cost is in the table above.\n"
    heads = ["metric value", f"`{own}`", "systems that are better", "the best"]
    return "\n".join([f"### Where `{own}` is not the best\n", table(heads, rows), note])


def variants_table(study: Study) -> str:
    """The variants of an ablation, in the order of its plan, and the figures that there are."""
    more = OWN_FIGURES.get(study.name, [])
    figures = [CLEAN, *(pgd(eps) for eps in study.evaluation["eps"]), JUDGED, CLASS_ACCURACY, *more, LAST_T]
    figures = [f for f in figures if any(study.values(v, f) for v in study.runs)]
    heads = ["variant", *(heading(study, f) for f in figures), "diverged", "seeds"]
    return table(heads, [[f"`{v}`", *cells(study, v, figures), *outcome(study, v)] for v in study.runs])


def ood_tables(study: Study) -> str:
    """AUROC by score: one row per system, clean and attacked for each source."""
    parts = []
    for score in study.evaluation["ood_scores"]:
        figures = of_detection(study, score)
        order = ranked(study, pgd(study.radius), JUDGED)
        heads = ["system", *(heading(study, f) for f in figures), "seeds"]
        rows = [[f"`{v}`", *cells(study, v, figures), outcome(study, v)[1]] for v in order]
        parts += [f"### OOD AUROC, score {score}\n", table(heads, rows)]
    return "\n".join(parts)


def ranked(study: Study, more: Figure, less: Figure) -> list[str]:
    """Variants by one figure, greatest first, equals to three digits by another, least first; those without it last."""

    def place(variant: str) -> tuple[bool, float, float]:
        first, second = study.values(variant, more), study.values(variant, less)
        if first is None:
            return (not study.runs[variant], math.inf, math.inf)
        return (False, -round(first.mean, 3), math.inf if second is None else second.mean)

    return sorted(study.runs, key=place)


def heading(study: Study, figure: Figure) -> str:
    """The figure's heading with the number of images behind it."""
    counts = {n for v in study.runs if (values := study.values(v, figure)) for n in values.counts}
    text = figure.short or figure.name
    return f"{text}<br>n = {numbers(counts)}" if counts else text


def cells(study: Study, variant: str, figures: list[Figure]) -> list[str]:
    """A cell per figure; where there is none, the first says why."""
    found = [study.values(variant, figure) for figure in figures]
    texts = [cell(figure, values) for figure, values in zip(figures, found, strict=True)]
    return texts if any(found) else [absent(study, variant), *texts[1:]]


def cell(figure: Figure, values: Values | None) -> str:
    """The mean, and from least to greatest seed below it."""
    if values is None:
        return "–"
    if len(values.by_seed) == 1:
        return figure.text(values.mean)
    return f"{figure.text(values.mean)}<br>{figure.text(values.low)} … {figure.text(values.high)}"


def absent(study: Study, variant: str) -> str:
    """Why a variant has no figure."""
    if not study.runs[variant]:
        return "not run yet"
    return "diverged" if study.diverged(variant) else "–"


def outcome(study: Study, variant: str) -> list[str]:
    """Runs that diverged, and the seeds."""
    runs, gone = study.runs[variant], study.diverged(variant)
    if not runs:
        return ["–", "–"]
    hit = sum(map(unsteady, runs.values()))
    text = f"{hit} of {len(runs)}"
    if gone:
        last = [runs[seed]["divergences"][-1] for seed in gone]
        where = ", ".join(
            f"{s}: stage {d['stage']}, step {d['step']}" for s, d in zip(gone, last, strict=True)
        )
        text += f"; for good with {seeds_text(gone)} ({where})"
    return [text, ", ".join(map(str, runs))]


def samplers(study: Study, variant: str) -> str:
    """The samplers that validation images chose."""
    found = [run["sampler"] for run in study.runs[variant].values() if "sampler" in run]
    texts = [
        f"{s['steps']} × {s['step_size']:g}" + ("" if s["rule"] == "L2" else f" ({s['rule']})") for s in found
    ]
    return ", ".join(dict.fromkeys(texts)) or "–"


def cost_cell(study: Study, variant: str) -> str:
    values = relative_cost(study, variant)
    return "–" if values is None else f"{values.mean:.2f}"


def cost_note(study: Study) -> str:
    """Where the column of costs comes from."""
    base = "cost: seconds of training, relative to `standard-at`,"
    if study.cost is None:
        return f"{base} by the runs' own speed, which other jobs on the machine distort (`python studies/cost.py` times it)."
    cost = study.cost
    text = (
        f"{base} of `studies/systems/cost.json`: steps of all methods timed in turn, median of {cost['rounds']} rounds, "
        f"{cost['threads']} thread{'s' if cost['threads'] > 1 else ''}, {cost['precision']}, torch "
        f"{cost['versions']['torch']}; load by other jobs when it began {cost['load']:g}. Steps of a curriculum were timed at two "
        "T, and count by the T that each run logged."
    )
    if (cost.get("base"), cost.get("variants")) != (study.plan["base"], study.plan["variants"]):
        text += " **It was timed with other settings than `study.yaml` has now.**"
    return text


def without_study() -> str:
    rows = [[text, f"not run yet: no study; needs {needs}"] for text, needs in WITHOUT_STUDY]
    note = (
        "Calibration, out-of-distribution detection and counterfactuals are measured above for every system; there is no "
        "published figure at hand to hold them against."
    )
    return "\n".join(
        ["## Published, and tested by no study here\n", table(["published", "ours"], rows), note, ""]
    )


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(entry.replace('|', '/') for entry in row)} |" for row in lines) + "\n"


if __name__ == "__main__":
    main()
