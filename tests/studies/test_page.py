"""The page of claims on made-up records whose means are known."""

import json
import math
import re
import sys
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib import pyplot
from scipy import stats

STUDIES = Path(__file__).parents[2] / "studies"
sys.path.insert(0, str(STUDIES))  # as `python studies/page.py` has it
claims, figures, measures, noise, page, reading, rules = map(
    import_module, ("claims", "figures", "measures", "noise", "page", "reading", "rules")
)

SEEDS = (0, 1, 2)
SOURCE = "/usr/share/openclipart/png/animals"
PLAN = {
    "title": "Made up",
    "base": {
        "method": "dat",
        "attack": {"eps": 1.0},
        "stage1": {"epochs": None, "steps": 100, "batch_size": 10},
        "stage2": {"epochs": None, "steps": 50, "batch_size": 10},
    },
    "variants": {
        "dat": None,
        "standard-at": {"method": "standard-at"},
        "jem": {"method": "jem"},
        "ratio": {"method": "ratio"},
    },
    "seeds": list(SEEDS),
    "metrics": ["clean_accuracy"],
    "evaluation": {
        "eps": [1.0],
        "autoattack_eps": [1.0],
        "ood_scores": ["s", "max_softmax"],
        "counterfactual_eps": [2.0],
    },
}


def entry(metric, value, n=1000, **settings):
    return {
        "metric": metric,
        "value": value,
        "n": n,
        "ci95": [value - 0.02, value + 0.04],
        "settings": settings,
    } | {"model": "final"}


def a_run(variant, seed, *, robust=0.5, distance=10.0, clean=0.8, outcome="finished", divergences=0, **more):
    """A run's record; figures of seed s are the given ones plus 0.01 * (s - 1), so that the mean of three is known."""
    shift = 0.01 * (seed - 1)
    run = {
        "variant": variant,
        "seed": seed,
        "method": variant if variant in PLAN["variants"] else "dat",
        "outcome": outcome,
        "divergences": [{"stage": 1, "step": 7, "loss": "nan", "gradient_norm": "nan"}] * divergences,
        "curves": {"stage": [], "step": []},
        "images_per_second": {"1": 100.0, "2": 25.0} if variant == "dat" else {"1": 100.0},
        "config": {
            "method": variant if variant in PLAN["variants"] else "dat",
            "attack": {"eps": 1.0},
            "stage1": {"epochs": None, "steps": 100, "batch_size": 10},
            "stage2": {"epochs": None, "steps": 50, "batch_size": 10},
        },
        **more,
    }
    if outcome == "finished":
        run["sampler"] = {"steps": 8, "step_size": 0.3, "rule": "L2"}
        run["records"] = [
            entry("clean_accuracy", clean + shift, 10000),
            entry("robust_accuracy", robust + shift, attack="pgd", norm="L2", eps=1.0, steps=20),
            entry("robust_accuracy", 0.0, attack="pgd", norm="L2", eps=14.0, steps=20),
            entry("robust_accuracy", robust + shift, 128, attack="autoattack", norm="L2", eps=1.0),
            entry("frechet_distance", distance + shift, features="judge-cnn, 1500 steps"),
            entry("frechet_distance", 10 * distance + shift, features="imagenet-efficientnet"),
            entry("ood_auroc", 0.9 + shift, 600, score="s", source=SOURCE, attack=None),
            entry("ood_auroc", 0.4 + shift, 600, score="s", source=SOURCE, attack={"eps": 1.0}),
            entry("ood_auroc", 0.7 + shift, 600, score="max_softmax", source=SOURCE, attack=None),
        ]
    return run


