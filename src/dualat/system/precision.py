"""Which precision this hardware does fast, and the autocast context for it; kernels that repeat their results.

bf16 keeps float32's range, so that no loss scaling is needed; it pays only where matrix units exist for it.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.backends import cudnn

from dualat.types import Precision


def choose_device(name: str = "auto") -> torch.device:
    """The device by name, or the accelerator if there is one. ValueError where it is not to be had."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {name!r} cannot be used here: give auto, cpu, or an accelerator that is there."
        ) from error
    return device


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """float32 or bfloat16. `auto`: bfloat16 on Ampere GPUs and later and on CPUs with bf16 units, else float32.

    Seen here: a loop over WRN-10-2 on 28x28 images ran 1.5 to 1.9 times as fast in bf16 on 2 cores with AVX-512 BF16.
    """
    if precision == "fp32":
        return torch.float32
    if precision == "bf16":
        return torch.bfloat16
    fast = has_tensor_cores(device) or (
        device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    )
    return torch.bfloat16 if fast else torch.float32


def has_tensor_cores(device: torch.device) -> bool:
    """Whether this is a GPU with matrix units for bfloat16 and TF32: Ampere and later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


@contextmanager
def strict_fp32() -> Iterator[None]:
    """float32 that is float32: inside, GPUs do not round the factors of products to TF32's 10 bits."""
    with _tf32(False):
        yield


@contextmanager
def fast_fp32(device: torch.device) -> Iterator[None]:
    """float32 as fast as the device can, for training and sampling: inside, products and convolutions round their
    factors to TF32's 10 bits where there are units for it. Elsewhere nothing changes."""
    with _tf32(True) if has_tensor_cores(device) else nullcontext():
        yield


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Inside, tensors without a type of their own are float32, whatever `torch.set_default_dtype` says outside."""
    found = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(found)


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    found = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = found


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, if wanted, kernels alone that give the same bits every time, on the same hardware and versions. CPUs have
    no others that are used here; cuDNN's fastest convolutions sum in any order.

    Raises ValueError where an operation has no such kernel.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    found = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    convolutions = cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        operation, known, _ = str(error).partition(" does not have a deterministic implementation")
        if not known:
            raise
        raise ValueError(
            f"deterministic is true, but {operation} has no deterministic kernel on this device: set it to false."
        ) from error
    finally:
        torch.use_deterministic_algorithms(found[0], warn_only=found[1])
        cudnn.deterministic, cudnn.benchmark = convolutions


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager:
    """Autocast to dtype, or nothing at all for float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)
