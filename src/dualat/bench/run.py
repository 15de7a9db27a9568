"""The benchmark: contenders, tasks, operations counted, and the share of the measured peak that is reached."""

import platform
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from dualat.bench.contenders import (
    TWENTY,
    Inputs,
    Works,
    arithmetic,
    build,
    dtype_of,
    own_works,
    textbook_works,
)
from dualat.bench.costs import costs
from dualat.bench.measure import Timing, interleaved, matmul_peak, ratios
from dualat.bench.others import attack_libraries
from dualat.bench.settings import BenchSettings
from dualat.models.model import LoadedModel
from dualat.results.record import versions
from dualat.run.stages import forward_operations
from dualat.system.devices import device_name
from dualat.system.precision import choose_dtype, has_tensor_cores

COSTS = ("data", "logging")
LIBRARIES = ("foolbox", "torchattacks")


def bench(settings: BenchSettings, device: torch.device, tell: Callable[[str], None]) -> dict[str, Any]:
    """Time everything and return the result as plain values; benchmarks/README.md says what each means.

    tell: is told what is being timed.
    """
    precisions = choose_precisions(settings.precisions, device)
    model, inputs = build(settings, device)
    forward = float(forward_operations(model))
    tell("measuring the peak of matrix products")
    peaks = measure_peaks(precisions, device)
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
        "references": {},
        "tasks": {},
    }
    works = contenders_of(model, inputs, settings, precisions)
    for task in [t for t in settings.tasks if t not in COSTS]:
        tell(f"timing {task}")
        contenders = {name: w[task] for name, w in works.items() if task in w}
        timings = interleaved(contenders, settings.repeats, device)
        first = next(iter(contenders))
        result["references"][task] = first
        rows = table_of(timings, first, operations(task, settings, forward), settings, peaks)
        result["tasks"][task] = rows
        if task == "attack":
            result["attack_against_libraries"] = against_libraries(timings)
        if task == "autoattack":
            result["autoattack_robust_accuracy"] = {name: work() for name, work in contenders.items()}
    if "sampling" in settings.tasks:
        tell("comparing samples")
        result |= differences(works, model, inputs, settings, precisions)
    result["fell_back_to_eager"] = [n for n, w in works.items() if "fell_back" in w and w["fell_back"]()]
    if set(COSTS) & set(settings.tasks):
        tell("timing data and logging")
        result |= shares(costs(model, inputs, settings, precisions[-1]), result["tasks"])
    result["peak_memory_mib"] = round(peak_memory(device) / 2**20)
    return result


def contenders_of(
    model: LoadedModel, inputs: Inputs, settings: BenchSettings, precisions: Sequence[str]
) -> dict[str, Works]:
    """What each contender can do, by its name: the textbook first."""
    works: dict[str, Works] = {}
    works[reference_name(inputs.images.device)] = textbook_works(model, inputs, settings)
    if "attack" in settings.tasks:
        works |= attack_libraries(model, inputs, settings, precisions)
    if "autoattack" in settings.tasks:
        from dualat.bench.autoattacks import (
            autoattacks,
        )  # needs 40 MB of pyautoattack: accelerators do without

        works |= autoattacks(model, inputs, settings)
    for name in precisions:
        for way in ("eager", "compiled"):
            works[f"dualat {name} {way}"] = own_works(model, inputs, settings, name, way == "compiled")
    return works


def choose_precisions(asked: Sequence[str], device: torch.device) -> list[str]:
    """The precisions to time, each once, the fastest last. ValueError for one that this device lacks."""
    tensor_cores = has_tensor_cores(device)
    fast = choose_dtype("auto", device) == torch.bfloat16
    auto = ["fp32"] + ["tf32"] * tensor_cores + ["bf16"] * fast
    if "tf32" in asked and not tensor_cores:
        raise ValueError(f"precisions has tf32, which {device_name(device)} lacks: leave it out.")
    wanted = {name for given in asked for name in (auto if given == "auto" else [given])}
    return [name for name in ("fp32", "tf32", "bf16") if name in wanted]


def reference_name(device: torch.device) -> str:
    """The textbook in PyTorch's default precision: fp32, on late GPUs with convolutions, but not products, in TF32."""
    return "textbook default" if has_tensor_cores(device) else "textbook fp32"


def measure_peaks(precisions: Sequence[str], device: torch.device) -> dict[str, float]:
    """Operations per second of matrix products in each precision, and in the reference's."""
    peaks = {}
    for name in dict.fromkeys([*precisions, "tf32" if has_tensor_cores(device) else "fp32"]):
        with arithmetic(name, device):
            peaks[name] = matmul_peak(dtype_of(name), device)
    return peaks