def write(folder, name, runs, plan=PLAN, cost=None):
    """A study in a folder; returns it as the page reads it."""
    (folder / name / "records").mkdir(parents=True)
    (folder / name / "study.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    for run in runs:
        path = folder / name / "records" / f"{run['variant']}-seed{run['seed']}.json"
        path.write_text(json.dumps(run))
    if cost is not None:
        (folder / name / "cost.json").write_text(json.dumps(cost))
    return reading.read_study(folder / name)


def four(robust=(0.7, 0.7, 0.1, 0.65), distance=(5.0, 20.0, 30.0, 8.0), **of_jem):
    """Runs of dat, standard-at, jem and ratio with every seed."""
    values = list(zip(PLAN["variants"], robust, distance, strict=True))
    return [
        a_run(name, seed, robust=r, distance=d, **(of_jem if name == "jem" else {}))
        for name, r, d in values
        for seed in SEEDS
    ]


def made(folder):
    """The page as text."""
    page.make(folder, folder / "out" / "claims.md")
    return (folder / "out" / "claims.md").read_text()


def row(text, beginning):
    """Cells of the first table row that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(beginning))
    return [cell.strip() for cell in line.strip("|").split("|")]


def section(text, title):
    """The part of the page below a heading."""
    return text.split(f"### {title}\n")[1].split("\n#")[0]


def test_systems_tables_have_means_spreads_numbers_and_order(tmp_path):
    write(tmp_path, "systems", four())
    text = made(tmp_path)
    accuracy = section(text, "Accuracy")
    assert row(accuracy, "| system | clean")[1:4] == [
        "clean accuracy<br>n = 10,000",
        "robust, L2 1, PGD-20<br>n = 1,000",
        "robust, L2 1, AutoAttack<br>n = 128",
    ]
    assert row(accuracy, "| `dat`")[1:] == [
        "0.800<br>0.790 … 0.810",
        "0.700<br>0.690 … 0.710",
        "0.700<br>0.690 … 0.710",
        "–",
        "0, 1, 2",
    ]
    samples = row(section(text, "Samples"), "| `dat`")
    assert samples[1:3] == ["5.00<br>4.99 … 5.01", "50.0<br>50.0 … 50.0"]
    assert samples[-2:] == ["8 × 0.3", "0, 1, 2"]
    rest = section(text, "Counterfactuals, gradients, training")
    assert row(rest, "| `dat`")[-3:] == ["3.00", "0 of 3", "0, 1, 2"]
    # robust accuracy first; dat and standard-at are equal there, and dat has the smaller distance
    for part in (accuracy, rest):
        names = [line.split("`")[1] for line in part.splitlines() if line.startswith("| `")]
        assert names == ["dat", "standard-at", "ratio", "jem"]


def test_ood_tables_keep_scores_sources_and_attacks_apart(tmp_path):
    write(tmp_path, "systems", four())
    text = made(tmp_path)
    by_s, by_softmax = text.split("### OOD AUROC, score s\n")[1].split("### OOD AUROC, score max_softmax\n")
    assert row(by_s, "| system")[1:3] == [
        "clip art (animals), clean<br>n = 600",
        "clip art (animals), attacked<br>n = 600",
    ]
    assert row(by_s, "| `dat`")[1:3] == ["0.900<br>0.890 … 0.910", "0.400<br>0.390 … 0.410"]
    assert row(by_softmax, "| `dat`")[1:3] == ["0.700<br>0.690 … 0.710", "–"]


def test_what_another_system_is_better_at_is_listed(tmp_path):
    text = made_of(tmp_path, four(robust=(0.68, 0.7, 0.1, 0.69), distance=(6.0, 20.0, 5.0, 8.0)))
    part = text.split("### Where `dat` is not the best\n")[1].split("###")[0]
    assert row(part, "| Frechet distance, judge-cnn")[1:] == ["6.00", "1 of 3", "`jem` 5.00"]
    assert row(part, "| robust accuracy, L2 1, PGD-20")[1:] == ["0.680", "2 of 3", "`standard-at` 0.700"]
    assert "| clean accuracy |" not in part  # equal to all others
    # a variant beside the systems is none that is better, and nothing to be better at leaves no heading
    beside = [run | {"variant": "dat-long"} for run in four(robust=(0.9,) * 4)[:3]]
    plan = PLAN | {"variants": {**PLAN["variants"], "dat-long": None}}
    best = four(robust=(0.75, 0.7, 0.1, 0.69))
    assert "is not the best" not in made_of(tmp_path / "best", best + beside, plan=plan)


def test_notes_are_shown_whatever_the_verdict_and_reasons_where_ours_disagrees(tmp_path):
    claim = replace(claims.CLAIMS[0], why="since", note="besides")
    for folder, robust, why in (("agrees", (0.7, 0.7, 0.1, 0.6), False), ("not", (0.6, 0.7, 0.1, 0.7), True)):
        study = write(tmp_path / folder, "systems", four(robust=robust))
        text = page.claim_text(claim, study)
        assert "- note: besides\n" in text and ("- why: since\n" in text) is why


def test_a_run_that_diverged_says_so_and_others_that_restarted_count(tmp_path):
    runs = four(outcome="diverged", divergences=1)
    runs = [
        r | {"divergences": [{"stage": 2, "step": 3}]} if r["variant"] == "ratio" and r["seed"] == 1 else r
        for r in runs
    ]
    text = made_of(tmp_path, runs)
    jem = row(text, "| `jem`")
    assert jem[1] == "diverged" and set(jem[2:-1]) == {"–"}
    rest = section(text, "Counterfactuals, gradients, training")
    jem = row(rest, "| `jem`")
    assert jem[-2].startswith("3 of 3; for good with seeds 0, 1, 2 (0: stage 1, step 7,")
    assert row(rest, "| `ratio`")[-2] == "1 of 3"
    assert "- ours: `jem` diverged with seeds 0, 1, 2\n" in text
    assert "**no comparison**" in text


def made_of(folder, runs, **more):
    write(folder, "systems", runs, **more)
    return made(folder)


def test_one_of_three_seeds_diverged_is_left_out_of_the_mean(tmp_path):
    runs = [r for r in four() if (r["variant"], r["seed"]) != ("jem", 2)]
    runs.append(a_run("jem", 2, outcome="diverged", divergences=4))
    text = made_of(tmp_path, runs)
    assert row(text, "| `jem`")[1] == "0.795<br>0.790 … 0.800"
    rest = section(text, "Counterfactuals, gradients, training")
    assert row(rest, "| `jem`")[-2] == "1 of 3; for good with seed 2 (2: stage 1, step 7)"
    assert "mean 30.0 (30.0, 30.0), n = 1,000, seeds 0, 1\n" in text
    assert "- ours: `jem` diverged with seed 2, which no mean has\n" in text
    claim = row(text, "| DAT's samples are better than JEM's")[1]
    assert claim == "agrees (2 of 2 seeds agree alone; of the runs that did not diverge)"


def test_without_records_every_claim_is_not_run_yet_and_has_its_command(tmp_path):
    write(tmp_path, "systems", [])
    write(tmp_path, "ablation-knob", [], plan=PLAN | {"variants": {"t1": None, "t16": None}})
    text = made(tmp_path)
    assert text.count("| not run yet |") == len(claims.CLAIMS)
    assert "agrees (" not in text and "**disagrees" not in text
    assert "- ours: not run yet (0 of 12 runs are made)" in text
    assert "- command: `python studies/run.py ablation-knob`" in text
    assert not (tmp_path / "out" / "claims").exists()  # no figure of nothing


def test_some_records_leave_the_other_claims_not_run_yet(tmp_path):
    text = made_of(tmp_path, [r for r in four() if r["variant"] in ("dat", "standard-at")])
    assert row(text, "| `jem`")[1] == "not run yet"
    assert "6 of 12 runs are made" in text
    assert (
        row(text, "| DAT keeps the robust accuracy")[1]
        == "undecided (the means agree; 3 of 3 seeds agree alone)"
    )
    assert row(text, "| DAT's samples are better than JEM's")[1] == "not run yet"
    assert row(text, "| Of all robust systems")[1] == "not run yet"


@pytest.mark.parametrize(
    ("beginning", "right", "wrong"),
    [
        (
            "DAT keeps the robust accuracy",
            {"robust": (0.695, 0.7, 0.1, 0.7)},
            {"robust": (0.68, 0.7, 0.1, 0.7)},
        ),
        (
            "DAT's samples are far better",
            {"distance": (6.0, 20.0, 30.0, 8.0)},
            {"distance": (7.0, 20.0, 30.0, 8.0)},
        ),
        (
            "DAT's samples are better than JEM's",
            {"distance": (6.0, 20.0, 7.0, 8.0)},
            {"distance": (6.0, 20.0, 5.0, 8.0)},
        ),
        ("Of all robust systems", {"distance": (6.0, 20.0, 1.0, 8.0)}, {"distance": (6.0, 20.0, 30.0, 5.0)}),
        ("DAT is as robust as RATIO", {"robust": (0.7, 0.7, 0.1, 0.705)}, {"robust": (0.7, 0.7, 0.1, 0.75)}),
    ],
)
def test_rules_agree_and_disagree_by_the_numbers(tmp_path, beginning, right, wrong):
    for folder, values, disagrees in (("right", right, False), ("wrong", wrong, True)):
        text = made_of(tmp_path / folder, four(**values))
        cell = row(text, f"| {beginning}")[1]  # undecided or not
        assert "agree" in cell and ("disagree" in cell) is disagrees


def test_seeds_that_agree_alone_are_counted(tmp_path):
    runs = four()
    for run in runs:
        if (
            run["variant"] == "dat"
        ):  # by seed: 0.75, 0.70, 0.60 against 0.69, 0.70, 0.71: the mean is within 0.02
            value = {0: 0.75, 1: 0.70, 2: 0.60}[run["seed"]]
            for record in run["records"]:
                if record["metric"] == "robust_accuracy":
                    record["value"] = value
    study = write(tmp_path, "systems", runs)
    figure = measures.pgd(1.0)
    finding = rules.comparing(figure, "dat", rules.no_lower(0.02), "standard-at")(study)
    assert finding is not None and (finding.agrees, finding.seeds) == (True, (2, 3))
    assert finding.verdict == "undecided (the means agree; 2 of 3 seeds agree alone)"
    assert finding.ours[0] == (
        "`dat`, robust accuracy, L2 1, PGD-20: mean 0.683 (0.750, 0.700, 0.600), n = 1,000, seeds 0, 1, 2"
    )
    assert re.fullmatch(r"`dat` less `standard-at`: -0.017 ± 0.1\d\d \(95 %\)", finding.ours[2])
    finding = rules.comparing(figure, "dat", rules.no_lower(0.01), "standard-at")(study)
    assert (
        finding is not None and finding.verdict == "undecided (the means disagree; 2 of 3 seeds agree alone)"
    )


def test_a_difference_beyond_both_intervals_is_not_within_the_noise(tmp_path):
    # images: +-0.03 each, 0.0424 of the difference; seeds: t(4) * sqrt(2 * 0.01^2 / 3) = 0.0227; together 0.048
    for robust, noisy in ((0.66, True), (0.65, False), (0.74, True), (0.75, False)):
        study = write(tmp_path / str(robust), "systems", four(robust=(robust, 0.7, 0.1, 0.7)))
        finding = rules.comparing(measures.pgd(1.0), "dat", rules.BELOW, "standard-at")(study)
        assert finding is not None and finding.noisy is noisy
        assert finding.verdict.startswith("undecided") is noisy


def test_one_pair_that_fails_beyond_the_noise_decides(tmp_path):
    # robust accuracies 0.69, 0.7 (within the noise), 0.1 and 0.65
    study = write(tmp_path, "systems", four(robust=(0.69, 0.7, 0.1, 0.65)))
    robust = measures.pgd(1.0)
    fails_in_noise = rules.Pair(robust, "dat", rules.ABOVE, "standard-at")
    fails, holds = (
        rules.Pair(robust, "dat", rules.BELOW, "jem"),
        rules.Pair(robust, "dat", rules.ABOVE, "jem"),
    )
    for pairs, agrees, noisy in (
        ((fails_in_noise,), False, True),
        ((fails_in_noise, fails), False, False),
        ((fails_in_noise, holds), False, True),
        ((holds,), True, False),
    ):
        finding = rules.Compare(pairs)(study)
        assert finding is not None and (finding.agrees, finding.noisy) == (agrees, noisy)


def values_of(*values, half=None, correct=None):
    """A figure by seed."""
    return reading.Values({s: reading.Measured(v, 1000, half, correct) for s, v in enumerate(values)})


def test_the_interval_of_a_share_is_scaled_as_the_share_is():
    third, right = 1 / 3, values_of(0.8, half=0.03)
    assert noise.half_width(values_of(0.3, half=0.01), right, third) == pytest.approx(math.hypot(0.01, 0.01))
    assert noise.half_width(values_of(3.0, half=0.01), right, 3.0) == pytest.approx(math.hypot(0.01, 0.09))
    relation = rules.share_of(third, "a third of")  # 0.3 - 0.8 / 3 = 0.033
    assert not rules.within_noise(relation, values_of(0.3), right, 0.03)
    assert rules.within_noise(relation, values_of(0.3), right, 0.04)


def test_noise_of_seeds_is_welchs_interval():
    left, right = (3.0, 4.0, 8.0), (1.0, 1.5, 1.1)
    wanted = stats.ttest_ind(left, right, equal_var=False).confidence_interval(0.95)
    half = noise.half_width(values_of(*left), values_of(*right))
    assert half == pytest.approx((wanted.high - wanted.low) / 2)
    scaled = noise.half_width(values_of(*left), values_of(*(2 * v for v in right)), 0.5)
    assert scaled == pytest.approx(half)
    assert noise.half_width(values_of(1.0, 1.0), values_of(2.0, 2.0)) == 0.0
    assert noise.half_width(values_of(1.0, math.inf), values_of(2.0, 2.5)) == 0.0
    # figures of samples: intervals of their own count with one seed alone, as each seed draws anew
    assert noise.half_width(values_of(*left, half=5.0), values_of(*right), of_samples=True) == pytest.approx(
        half
    )
    assert noise.half_width(values_of(3.0, half=4.0), values_of(1.0, half=3.0), of_samples=True) == 5.0


def test_noise_of_images_is_that_of_those_on_which_the_two_differ():
    rng = np.random.default_rng(0)
    ours = (rng.random(1000) < 0.7).astype(int)
    theirs = np.where(rng.random(1000) < 0.05, 1 - ours, ours)  # one image in twenty differs
    wanted = stats.norm.ppf(0.975) * (ours - theirs).std(ddof=1) / math.sqrt(1000)
    left = values_of(ours.mean(), half=0.03, correct=ours)
    right = values_of(theirs.mean(), half=0.03, correct=theirs)
    assert noise.half_width(left, right) == pytest.approx(wanted) and wanted < 0.02
    # where one side does not tell, or looked at other images, both intervals count
    for other in (values_of(0.7, half=0.04), values_of(0.7, half=0.04, correct=theirs[:500])):
        assert noise.half_width(left, other) == pytest.approx(0.05)


def test_one_seed_decides_nothing(tmp_path):
    runs = [run for run in four(distance=(1.0, 20.0, 30.0, 8.0)) if run["seed"] == 1]
    study = write(tmp_path, "systems", runs)
    finding = rules.comparing(measures.JUDGED, "dat", rules.BELOW, "jem")(study)
    assert finding is not None and finding.verdict == "undecided (the means agree; one seed)"


def test_without_a_common_seed_there_is_no_comparison(tmp_path):
    runs = [r for r in four() if r["variant"] in ("dat", "jem")]
    for variant, seed in (("dat", 0), ("dat", 1), ("jem", 2)):
        runs = [r for r in runs if (r["variant"], r["seed"]) != (variant, seed)]
        runs.append(a_run(variant, seed, outcome="diverged", divergences=1))
    study = write(tmp_path, "systems", runs)
    finding = rules.comparing(measures.JUDGED, "dat", rules.BELOW, "jem")(study)
    assert finding is not None and finding.verdict == "no comparison"
    assert finding.ours == ["`dat` diverged with seeds 0, 1", "`jem` diverged with seed 2"]
    study.runs["jem"].pop(2)
    assert rules.comparing(measures.JUDGED, "dat", rules.BELOW, "jem")(study) is None  # not run yet


def test_every_pair_of_a_rule_must_hold(tmp_path):
    study = write(tmp_path, "systems", four(distance=(5.0, 20.0, 30.0, 8.0)))
    better = rules.Pair(measures.JUDGED, "dat", rules.BELOW, "ratio")
    less_robust = rules.Pair(measures.pgd(1.0), "dat", rules.BELOW, "ratio")
    assert rules.Compare((better,))(study).agrees is True
    assert rules.Compare((better, less_robust))(study).agrees is False


def test_a_variant_beside_the_comparison_is_not_compared(tmp_path):
    study = write(tmp_path, "systems", four(distance=(6.0, 20.0, 30.0, 5.0)))  # of ratio 5, less than dat's
    asked = ("dat", measures.JUDGED, measures.pgd(1.0), "standard-at")
    assert rules.LeastAmongRobust(*asked)(study).agrees is False
    check = rules.LeastAmongRobust(*asked, beside=("ratio",))
    assert check(study).agrees is True
    assert check.rule.endswith("(`ratio` left out)")
    study.runs["ratio"].clear()
    assert check(study).agrees is True  # nor waited for


def test_relations():
    assert rules.share_of(1 / 3, "a third of").holds(2.0, 6.1) and not rules.share_of(1 / 3, "").holds(
        2.1, 6.0
    )
    assert rules.times(10).holds(10.0, 1.0) and not rules.times(10).holds(9.9, 1.0)
    assert rules.times(10).holds(math.inf, 1.0)
    assert rules.ABOVE.holds(2, 1) and not rules.ABOVE.holds(1, 1) and not rules.BELOW.holds(1, 1)


@pytest.mark.parametrize(("of_dat", "of_jem"), [(0, 1), (0, 0), (1, 1)])
def test_divergences_are_counted_over_groups(tmp_path, of_dat, of_jem):
    names = {"dat-x1": of_dat, "dat-x2": 0, "jem-x1": 0, "jem-x2": of_jem}
    runs = [a_run(v, s, divergences=d if s == 1 else 0) for v, d in names.items() for s in SEEDS]
    study = write(tmp_path, "stability", runs, plan=PLAN | {"variants": dict.fromkeys(names)})
    stable = rules.Steady(rules.Group("DAT", ("dat-x1", "dat-x2")))
    unstable = rules.Unsteady(rules.Group("JEM", ("jem-x1", "jem-x2")))
    for check, agrees, line in (
        (stable, of_dat == 0, f"DAT: {of_dat} of 6 runs diverged (95 %: "),
        (unstable, of_jem > 0, f"JEM: {of_jem} of 6 runs diverged (95 %: "),
    ):
        finding = check(study)
        assert finding is not None and finding.agrees is agrees and finding.ours[0].startswith(line)
    run = study.runs["jem-x2"][0]
    run["curves"] = {"stage": [1, 1], "step": [10, 20], "loss": [2.0, -1001.0]}  # logged, and not stopped
    assert unstable(study).ours[0].startswith(f"JEM: {of_jem + 1} of 6 runs diverged")
    study.runs["jem-x2"].pop(0)
    assert unstable(study) is None and stable(study) is not None  # a count needs all runs of its group


def test_a_study_that_measures_nothing_has_its_chapter(tmp_path):
    plan = {key: value for key, value in PLAN.items() if key != "evaluation"} | {"metrics": []}
    names = [f"{system}-{rate}" for system in ("dat", "jem") for rate in claims.RATES]
    write(tmp_path, "stability", [a_run("dat-x1", 0)], plan=plan | {"variants": dict.fromkeys(names)})
    assert "1 of 30 runs are made: `python studies/run.py stability`." in made(tmp_path)


def test_a_study_without_claims_has_its_chapter_and_records_of_no_run_are_named(tmp_path):
    plan = PLAN | {"title": "Somebody's own", "evaluation": {"samples": 10}}
    write(tmp_path, "own", [a_run("dat", 0), a_run("mystery", 0)], plan=plan)
    text = made(tmp_path)
    assert "## own" in text and "Somebody's own. 1 of 12 runs are made" in text
    assert "Left out, as they belong to no run of the plan: mystery-seed0.json." in text


def test_a_study_that_is_none_is_one_sentence(tmp_path, monkeypatch, capsys):
    plan = {k: v for k, v in PLAN.items() if k != "variants"} | {"variant": {"a": None}}
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "study.yaml").write_text(yaml.safe_dump(plan))
    monkeypatch.setattr(
        sys, "argv", ["page.py", "--studies", str(tmp_path), "--output", str(tmp_path / "c.md")]
    )
    with pytest.raises(SystemExit) as stop:
        page.main()
    assert stop.value.code == 2
    assert "own/study.yaml: variant is no key of a study. Did you mean variants?" in capsys.readouterr().err


def test_radii_of_the_configuration_have_their_column_and_figures_without_records_none(tmp_path):
    base = PLAN["base"] | {"evaluation": {"eps": [1.0], "validation_eps": 1.0}}
    plan = {k: v for k, v in PLAN.items() if k != "evaluation"} | {"base": base}
    runs = four()
    for run in runs:
        run["records"] = [r for r in run["records"] if r["metric"] in ("clean_accuracy", "robust_accuracy")]
    write(tmp_path, "own", runs, plan=plan)
    heads = row(made(tmp_path), "| variant |")
    assert [head.split("<br>")[0] for head in heads[1:]] == [
        "clean accuracy",
        "robust, L2 1, PGD-20",
        "diverged",
        "seeds",
    ]


@pytest.mark.slow
def test_the_committed_page_is_what_its_records_give(tmp_path):
    page.make(STUDIES, tmp_path / "claims.md")
    committed = (STUDIES.parent / "docs" / "claims.md").read_text(encoding="utf-8")
    assert (tmp_path / "claims.md").read_text(encoding="utf-8") == committed, "run python studies/page.py"
    drawn = {path.name for path in (tmp_path / "claims").glob("*.png")}
    assert drawn == {path.name for path in (STUDIES.parent / "docs" / "claims").glob("*.png")}


def test_runs_that_auto_trained_in_fp32_are_named(tmp_path):
    """Neither those in bf16, nor those whose settings ask for fp32, nor records that do not tell."""
    runs = [a_run("dat", 0), a_run("dat", 1, precision="float32"), a_run("dat", 2, precision="bfloat16")]
    runs += [a_run("jem", 1, precision="float32"), a_run("ratio", 0, precision="float32")]
    runs += [a_run("ratio", 2, precision="float32"), a_run("standard-at", 0, precision="float32")]
    runs[-1]["config"]["precision"] = "fp32"
    text = made_of(tmp_path, runs)
    assert "Trained in fp32, the others in bf16: `dat`, `jem` with seed 1; `ratio` with seeds 0, 2." in text
    assert "Trained in fp32" not in made_of(tmp_path / "bf16", runs[:1])
    assert "runs are made: `python studies/run.py systems`. Trained in fp32.\n" in made_of(
        tmp_path / "fp32", runs[1:2]
    )


def test_a_damaged_record_is_one_sentence(tmp_path, monkeypatch, capsys):
    write(tmp_path, "systems", four())
    record = tmp_path / "systems" / "records" / "dat-seed0.json"
    record.write_text(record.read_text()[:50])
    monkeypatch.setattr(
        sys, "argv", ["page.py", "--studies", str(tmp_path), "--output", str(tmp_path / "claims.md")]
    )
    with pytest.raises(SystemExit) as stop:
        page.main()
    assert stop.value.code == 1
    assert f"{record} is damaged: remove it, and make it anew" in capsys.readouterr().err


def test_a_record_with_a_damaged_metric_value_names_its_file(tmp_path):
    runs = [a_run("dat", 0)]
    runs[0]["records"][0]["n"] = "many"
    with pytest.raises(
        ValueError, match=r"dat-seed0.json is damaged \(n of 'clean_accuracy' is 'many'\): remove it"
    ):
        write(tmp_path, "systems", runs)


def test_cost_by_the_runs_own_speed_and_by_cost_json(tmp_path):
    # by speed: 100 steps of 10 images at 100/s and 50 at 25/s, 30 s, against 10 s
    study = write(tmp_path / "a", "systems", four())
    assert measures.relative_cost(study, "dat").mean == pytest.approx(3.0)
    steps = {"standard-at": {"1": {"0": 0.1}}, "jem": {"1": {"0": 0.3}}}
    steps["dat"] = {"1": {"0": 0.1}, "2": {"0": 0.12, "10": 0.32}}
    cost = {"seconds_per_step": steps, "rounds": 7, "threads": 1}
    cost |= {"precision": "bfloat16", "versions": {"torch": "2.15"}, "load": 0.2}
    study = write(tmp_path / "b", "systems", four(), cost=cost)
    # 100 * 0.1 + 50 * 0.12 against 100 * 0.1
    assert measures.relative_cost(study, "dat").mean == pytest.approx(1.6)
    assert measures.relative_cost(study, "jem").mean == pytest.approx(3.0)
    assert measures.relative_cost(study, "ratio") is None  # not timed
    assert rules.CostAtMost("dat", 1.61)(study).agrees is True
    assert rules.CostAtMost("dat", 1.56)(study).agrees is False
    for run in study.runs["dat"].values():  # T of 0, 2 and 4: 2 in the mean, 0.16 s a step
        run["curves"] = {"stage": [1, 2, 2, 2], "step": [50, 10, 30, 50], "T": [None, 0.0, 2.0, 4.0]}
    assert measures.relative_cost(study, "dat").mean == pytest.approx(1.8)
    assert "1.20 times at T = 0, 3.20 times at T = 10;" in rules.CostAtMost("dat", 1.56)(study).ours[1]
    assert "median of 7 rounds, 1 thread, bfloat16, torch 2.15" in made(tmp_path / "b")
    assert "other jobs on the machine distort" in made(tmp_path / "a")
    timed = cost | {"base": study.plan["base"], "variants": study.plan["variants"]}
    for name, settings, old in (("c", timed, False), ("d", timed | {"base": {"method": "jem"}}, True)):
        write(tmp_path / name, "systems", four(), cost=settings)
        assert ("timed with other settings" in made(tmp_path / name)) is old


def test_figures_of_curves():
    curves = {
        "stage": [1, 2, 2, 2, 2, 2],
        "step": [10, 5, 10, 15, 20, 25],
        "loss_energy": [None, 1.0, 0.5, 0.75, 0.75, 1.75],
        "r1": [9.0, 1.0, 2.0, 3.0, 4.0, 50.0],
        "T": [None, 0.0, 1.0, 1.0, 2.0, 3.0],
    }
    run = a_run("dat", 0, curves=curves)
    assert measures.roughness(run).value == pytest.approx((0.5 + 0.25 + 0 + 1) / 4)
    assert measures.late_roughness(run).value == pytest.approx((0 + 1) / 2)  # the last three of five points
    assert measures.late_r1(run).value == 50.0  # the last fifth of five points
    assert measures.last_t(run).value == 3.0
    exploded = a_run("dat", 0, curves=curves | {"r1": [9.0, 1.0, 2.0, 3.0, 4.0, math.nan]})
    assert measures.late_r1(exploded).value == math.inf
    assert measures.roughness(a_run("dat", 0)) is None  # diverged before anything was logged


def test_records_of_other_settings_are_named(tmp_path):
    runs = four()
    assert "Made with other settings" not in made_of(tmp_path / "a", runs)
    runs[0]["config"]["attack"]["eps"] = 0.5
    text = made_of(tmp_path / "b", runs)
    assert "**Made with other settings than `study.yaml` has now: dat, seed 0.**" in text
    assert row(text, "| DAT keeps the robust accuracy")[1].endswith("; of records with other settings")


def test_a_run_that_exploded_is_counted_alike_everywhere(tmp_path):
    runs = four()
    runs[0]["curves"] = {"stage": [1, 1], "step": [5, 10], "loss": [2.0, 5e6]}
    text = made_of(tmp_path, runs)
    rest = section(text, "Counterfactuals, gradients, training")
    assert row(rest, "| `dat`")[-2] == "1 of 3" and row(text, "| DAT trains without")[1] == "disagrees"


def test_curves_of_a_run_that_diverged_are_in_no_mean_but_r1s(tmp_path):
    curves = {"stage": [2, 2], "step": [5, 10], "loss_energy": [1.0, 3.0], "r1": [1.0, 7.0], "T": [0.0, 9.0]}
    study = write(tmp_path, "systems", [a_run("dat", 0, outcome="diverged", divergences=1, curves=curves)])
    assert study.values("dat", measures.ROUGHNESS) is None and study.values("dat", measures.LAST_T) is None
    assert study.values("dat", measures.LATE_R1).mean == 7.0


def test_records_of_unknown_variants_and_seeds_are_left_out(tmp_path):
    study = write(tmp_path, "systems", [a_run("dat", 0), a_run("dat", 9), a_run("mystery", 0)])
    assert study.made == 1 and "mystery" not in study.runs


def test_figures_are_drawn_and_shown(tmp_path):
    text = made_of(tmp_path, four())
    assert "![Made up](claims/systems.png)" in text
    assert "![Made up](claims/systems-cost.png)" in text
    assert (tmp_path / "out" / "claims" / "systems.png").stat().st_size < 100_000


def test_figures_show_means_seeds_and_intervals(tmp_path):
    _, axes = pyplot.subplots()
    study = write(tmp_path, "systems", four())
    assert figures.plane(measures.CLEAN, measures.pgd(1.0))(study, axes)
    means = [line for line in axes.lines if len(line.get_xdata()) == 1]
    seeds = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert {tuple(line.get_xydata()[0].round(6)) for line in means} >= {(0.8, 0.7), (0.8, 0.1), (0.8, 0.65)}
    assert len(seeds) == 4 and seeds[0].get_ydata() == pytest.approx([0.69, 0.70, 0.71])
    assert {t.get_text() for t in axes.texts} == set(PLAN["variants"])
    values = study.values("dat", measures.CLEAN)
    assert figures.interval(measures.CLEAN, values) == pytest.approx(0.03)
    assert figures.interval(measures.JUDGED, values) is None  # the seeds show what samples vary by
    assert figures.interval(measures.JUDGED, reading.Values({0: values.by_seed[0]})) == pytest.approx(0.03)
    pyplot.close("all")


def test_courses_are_one_line_per_run_and_losses_one_mark_per_run(tmp_path):
    curves = {"stage": [1, 2, 2], "step": [5, 5, 10], "r1": [9.0, 1.0, 2.0], "loss": [3.0, -5.0, 2.0]}
    study = write(tmp_path, "systems", [a_run("dat", s, curves=curves) for s in SEEDS])
    study.runs["dat"][2]["curves"] = curves | {"loss": [3.0, -5000.0, 2.0]}
    _, axes = pyplot.subplots()
    assert figures.course("r1", "R1", log=True)(study, axes)
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[5, 1], [10, 2]]] * 3
    _, axes = pyplot.subplots()
    assert figures.steadiness(study, axes)
    marks = [(line.get_ydata()[0], line.get_marker()) for line in axes.lines if len(line.get_xdata()) == 1]
    assert marks == [(5.0, "o"), (5.0, "o"), (1500.0, "X")]  # beyond the limit it stays in sight
    _, axes = pyplot.subplots()
    study.runs["standard-at"] = {0: a_run("standard-at", 0)}
    assert figures.costs(study, axes)
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx([1.0, 3.0])
    pyplot.close("all")


def strings(part):
    """Every string in a rule's fields, but for names and words, which are written for people."""
    if isinstance(part, str):
        return {part}
    if is_dataclass(part):
        part = tuple(getattr(part, f.name) for f in fields(part) if f.name not in ("name", "words", "scaled"))
    elif not isinstance(part, (tuple, list, set, frozenset)):
        return set()
    return {string for item in part if not isinstance(item, reading.Figure) for string in strings(item)}


def named(check):
    """Every variant that a rule names: in its fields, and `so` in its words."""
    return strings(check) | set(re.findall("`([^`]+)`", check.rule))


def test_claims_name_studies_and_variants_that_exist():
    pair = rules.Pair(measures.CLEAN, "a", rules.BELOW, "b")
    assert named(rules.Compare((pair, pair))) == {"a", "b"}
    assert named(rules.Equal(((measures.CLEAN, 0.01),), "fp23", "bf16")) == {"fp23", "bf16"}
    assert named(rules.CostAtMost("dta", 1.5)) == {"dta", "standard-at"}
    least = rules.LeastAmongRobust("a", measures.JUDGED, measures.CLEAN, "b", beside=("dat-lnog",))
    assert named(least) == {"a", "b", "dat-lnog"}
    group = rules.Group("one", ("a", "b"))
    assert named(rules.Steady(group)) == named(rules.Unsteady(group)) == {"a", "b"}
    studies = reading.read_studies(STUDIES)
    for claim in claims.CLAIMS:
        variants = named(claim.check)
        assert variants and variants <= set(studies[claim.study].plan["variants"]), claim.sentence
        assert claim.check.rule and claim.published


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*/study.yaml")), ids=lambda path: path.parent.name)
def test_every_variant_of_every_study_is_a_valid_configuration(path):
    from dualat.config import build_config
    from dualat.core.sampler_settings import SamplingSettings
    from dualat.methods.registry import METHODS
    from dualat.short_form import merge

    plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    for overrides in plan["variants"].values():
        config = build_config(merge(plan["base"], overrides or {}))
        replace(config.evaluation, **plan.get("evaluation", {}))
    own = plan.get("own_samplers", {})
    assert set(own) <= set(METHODS)
    lists = [samplers if isinstance(samplers, list) else [samplers] for samplers in own.values()]
    for sampler in sum(lists, plan.get("samplers", [])):
        SamplingSettings(**sampler)
    claimed = path.parent.name in {claim.study for claim in claims.CLAIMS}
    assert len(set(plan["seeds"])) == len(plan["seeds"]) >= (3 if claimed else 1)


def test_two_variants_are_equal_by_their_differences_seed_by_seed(tmp_path):
    # of standard-at: 0.69, 0.70, 0.71
    for name, of_dat, verdict in (
        ("equal", (0.692, 0.703, 0.712), "agrees"),  # 0.0023 +- 0.0014
        ("unclear", (0.690, 0.710, 0.703), "undecided (the means agree)"),  # 0.001 +- 0.022
        ("other", (0.670, 0.679, 0.690), "disagrees"),  # -0.0203 +- 0.0014
    ):
        runs = [run for run in four() if run["variant"] in ("dat", "standard-at")]
        for run in runs:
            for record in run["records"]:
                if record["metric"] == "robust_accuracy" and run["variant"] == "dat":
                    record["value"] = of_dat[run["seed"]]
        check = rules.Equal(((measures.pgd(1.0), 0.01),), "standard-at", "dat")
        finding = check(write(tmp_path / name, "systems", runs))
        assert finding is not None and finding.verdict == verdict and len(finding.ours) == 3
    assert finding.ours[2] == "`dat` less `standard-at`, seed by seed: -0.020 ± 0.001 (95 %)"
    assert check(write(tmp_path / "fewer", "systems", runs[:4])) is None  # one seed in common
