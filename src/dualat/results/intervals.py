"""95 % intervals: of a proportion, and whether ± tells them."""

import math


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson, 1927): (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.959963984540054, hits / n
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    return (
        0.0 if hits == 0 else low,
        1.0 if hits == n else high,
    )  # exact there; rounding would leave out the ends


def asymmetric(value: float, interval: tuple[float, float]) -> bool:
    """Whether the value lies so far from the middle of its interval that ± half of it would misstate the ends."""
    low, high = interval
    return abs(high + low - 2 * value) > 0.15 * (high - low)
