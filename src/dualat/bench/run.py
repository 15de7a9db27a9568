"""The benchmark: contenders, tasks, operations counted, and the share of the measured peak that is reached."""

import platform
import resource
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dualat.bench.contenders import Inputs, Works, build, foolbox_works, own_works, textbook_works
from dualat.bench.measure import Timing, interleaved, matmul_peak, ratios
from dualat.bench.settings import BenchSettings
from dualat.data.augment import augment
from dualat.data.images import ImageData
from dualat.data.loaders import BatchStream
from dualat.data.settings import AugmentSettings
from dualat.evaluation.record import versions
from dualat.evaluation.throughput import device_name
from dualat.load import LoadedModel
from dualat.pgd import frozen
from dualat.precision import choose_dtype

REFERENCE = "textbook fp32"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def bench(settings: BenchSettings, device: torch.device, tell: Callable[[str], None]) -> dict[str, Any]:
    """Time everything and return the result as plain values: hardware, peaks, and per task and contender seconds,
    images/s, how many times as fast as the textbook, operations and MFU.

    tell: is told what is being timed.
    """
    model, inputs = build(settings, device)
    forward = forward_operations(model, inputs)
    precisions = ["fp32"] + (["bf16"] if choose_dtype("auto", device) == torch.bfloat16 else [])
    tell("measuring the peak of matrix products")
    peaks = {name: matmul_peak(DTYPES[name], device) for name in precisions}
    result: dict[str, Any] = {
        "settings": asdict(settings),
        "hardware": {
            "device": device_name(device),
            "threads": torch.get_num_threads(),
            "platform": f"{platform.system()} {platform.machine()}",
        },
        "versions": versions(),
        "matmul_peak_gflops": {name: round(value / 1e9, 1) for name, value in peaks.items()},
        "forward_gflop_per_image": forward / 1e9,
        "tasks": {},
    }
    with ExitStack() as stack:
        works: dict[str, Works] = {REFERENCE: textbook_works(model, inputs, settings)}
        if foolbox := foolbox_works(model, inputs, settings):
            works["foolbox fp32"] = foolbox
        for name in precisions:
            for way in ("eager", "compiled"):
                works[f"dualat {name} {way}"] = own_works(
                    model, inputs, settings, DTYPES[name], way == "compiled", stack
                )
        for task in settings.tasks:
            if task == "data":
                continue
            tell(f"timing {task}")
            contenders = {name: w[task] for name, w in works.items() if task in w}
            timings = interleaved(contenders, settings.repeats, device)
            result["tasks"][task] = table_of(timings, operations(task, settings, forward), settings, peaks)
        if "sampling" in settings.tasks:
            result["largest_difference_from_textbook"] = differences(works)
    if "data" in settings.tasks:
        tell("timing data")
        result["tasks"]["data"] = data_timing(settings, device)
        if "train_step" in result["tasks"]:
            fastest = min(row["seconds"] for row in result["tasks"]["train_step"].values())
            seconds = result["tasks"]["data"]["dualat"]["seconds"]
            result["data_share_of_train_step"] = round(seconds / (seconds + fastest), 4)
    result["peak_memory_mib"] = round(peak_memory(device) / 2**20)
    return result


def forward_operations(model: LoadedModel, inputs: Inputs) -> float:
    """Floating-point operations of one image's forward pass, counted."""
    with frozen(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(inputs.images[:1])
    return float(counter.get_total_flops())


def operations(task: str, settings: BenchSettings, forward: float) -> float:
    """Operations of one call: a pass back to the input, or to the weights, costs as much as a forward pass."""
    loops = {"sampling": settings.steps, "attack": settings.attack_steps, "classification": 0.5}
    loops["train_step"] = settings.steps + settings.attack_steps
    weights = 3 * 3 if task == "train_step" else 0  # three batches: forward, to the input, to the weights
    return settings.batch_size * forward * (2 * loops[task] + weights)


def table_of(
    timings: dict[str, Timing], count: float, settings: BenchSettings, peaks: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """One row per contender."""
    rows = {}
    for name, timing in timings.items():
        middle, low, high = ratios(timings[REFERENCE], timing)
        precision = "bf16" if "bf16" in name else "fp32"
        rows[name] = {
            "seconds": timing.median,
            "images_per_second": settings.batch_size / timing.median,
            "times_textbook": round(middle, 3),
            "times_textbook_spread": [round(low, 3), round(high, 3)],
            "first_call_seconds": round(timing.first, 2),
            "mfu": round(count / timing.median / peaks[precision], 3),
            "repeats": [float(f"{s:.5g}") for s in timing.seconds],
        }
    return rows


def differences(works: dict[str, Works]) -> dict[str, float]:
    """Largest difference of a pixel from the textbook's samples, in units of [0, 1]."""
    reference: Any = works[REFERENCE]["sampling"]()
    return {
        name: float((work["sampling"]() - reference).abs().max())  # type: ignore[operator]
        for name, work in works.items()
        if "sampling" in work and name != REFERENCE
    }


def data_timing(settings: BenchSettings, device: torch.device) -> dict[str, dict[str, Any]]:
    """Seconds to draw, augment and move the two batches of a stage-2 step, from images in memory."""
    generator = torch.Generator().manual_seed(0)
    shape = (10 * settings.batch_size, settings.channels, settings.image_size, settings.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.arange(len(images)) % settings.classes
    data = ImageData(images, labels, tuple(str(k) for k in range(settings.classes)), "random images")
    stream = BatchStream(data, settings.batch_size, 0)
    strong, basic = AugmentSettings(kind="strong"), AugmentSettings(kind="basic")
    step = 0

    def draw() -> None:
        nonlocal step
        for kind in (strong, basic):
            batch, _ = stream.batch(step)
            augment(batch.float() / 255, kind, generator).to(device)
        step += 1

    timing = interleaved({"dualat": draw}, settings.repeats, device)["dualat"]
    return {
        "dualat": {"seconds": timing.median, "images_per_second": 2 * settings.batch_size / timing.median}
    }


def peak_memory(device: torch.device) -> float:
    """Bytes: of the accelerator, or of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
