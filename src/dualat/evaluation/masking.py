"""What robust accuracies say about masked gradients: values that sound attacks do not give.

Sources: signs of masked gradients: Carlini et al., 2019 (arXiv 1902.06705). Difference of two proportions: Newcombe,
1998, method 10.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dualat.data.images import ImageData, Shape
from dualat.results.catalogue import ATTACKS, strength
from dualat.results.intervals import wilson_interval
from dualat.results.record import Record


def grey_radius(norm: str, shape: Shape) -> float:
    """The radius within which every image (C, H, W) of [0, 1] can become the same grey: 1/2 in Linf, sqrt(D)/2 in L2.

    From there on one answer serves all images, so that no classifier can keep more than its largest class.
    """
    return 0.5 if norm == "Linf" else math.sqrt(math.prod(shape)) / 2


def masking_warnings(
    records: Sequence[Record], *, grey: Mapping[str, float] | None = None, largest_class: float = 0.1
) -> list[str]:
    """Sentences about robust accuracies that sound attacks do not give: the true ones may be lower. [] is no proof.

    They say so where, by more than chance (95 %), a stronger attack leaves more than a weaker one, a larger eps more
    than a smaller one, a radius that turns every image into the same grey more than one class, or where Square, which
    needs no gradients, still fools the model on over 0.2 % of the images after attacks that use them.

    Args:
        records: those of another metric are passed over.
        grey: that radius for each norm, as `grey_radius` gives it for L2 (Linf: 0.5, known).
        largest_class: share of the largest class: what one answer for every image gets.
    """
    kept = [
        r for r in records if r.metric == "robust_accuracy" and {"attack", "norm", "eps"} <= r.settings.keys()
    ]
    radius = {"Linf": 0.5, **(grey or {})}
    pairs = (text for a, b in itertools.permutations(kept, 2) if (text := _warning_of_two(a, b)))
    each = (text for r in kept for text in _warnings_of_one(r, radius, largest_class))
    return list(dict.fromkeys([*pairs, *each]))


def note_masking(
    records: Sequence[Record], *, grey: Mapping[str, float] | None = None, largest_class: float = 0.1
) -> None:
    """Put `masking_warnings` into the `warnings` of robust accuracies, in place of those there: into all of one model, split
    and norm, as where one attack fails, what others leave is in doubt too."""
    robust = [r for r in records if r.metric == "robust_accuracy"]
    for group in {_group(r) for r in robust}:
        mine = [r for r in robust if _group(r) == group]
        texts = masking_warnings(mine, grey=grey, largest_class=largest_class)
        for record in mine:
            record.warnings = list(texts)


def warnings_of(records: Sequence[Record], data: ImageData) -> list[str]:
    """Signs of masked gradients in records measured on `data`."""
    return masking_warnings(records, **masking_bounds(data))


def masking_bounds(data: ImageData) -> dict[str, Any]:
    """What a robust accuracy on these images is held against: see `masking_warnings`."""
    share = float(data.labels.bincount().max()) / len(data)
    return {"grey": {"L2": grey_radius("L2", data.shape)}, "largest_class": share}


def _group(record: Record) -> tuple[Any, ...]:
    return record.model, record.split, record.settings.get("norm")


def _warning_of_two(a: Record, b: Record) -> str | None:
    """What is wrong with a, which leaves more images than b."""
    if _group(a) != _group(b) or not _above(a, b):
        return None
    eps, other = a.settings["eps"], b.settings["eps"]
    if eps == other and strength(a.settings["attack"]) > strength(b.settings["attack"]) >= 0:
        return f"{_told(a)}, but the weaker {_told(b)}: the stronger attack is misled."
    if eps > other and _alike(a) == _alike(b):
        return f"{_told(a)}, more than at the smaller eps {other:g} ({b.value:.1%}): the attack fails."
    return None


def _warnings_of_one(r: Record, radius: Mapping[str, float], largest_class: float) -> Iterator[str]:
    bound = radius.get(r.settings["norm"], math.inf)
    if r.settings["eps"] >= bound and _low(r.value, r.n) > largest_class:
        yield (
            f"{_told(r)}, though every image can become the same grey there, which would leave at most "
            f"{largest_class:.1%}: the attack fails."
        )
    for (before, was), (name, value) in itertools.pairwise(r.details.get("after", {}).items()):
        if name == "square" and before != "clean" and _low(was - value, r.n) > 0.002:
            yield f"{_told(r)}, after Square alone broke {was - value:.1%}: gradients are masked."


def _above(a: Record, b: Record) -> bool:
    """p_a - p_b > sqrt((p_a - l_a)^2 + (u_b - p_b)^2), with Wilson's lower l and upper u: more than chance."""
    high = wilson_interval(round(b.value * b.n), b.n)[1]
    return a.value - b.value > math.hypot(a.value - _low(a.value, a.n), high - b.value)


def _low(share: float, n: int) -> float:
    return wilson_interval(round(share * n), n)[0]


def _alike(record: Record) -> dict[str, Any]:
    return {k: v for k, v in record.settings.items() if k not in ("eps", "step_size", "batch_size")}


def _told(record: Record) -> str:
    s = record.settings
    name = ATTACKS.get(s["attack"], s["attack"])
    return (
        f"{name} at {s['norm']} eps {s['eps']:g} leaves {record.value:.1%} ({record.model}, {record.split})"
    )
