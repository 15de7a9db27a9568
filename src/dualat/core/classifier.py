"""How any classifier is called: where it lives, in which precision, which of its outputs are logits, what it takes.

All that measures, samples, attacks or explains a model calls it by `logits_of`. Training alone calls it directly: its chains
may leave [0, 1], and it watches its loss for numbers that are not finite.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

PRECISIONS = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
}
"""Floating-point types that networks compute in, and their names in records."""
ROUNDING = 1e-6
"""How far outside [0, 1] images may lie: resizing in float32 rounds."""


class NotFinite(ValueError):
    """A model whose logits, or the images that its gradients lead to, are infinite or undefined."""


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are; the CPU for a model without any."""
    tensors = chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """Type in which the model takes images: that of its first weights or buffers; None for a model without any."""
    return next((t.dtype for t in _tensors(model) if t.dtype in PRECISIONS), None)


def precision_of(model: nn.Module) -> str:
    """The same as records name it: fp16, bf16, fp32 or fp64."""
    return PRECISIONS[dtype_of(model) or torch.float32]


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Weights, then buffers, of one module after the other: a normaliser's numbers before those of the network in it."""
    for module in model.modules():
        yield from chain(module.parameters(recurse=False), module.buffers(recurse=False))


def loop_dtype(model: nn.Module, x: Tensor) -> torch.dtype:
    """Type for arithmetic on images x that the model sees: float32, or float64 where either of them is."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.promote_types(wide, dtype_of(model) or wide)


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (N, K) of images x: (N, C, H, W), in the model's precision. ValueError where its output does not tell them."""
    return take_logits(model(in_precision_of(model, x)))


def in_precision_of(model: nn.Module, x: Tensor) -> Tensor:
    """The images in the type that the model takes."""
    return x.to(dtype_of(model) or x.dtype)


def take_logits(output: Any) -> Tensor:
    """The logits in what a model gives: itself if it is a tensor, its entry `logits`, or the only (N, K) tensor of a tuple
    or list.

    Raises ValueError for anything else: of logits and features, say, it is not plain which are which.
    """
    if isinstance(output, Tensor):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(named, Tensor):
        return named
    if isinstance(output, tuple | list):
        rows = [entry for entry in output if isinstance(entry, Tensor) and entry.dim() == 2]
        if len(rows) == 1:
            return rows[0]
    raise ValueError(
        f"the model gives {_described(output)}, which does not tell its logits: wrap it in a module that gives a "
        "tensor of logits (N, K) alone."
    )


def _described(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"a dict with the keys {', '.join(map(repr, output))}" if output else "an empty dict"
    kind = type(output).__name__
    if not isinstance(output, tuple | list):
        return f"a {kind}"
    shapes = [str(tuple(entry.shape)) if isinstance(entry, Tensor) else str(type(entry)) for entry in output]
    return f"a {kind} of tensors {', '.join(shapes)}" if output else f"an empty {kind}"


def check_logits(logits: Tensor) -> Tensor:
    """Logits (N, K) as they came, or a ValueError where they have another shape, NotFinite where they are not finite."""
    if logits.dim() != 2:
        raise ValueError(f"the model's logits must be of shape (N, K), not {tuple(logits.shape)}.")
    if not logits.is_meta and not bool(logits.isfinite().all()):
        wrong = int((~logits.isfinite().all(dim=1)).sum())
        raise NotFinite(
            f"the model's logits of {wrong} of {len(logits)} images are not finite: its weights are damaged or its "
            "training has diverged; take another checkpoint."
        )
    return logits


def check_images(x: Tensor, name: str = "images", boxed: bool = True) -> Tensor:
    """Images as they came, or a ValueError unless they are floating-point (N, C, H, W), finite, and in [0, 1].

    boxed: False lets finite images outside [0, 1] pass, as of a chain that is not clipped.
    """
    if x.dim() != 4 or not x.is_floating_point():
        kind = str(x.dtype).removeprefix("torch.")
        hint = ": divide by 255" if x.dtype == torch.uint8 and x.dim() == 4 else ""
        raise ValueError(
            f"{name} must be floating-point of shape (N, C, H, W) in [0, 1], not {kind} of shape "
            f"{tuple(x.shape)}{hint}."
        )
    if not x.numel() or x.is_meta:
        return x
    low, high = torch.stack(x.detach().aminmax()).tolist()  # NaN, if there is any
    if not (-float("inf") < low and high < float("inf")):
        raise ValueError(
            f"{name} must lie in [0, 1], but some are not finite."
            if boxed
            else f"{name} must be finite, but some are not."
        )
    if boxed and not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise ValueError(
            f"{name} must lie in [0, 1], but go from {low:.4g} to {high:.4g}: divide 8-bit values by 255, and leave "
            "normalisation to the model."
        )
    return x
