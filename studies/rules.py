"""Rules by which the page decides, from numbers alone, whether our figures agree with a claim."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from measures import EXPLODED, MEAN_T, relative_cost, step_seconds, unsteady
from reading import Figure, Study, Values


@dataclass(frozen=True)
class Finding:
    """What the records say about a claim. agrees: None where a run that it needs diverged with every seed."""

    ours: list[str]
    """Figures, a line each."""
    agrees: bool | None
    seeds: tuple[int, int] | None = None
    """How many seeds agree by themselves, and how many there are."""
    noisy: bool = False
    """Whether another draw of test images or samples might turn it."""

    @property
    def verdict(self) -> str:
        if self.agrees is None:
            return "no comparison"
        word, details = "agrees" if self.agrees else "disagrees", []
        if self.noisy:
            word, details = "undecided", [f"the means {'agree' if self.agrees else 'disagree'}"]
        if self.seeds is not None:
            alone, total = self.seeds
            details.append(f"{alone} of {total} {'seed agrees' if total == 1 else 'seeds agree'} alone")
        return f"{word} ({'; '.join(details)})" if details else word


class Check(Protocol):
    """A rule: in words, and on a study. None: records that it needs do not exist yet."""

    @property
    def rule(self) -> str: ...

    def __call__(self, study: Study) -> Finding | None: ...


@dataclass(frozen=True)
class Relation:
    """Between a left and a right value. words: with {left} and {right}; factor: what the right one is multiplied by."""

    words: str
    holds: Callable[[float, float], bool]
    factor: float = 1.0


BELOW = Relation("{left} below {right}", lambda a, b: a < b)
ABOVE = Relation("{left} above {right}", lambda a, b: a > b)


def no_lower(slack: float) -> Relation:
    """left >= right - slack."""
    return Relation(f"{{left}} at least {{right}} less {slack:g}", lambda a, b: a >= b - slack)


def share_of(part: float, words: str) -> Relation:
    """left <= part * right."""
    return Relation(f"{{left}} at most {words} {{right}}", lambda a, b: a <= part * b, part)


def times(factor: float) -> Relation:
    """left >= factor * right."""
    return Relation(f"{{left}} at least {factor:g} times {{right}}", lambda a, b: a >= factor * b, factor)


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
        lines[line(pair.figure, pair.left, left)] = None
        lines[line(pair.figure, pair.right, right)] = None
        pair_holds.append(pair.relation.holds(left.mean, right.mean))
        pair_noisy.append(within_noise(pair.relation, left, right))
        found = {s: pair.relation.holds(left.by_seed[s].value, right.by_seed[s].value) for s in both}
        alone = found if alone is None else {s: alone[s] and found[s] for s in alone.keys() & found.keys()}
    seeds = None if not alone else (sum(alone.values()), len(alone))
    holds = all(pair_holds)
    # One pair that fails for certain is enough to disagree; to agree for certain none may be in doubt.
    doubts = [noisy for held, noisy in zip(pair_holds, pair_noisy, strict=True) if holds or not held]
    return Finding(list(lines), holds, seeds, any(doubts) if holds else all(doubts))


def within_noise(relation: Relation, left: Values, right: Values) -> bool:
    """Whether the relation turns when the left mean is moved by the 95 % interval of the difference of one seed's figures.
    More seeds do not narrow it: all look at the same test images. False where figures have no interval."""
    if left.half is None or right.half is None:
        return False
    shift = math.hypot(left.half, relation.factor * right.half)
    return relation.holds(left.mean - shift, right.mean) != relation.holds(left.mean + shift, right.mean)


def common_seeds(study: Study, pair: Pair) -> set[int]:
    """Seeds with which both variants have the figure."""
    sides = [study.values(variant, pair.figure) for variant in (pair.left, pair.right)]
    left, right = (set() if side is None else set(side.by_seed) for side in sides)
    return left & right


def lost(study: Study, pair: Pair) -> Finding | None:
    """No comparison where a variant diverged with all seeds of the plan; None, for not run yet, elsewhere."""
    gone = [v for v in (pair.left, pair.right) if set(study.diverged(v)) >= set(study.plan["seeds"])]
    return Finding([f"`{v}` diverged with every seed" for v in gone], None) if gone else None


def line(figure: Figure, variant: str, values: Values) -> str:
    """'`dat` clean accuracy: mean 0.800 (0.790, 0.800, 0.810), n = 10,000, seeds 0, 1, 2'."""
    each = ", ".join(figure.text(m.value) for m in values.by_seed.values())
    parts = [f"`{variant}`, {figure.name}: mean {figure.text(values.mean)} ({each})"]
    if values.half is not None and math.isfinite(values.half):
        parts.append(f"each ± {figure.text(values.half)} (95 %)")
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
class WithinSpread:
    """Two variants differ by no more than seeds do."""

    figures: tuple[Figure, ...]
    left: str
    right: str

    @property
    def rule(self) -> str:
        names = "; ".join(figure.name for figure in self.figures)
        return (
            f"{names}: the means of `{self.left}` and `{self.right}` differ by at most the larger of their spreads "
            "(greatest less least) over the seeds"
        )

    def __call__(self, study: Study) -> Finding | None:
        lines, agrees = [], True
        for figure in self.figures:
            left, right = study.values(self.left, figure), study.values(self.right, figure)
            if left is None or right is None or min(len(left.by_seed), len(right.by_seed)) < 2:
                return None
            lines += [line(figure, self.left, left), line(figure, self.right, right)]
            spread = max(left.high - left.low, right.high - right.low)
            agrees = agrees and abs(left.mean - right.mean) <= spread
        return Finding(lines, agrees)


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
    return hits, f"{group.name}: {hits} of {len(runs)} runs diverged"


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
            method = next(iter(study.runs[self.variant].values()))["method"]
            by_t, base = step_seconds(study.cost, method), step_seconds(study.cost, "standard-at")
            assert by_t is not None and base is not None  # relative_cost knew them
            steps = ", ".join(f"{seconds / base[0]:.2f} times at T = {t}" for t, seconds in by_t.items())
            rounds = study.cost["rounds"]
            lines.append(f"a stage-2 step: {steps}; medians of {rounds} interleaved rounds (cost.json)")
        return Finding(lines, values.mean <= self.most)
