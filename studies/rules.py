"""Rules by which the page decides, from numbers alone, whether our figures agree with a claim."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from measures import EXPLODED, MEAN_T, relative_cost, step_seconds, unsteady
from noise import half_width, of_differences
from reading import Figure, Study, Values

from dualat.results.intervals import wilson_interval


@dataclass(frozen=True)
class Finding:
    """What the records say about a claim. agrees: None where a run that it needs diverged with every seed."""

    ours: list[str]
    """Figures, a line each."""
    agrees: bool | None
    noisy: bool = False
    """Whether chance might turn it: other seeds, other test images. With one seed it might."""
    seeds: tuple[int, int] | None = None
    """How many seeds agree by themselves, and how many there are."""
    survivors: bool = False
    """Whether runs that diverged are in no mean."""

    @property
    def verdict(self) -> str:
        if self.agrees is None:
            return "no comparison"
        word, details = "agrees" if self.agrees else "disagrees", []
        if self.noisy:
            word, details = "undecided", [f"the means {'agree' if self.agrees else 'disagree'}"]
        if self.seeds is not None:
            alone, total = self.seeds
            details.append(f"{alone} of {total} seeds agree alone" if total > 1 else "one seed")
        if self.survivors:
            details.append("of the runs that did not diverge")
        return f"{word} ({'; '.join(details)})" if details else word


class Check(Protocol):
    """A rule: in words, and on a study. None: records that it needs do not exist yet."""

    @property
    def rule(self) -> str: ...

    def __call__(self, study: Study) -> Finding | None: ...


@dataclass(frozen=True)
class Relation:
    """Between a left and a right value. words: with {left} and {right}; factor: what the right one is multiplied by, in words
    `scaled`."""

    words: str
    holds: Callable[[float, float], bool]
    factor: float = 1.0
    scaled: str = ""


BELOW = Relation("{left} below {right}", lambda a, b: a < b)
ABOVE = Relation("{left} above {right}", lambda a, b: a > b)


def no_lower(slack: float) -> Relation:
    """left >= right - slack."""
    return Relation(f"{{left}} at least {{right}} less {slack:g}", lambda a, b: a >= b - slack)


def share_of(part: float, words: str) -> Relation:
    """left <= part * right."""
    return Relation(f"{{left}} at most {words} {{right}}", lambda a, b: a <= part * b, part, f"{words} ")


def times(factor: float) -> Relation:
    """left >= factor * right."""
    return Relation(
        f"{{left}} at least {factor:g} times {{right}}",
        lambda a, b: a >= factor * b,
        factor,
        f"{factor:g} times ",
    )


@dataclass(frozen=True)
class Pair:
    """Two variants by one figure."""

    figure: Figure
    left: str
    relation: Relation
    right: str

    @property
    def words(self) -> str:
        sides = {"left": f"`{self.left}`", "right": f"`{self.right}`"}
        return f"{self.figure.name}: {self.relation.words.format(**sides)}"


@dataclass(frozen=True)
class Compare:
    """All pairs must hold, each between means over the seeds that both variants have."""

    pairs: tuple[Pair, ...]

    @property
    def rule(self) -> str:
        return "; ".join(pair.words for pair in self.pairs)

    def __call__(self, study: Study) -> Finding | None:
        return compare(study, self.pairs)


def comparing(figure: Figure, left: str, relation: Relation, right: str) -> Compare:
    """A rule of one pair."""
    return Compare((Pair(figure, left, relation, right),))


def compare(study: Study, pairs: Sequence[Pair]) -> Finding | None:
    """The finding on several pairs; None where one of them lacks records."""
    lines: dict[str, None] = {}
    pair_holds, pair_noisy, alone = [], [], None
    for pair in pairs:
        both = common_seeds(study, pair)
        if not both:
            return lost(study, pair)
        left = study.values(pair.left, pair.figure, both)
        right = study.values(pair.right, pair.figure, both)
        assert left is not None and right is not None
        half = half_width(left, right, pair.relation.factor, pair.figure.of_samples)
        lines |= dict.fromkeys([line(pair.figure, pair.left, left), line(pair.figure, pair.right, right)])
        lines[difference(pair, left, right, half)] = None
        pair_holds.append(pair.relation.holds(left.mean, right.mean))
        pair_noisy.append(len(both) < 2 or within_noise(pair.relation, left, right, half))
        found = {s: pair.relation.holds(left.by_seed[s].value, right.by_seed[s].value) for s in both}
        alone = found if alone is None else {s: alone[s] and found[s] for s in alone.keys() & found.keys()}
    seeds = None if not alone else (sum(alone.values()), len(alone))
    gone = missing_for_good(study, pairs)
    return Finding([*lines, *gone], *together(pair_holds, pair_noisy), seeds, bool(gone))


def together(holds: Sequence[bool], noisy: Sequence[bool]) -> tuple[bool, bool]:
    """Whether all parts of a rule hold, and whether that is in doubt: one that fails for certain is enough to disagree; to
    agree for certain none may be in doubt."""
    if all(holds):
        return True, any(noisy)
    return False, all(doubt for held, doubt in zip(holds, noisy, strict=True) if not held)


def difference(pair: Pair, left: Values, right: Values, half: float) -> str:
    """'`dat` less a third of `standard-at`: 2.40 ± 0.50 (95 %)'."""
    value = left.mean - pair.relation.factor * right.mean
    text = f"`{pair.left}` less {pair.relation.scaled}`{pair.right}`: {pair.figure.text(value)}"
    return f"{text} ± {pair.figure.text(half)} (95 %)" if half else text


def missing_for_good(study: Study, pairs: Iterable[Pair]) -> list[str]:
    """A line per variant that diverged with some seeds, where its figures lack these."""
    of = {v: pair.figure for pair in pairs for v in (pair.left, pair.right) if not pair.figure.of_diverged}
    return [
        f"`{variant}` diverged with {seeds_text(gone)}, which no mean has"
        for variant in of
        if (gone := study.diverged(variant))
    ]


def within_noise(relation: Relation, left: Values, right: Values, half: float) -> bool:
    """Whether the relation turns when the left mean is moved by half the interval of the difference (see noise.py)."""
    return relation.holds(left.mean - half, right.mean) != relation.holds(left.mean + half, right.mean)


def common_seeds(study: Study, pair: Pair) -> set[int]:
    """Seeds with which both variants have the figure."""
    sides = [study.values(variant, pair.figure) for variant in (pair.left, pair.right)]
    left, right = (set() if side is None else set(side.by_seed) for side in sides)
    return left & right


def lost(study: Study, pair: Pair) -> Finding | None:
    """No comparison where all runs of both are made and no seed has left a figure of both; None, for not run yet, elsewhere."""
    variants = (pair.left, pair.right)
    if any(set(study.runs.get(v, {})) < set(study.plan["seeds"]) for v in variants):
        return None
    gone = {v: study.diverged(v) for v in variants if study.diverged(v)}
    return Finding([f"`{v}` diverged with {seeds_text(seeds)}" for v, seeds in gone.items()], None)


def line(figure: Figure, variant: str, values: Values) -> str:
    """'`dat` clean accuracy: mean 0.800 (0.790, 0.800, 0.810), n = 10,000, seeds 0, 1, 2'."""
    each = ", ".join(figure.text(m.value) for m in values.by_seed.values())
    parts = [f"`{variant}`, {figure.name}: mean {figure.text(values.mean)} ({each})"]
    if values.counts:
        parts.append(f"n = {numbers(values.counts)}")
    return ", ".join([*parts, seeds_text(values.by_seed)])


def numbers(counts: set[int]) -> str:
    """'1,000', or '128 to 1,000'."""
    ends = sorted({min(counts), max(counts)})
    return " to ".join(f"{n:,}" for n in ends)


def seeds_text(seeds: Iterable[int]) -> str:
    """'seed 0', 'seeds 0, 1, 2'."""
    known = sorted(seeds)
    return f"seed{'s' if len(known) > 1 else ''} {', '.join(map(str, known))}"


@dataclass(frozen=True)
class Equal:
    """In the mean over seeds two variants differ by at most a margin in each figure; the noise is that of paired seeds."""

    margins: tuple[tuple[Figure, float], ...]
    left: str
    right: str

    @property
    def rule(self) -> str:
        each = "; ".join(f"{figure.name}: by at most {margin:g}" for figure, margin in self.margins)
        return f"`{self.left}` and `{self.right}` differ, in the mean over seeds, little ({each})"

    def __call__(self, study: Study) -> Finding | None:
        lines, holds, noisy = [], [], []
        for figure, margin in self.margins:
            left, right = study.values(self.left, figure), study.values(self.right, figure)
            both = sorted(left.by_seed.keys() & right.by_seed.keys()) if left and right else []
            if left is None or right is None or len(both) < 2:
                return None
            differences = [right.by_seed[s].value - left.by_seed[s].value for s in both]
            mean, half = sum(differences) / len(both), of_differences(differences)
            text = f"`{self.right}` less `{self.left}`, seed by seed: {figure.text(mean)} ± {figure.text(half)} (95 %)"
            lines += [line(figure, self.left, left), line(figure, self.right, right), text]
            holds.append(abs(mean) <= margin)
            noisy.append(abs(mean) - half <= margin < abs(mean) + half)
        return Finding(lines, *together(holds, noisy))


@dataclass(frozen=True)
class LeastAmongRobust:
    """One variant has a smaller distance than all others that are robust."""

    variant: str
    distance: Figure
    robust: Figure
    reference: str
    share: float = 0.5
    beside: tuple[str, ...] = ()
    """Variants that are no systems of the comparison."""

    @property
    def rule(self) -> str:
        beside = " and ".join(f"`{variant}`" for variant in self.beside)
        return (
            f"{self.distance.name}: the mean of `{self.variant}` below that of every other system whose mean "
            f"{self.robust.name} is at least {self.share:g} of that of `{self.reference}`"
            + (f" ({beside} left out)" if beside else "")
        )

    def others(self, study: Study) -> list[str]:
        """The other robust variants that have the distance."""
        base = study.values(self.reference, self.robust)
        if base is None:
            return []
        found = []
        for variant in study.runs:
            if variant == self.variant or variant in self.beside:
                continue
            robust = study.values(variant, self.robust)
            known = study.values(variant, self.distance) is not None
            if known and robust is not None:
                found += [variant] if robust.mean >= self.share * base.mean else []
        return found

    def __call__(self, study: Study) -> Finding | None:
        missing = [v for v, runs in study.runs.items() if not runs and v not in self.beside]
        others = self.others(study)
        if missing or not others:
            return None
        return compare(study, [Pair(self.distance, self.variant, BELOW, other) for other in others])


@dataclass(frozen=True)
class Group:
    """Variants that are counted together."""

    name: str
    variants: tuple[str, ...]


@dataclass(frozen=True)
class Steady:
    """No run of the group diverges."""

    group: Group

    @property
    def rule(self) -> str:
        return (
            f"no run of {self.group.name} diverges, or logs a loss beyond ±{EXPLODED:,}, not even for a while"
        )

    def __call__(self, study: Study) -> Finding | None:
        counted = divergences(study, self.group)
        return None if counted is None else Finding([counted[1]], counted[0] == 0)


@dataclass(frozen=True)
class Unsteady:
    """At least one run of the group diverges."""

    group: Group

    @property
    def rule(self) -> str:
        return f"at least one run of {self.group.name} diverges, or logs a loss beyond ±{EXPLODED:,}"

    def __call__(self, study: Study) -> Finding | None:
        counted = divergences(study, self.group)
        return None if counted is None else Finding([counted[1]], counted[0] > 0)


def divergences(study: Study, group: Group) -> tuple[int, str] | None:
    """How many runs of a group diverged, and that as a line; None where runs are missing."""
    runs = [run for v in group.variants for run in study.runs[v].values()]
    if len(runs) < len(group.variants) * len(study.plan["seeds"]):
        return None
    hits = sum(map(unsteady, runs))
    low, high = wilson_interval(hits, len(runs))
    return hits, f"{group.name}: {hits} of {len(runs)} runs diverged (95 %: {low:.2f} to {high:.2f})"


@dataclass(frozen=True)
class CostAtMost:
    """A variant's training costs at most so many times as much as standard-at's."""

    variant: str
    most: float

    @property
    def rule(self) -> str:
        return (
            f"training of `{self.variant}` takes at most {self.most:g} times as long as that of `standard-at`"
        )

    def __call__(self, study: Study) -> Finding | None:
        values = relative_cost(study, self.variant)
        if values is None:
            return None
        lines = [f"whole run of `{self.variant}`: {values.mean:.2f} times `standard-at`"]
        if study.cost is None:
            lines[0] += f", by the runs' own speed ({seeds_text(values.by_seed)}), which other jobs distort"
        else:
            if (mean_t := study.values(self.variant, MEAN_T)) is not None:
                lines[0] += f"; mean T of stage 2 {MEAN_T.text(mean_t.mean)}"
            by_t = step_seconds(study.cost, self.variant, "2")
            base = step_seconds(study.cost, "standard-at", "1")
            assert by_t is not None and base is not None  # relative_cost knew them
            steps = ", ".join(f"{seconds / base[0]:.2f} times at T = {t}" for t, seconds in by_t.items())
            rounds = study.cost["rounds"]
            lines.append(f"a stage-2 step: {steps}; medians of {rounds} interleaved rounds (cost.json)")
        return Finding(lines, values.mean <= self.most)
