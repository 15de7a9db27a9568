"""Timing of several ways to do one thing: interleaved, so that a machine whose speed drifts treats all alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass
class Timing:
    """Seconds of each repeat of one contender, and of its first call, which compiles."""

    seconds: list[float]
    first: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def clock(device: torch.device) -> float:
    """Seconds, once all work given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def interleaved(
    contenders: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, Timing]:
    """Time each contender `repeats` times, in turn, each round beginning with another one; first calls apart."""
    timings = {}
    for name, work in contenders.items():
        began = clock(device)
        work()
        timings[name] = Timing([], clock(device) - began)
        work()  # caches and allocators are warm after the second call
    names = list(contenders)
    for round_ in range(repeats):
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            began = clock(device)
            contenders[name]()
            timings[name].seconds.append(clock(device) - began)
    return timings


def ratios(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """How many times as fast: median, least and most over the rounds."""
    pairs = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    return statistics.median(pairs), min(pairs), max(pairs)


def matmul_peak(dtype: torch.dtype, device: torch.device, side: int = 2048, repeats: int = 7) -> float:
    """Floating-point operations per second of a large matrix product: the measure of MFU. The best of the repeats."""
    side = side if device.type == "cpu" else 8192
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator).to(device, dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats + 1):
        began = clock(device)
        torch.matmul(a, b)
        best = min(best, clock(device) - began)
    return 2 * side**3 / best
