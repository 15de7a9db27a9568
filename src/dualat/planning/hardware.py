"""What accelerators can do, from their makers' data sheets. Does not import PyTorch: the command line reads this file."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

NVIDIA = "NVIDIA's data sheet, products without sparsity"


@dataclass(frozen=True)
class Hardware:
    """One device."""

    name: str
    title: str
    peaks: Mapping[str, float]
    """Operations per second by precision of training: bf16, and fp32, which is in TF32 where there are units for it."""
    memory: float | None
    """Bytes; None: not checked."""
    bandwidth: float | None
    """Bytes per second to and from memory; None: not known."""
    efficiency: float
    """Share of the least time (observe.py) in the time that a training step takes."""
    source: str


def _gpu(
    name: str,
    title: str,
    bf16: float | None,
    fp32: float,
    gigabytes: float,
    terabytes_per_second: float,
    efficiency: float,
) -> Hardware:
    """Peaks in TFLOP/s."""
    peaks = {"fp32": fp32 * 1e12} | ({} if bf16 is None else {"bf16": bf16 * 1e12})
    return Hardware(name, title, peaks, gigabytes * 1e9, terabytes_per_second * 1e12, efficiency, NVIDIA)


HARDWARE = {
    device.name: device
    for device in (
        _gpu("h100", "H100 SXM", 989.4, 494.7, 80, 3.35, 0.45),
        _gpu("h100-pcie", "H100 PCIe", 756, 378, 80, 2.0, 0.45),
        _gpu("h200", "H200 SXM", 989.4, 494.7, 141, 4.8, 0.45),
        _gpu("a100", "A100 SXM 80 GB", 312, 156, 80, 2.039, 0.5),
        _gpu("a100-40", "A100 SXM 40 GB", 312, 156, 40, 1.555, 0.5),
        _gpu("l40s", "L40S", 362, 183, 48, 0.864, 0.7),
        _gpu("rtx4090", "GeForce RTX 4090", 165.2, 82.6, 24, 1.008, 0.7),
        _gpu("rtx3090", "GeForce RTX 3090", 71, 35.6, 24, 0.936, 0.77),
        _gpu("v100", "V100 SXM 32 GB", None, 15.7, 32, 0.9, 0.75),
        Hardware(
            "cpu",
            "2 CPU cores, AVX-512 BF16",
            {"fp32": 185.1e9, "bf16": 409.1e9},
            None,
            None,
            0.82,
            "benchmarks/results/cpu-2-cores-avx512-bf16.json",
        ),
    )
}
"""By the name that `--gpu` takes.

efficiency is an estimate, from published training throughputs in mixed precision (fp32 on the V100), least time over time:
RTX 3090, ResNets and ConvNeXts of 25 to 200 million weights: 0.69 to 0.87 (timm's results/, PyTorch 1.12); ResNet-50 on an
A100: 0.54, on a V100: 0.77 (NVIDIA's DeepLearningExamples). None of an H100 was at hand: 0.45 is a guess. CPU: measured.
"""


def find_hardware(name: str) -> Hardware:
    """The device of that name. ValueError: there is none; the sentence says which there are."""
    if name in HARDWARE:
        return HARDWARE[name]
    near = difflib.get_close_matches(name.lower(), HARDWARE, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"gpu {name!r} is unknown.{hint} There are {', '.join(HARDWARE)}; for another, time it with `dualat bench "
        "--output FILE` and give --measured FILE."
    )


def recognise(device: str) -> Hardware | None:
    """The device that a driver's name means, as in "NVIDIA H100 80GB HBM3"; None where it is none of these."""
    words = device.lower().replace("-", " ")
    known = (
        ("h200", "h200"),
        ("h100 pcie", "h100-pcie"),
        ("h100", "h100"),
        ("a100 sxm4 40gb", "a100-40"),
        ("a100 pcie 40gb", "a100-40"),
        ("a100", "a100"),
        ("l40s", "l40s"),
        ("rtx 4090", "rtx4090"),
        ("rtx 3090", "rtx3090"),
        ("v100", "v100"),
    )
    name = next((name for sign, name in known if sign in words), None)
    return HARDWARE[name] if name else None
