"""What people call a device."""

import platform
from pathlib import Path

import torch


def device_name(device: torch.device) -> str:
    """What people call the device: the GPU's name, or the CPU's where the system tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        try:
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        except OSError:  # not Linux
            pass
        return platform.processor() or platform.machine() or "cpu"
    return str(device)
