"""How far chance may have moved the difference of two means: half the width of its 95 % interval.

    d = mean_s a_s - f * mean_s b_s,      half = sqrt( seeds^2 + images^2 )

seeds: Welch's interval, t * sqrt( v_a / n_a + f^2 v_b / n_b ), v the variance over seeds. It holds all that a seed decides:
weights, the order of the data, attacks, samples. With one seed it is unknown, and left out.

images: all seeds see the same test images, which are a draw as well: 1.96 times the standard deviation over images of the
mean over seeds of a's outcome less f times b's, over sqrt(n), by the seeds whose records keep each image's outcome, as newer ones
do: fewer seeds make it wider. Where there are none, both figures' own intervals are added as though their images were others,
which is too wide. None of it for figures of
samples, which each seed draws anew; with one seed the figures' own intervals again.
"""

import math
import statistics
from collections.abc import Sequence

import numpy as np
from reading import Measured, Values
from scipy.stats import t as student

Z = 1.959963984540054


def half_width(left: Values, right: Values, factor: float = 1.0, of_samples: bool = False) -> float:
    """Half of the 95 % interval of left's mean less factor times right's; both have the same seeds. 0 where nothing is known
    of chance, or a value is infinite."""
    seeds = welch(left, right, factor)
    if seeds is not None and of_samples:
        return seeds
    return math.hypot(seeds or 0.0, of_images(left, right, factor))


def welch(left: Values, right: Values, factor: float) -> float | None:
    """The part of seeds; None with fewer than two on a side."""
    values = [[m.value for m in side.by_seed.values()] for side in (left, right)]
    if any(len(side) < 2 or not all(map(math.isfinite, side)) for side in values):
        return None
    parts = [
        scale**2 * statistics.variance(side) / len(side)
        for side, scale in zip(values, (1, factor), strict=True)
    ]
    if not sum(parts):
        return 0.0
    degrees = sum(parts) ** 2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, values, strict=True))
    return float(student.ppf(0.975, degrees)) * math.sqrt(sum(parts))


def of_differences(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean of differences, one per seed: Student's t."""
    return float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def of_images(left: Values, right: Values, factor: float) -> float:
    """The part of test images."""
    seeds = left.by_seed.keys() & right.by_seed.keys()
    pairs = [(left.by_seed[s], right.by_seed[s]) for s in sorted(seeds)]
    known = [outcomes for pair in pairs if (outcomes := paired(*pair, factor)) is not None]
    if known and len({len(outcomes) for outcomes in known}) == 1:
        mean = np.mean(known, axis=0)
        return Z * float(mean.std(ddof=1)) / math.sqrt(len(mean))
    halves = [side.half for side in (left, right)]
    if halves[0] is None or halves[1] is None:
        return 0.0
    return math.hypot(halves[0], factor * halves[1])


def paired(left: Measured, right: Measured, factor: float) -> np.ndarray | None:
    """What each image contributes to the difference, (n,); None where one side does not tell, or has other images."""
    if left.correct is None or right.correct is None or len(left.correct) != len(right.correct):
        return None
    return left.correct.astype(float) - factor * right.correct