def operations(task: str, settings: BenchSettings, forward: float) -> float | None:
    """Operations of one call: a pass back to the input, or to the weights, costs as much as a forward pass. None for
    AutoAttack, whose passes are its own."""
    loops = {"sampling": settings.steps, "attack": settings.attack_steps, "classification": 0.5}
    loops["train_step"] = settings.steps + settings.attack_steps
    if task not in loops:
        return None
    weights = 3 * 3 if task == "train_step" else 0  # three batches: forward, to the input, to the weights
    return settings.batch_size * forward * (2 * loops[task] + weights)


def table_of(
    timings: dict[str, Timing],
    reference: str,
    count: float | None,
    settings: BenchSettings,
    peaks: dict[str, float],
) -> dict[str, dict[str, Any]]:
    """One row per contender."""
    rows = {}
    for name, timing in timings.items():
        middle, low, high = ratios(timings[reference], timing)
        precision = name.split()[1].replace("default", "tf32")
        images = settings.batch_size if count else settings.autoattack_images
        rows[name] = {
            "seconds": timing.median,
            "images_per_second": images / timing.median,
            "times_reference": round(middle, 3),
            "times_reference_spread": [round(low, 3), round(high, 3)],
            "first_call_seconds": round(timing.first, 2),
            "mfu": round(count / timing.median / peaks[precision], 3) if count else None,
            "repeats": [float(f"{s:.5g}") for s in timing.seconds],
        }
    return rows


def against_libraries(timings: dict[str, Timing]) -> dict[str, dict[str, Any]]:
    """How many times as fast ours is as each other library at equal precision: the faster of our two ways."""
    found = {}
    for name in timings:
        library, precision = name.split()[:2]
        if library in LIBRARIES:
            own = [n for n in timings if n.startswith(f"dualat {precision} ")]
            best = min(own, key=lambda n: timings[n].median)
            middle, low, high = ratios(timings[name], timings[best])
            spread = [round(low, 3), round(high, 3)]
            found[name] = {"by": best, "times": round(middle, 3), "times_spread": spread}
    return found


def differences(
    works: dict[str, Works],
    model: LoadedModel,
    inputs: Inputs,
    settings: BenchSettings,
    precisions: Sequence[str],
) -> dict[str, Any]:
    """Largest difference of a pixel, in units of [0, 1]: of samples from the textbook's, and, after TWENTY steps or
    more, of those of compiled loops from those of eager ones at equal precision.

    ReLU's kinks make rounding grow from step to step. Two entries in fp32 tell that from a mistake: the difference
    where a wide ResNet has SiLU instead (silu), and of eager loops from starts that are 1e-7 apart (rounding).
    """

    def apart(one: Any, other: Any) -> float:
        return float((one - other).abs().max())

    def after_twenty(network: LoadedModel, given: Inputs, way: str) -> Any:
        ours = own_works(network, given, settings, "fp32", way == "compiled")
        return ours["comparison"]()

    textbook, compared = next(iter(works.values()))["sampling"](), {}
    for name in precisions:
        eager, compiled = (works[f"dualat {name} {way}"]["comparison"]() for way in ("eager", "compiled"))
        compared[name] = apart(compiled, eager)
    if "fp32" in precisions:
        noise = 1e-7 * torch.randn(inputs.starts.shape, generator=torch.Generator().manual_seed(0))
        moved = replace(inputs, starts=(inputs.starts + noise.to(inputs.starts.device)).clamp(0, 1))
        compared["fp32 rounding"] = apart(*(after_twenty(model, given, "eager") for given in (moved, inputs)))
        if settings.network.startswith("wrn"):
            smooth, _ = build(settings, inputs.starts.device, "silu")
            compared["fp32 silu"] = apart(*(after_twenty(smooth, inputs, w) for w in ("eager", "compiled")))
    return {
        "largest_difference_from_textbook": {
            name: apart(own["sampling"](), textbook) for name, own in works.items() if "comparison" in own
        },
        "largest_difference_of_compiled_from_eager": {"steps": max(TWENTY, settings.steps), **compared},
    }


def shares(rows: dict[str, dict[str, Any]], tasks: dict[str, Any]) -> dict[str, Any]:
    """The costs, and the share that each has of the fastest training step with them."""
    result: dict[str, Any] = {"costs": rows}
    if "train_step" in tasks:
        fastest = min(
            row["seconds"] for name, row in tasks["train_step"].items() if name.startswith("dualat")
        )
        whole = fastest + sum(row["seconds"] for row in rows.values())
        for task, row in rows.items():
            result[f"{task}_share_of_train_step"] = round(row["seconds"] / whole, 5)
    return result


def peak_memory(device: torch.device) -> float:
    """Bytes: of the accelerator, or of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
