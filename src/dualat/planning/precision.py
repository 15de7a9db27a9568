"""What autocast to bfloat16 does on a GPU, done to tensors without data, for which PyTorch has no autocast.

Which operations are cast is PyTorch's list for CUDA (pytorch.org/docs/stable/amp.html, "CUDA Op-Specific Behavior"):
products and convolutions run in bfloat16; layer norm and powers in float32; softmax and sums give float32; all others
take what they get. A weight is cast once and its copy is kept until the end. Attention is fused, as on a GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

_LOW = {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "prelu"}
_LOW |= {
    "linear",
    "matmul",
    "__matmul__",
    "__rmatmul__",
    "mm",
    "bmm",
    "mv",
    "addmm",
    "addmv",
    "addbmm",
    "baddbmm",
}
_LOW |= {"einsum", "chain_matmul", "multi_dot"}
_FULL = {"layer_norm", "group_norm", "norm", "normalize", "pow", "__pow__", "__rpow__", "exp", "expm1", "log"}
_FULL |= {"log10", "log1p", "log2", "reciprocal", "rsqrt", "softplus", "cdist", "dist", "cosine_similarity"}
_FULL_RESULT = {"softmax", "log_softmax", "sum", "prod", "cumsum", "cumprod"}


@contextmanager
def on_gpu(dtype: torch.dtype) -> Iterator[None]:
    """Inside, networks on "meta" compute in the dtypes that they have on a GPU.

    Args:
        dtype: torch.bfloat16 for autocast, torch.float32 for none.
    """
    policy, depth = _Policy(dtype == torch.bfloat16), 0

    def enter(_module: nn.Module, _inputs: object) -> None:
        nonlocal depth
        depth += 1
        if depth == 1:
            policy.__enter__()

    def leave(_module: nn.Module, _inputs: object, _outputs: object) -> None:
        nonlocal depth
        depth -= 1
        if depth == 0:
            policy.__exit__(None, None, None)

    # by module, not once around all: layers that are done again in the backward pass are then done alike
    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Policy(TorchFunctionMode):
    def __init__(self, autocast: bool):
        super().__init__()
        self.autocast = autocast
        self._weights: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            return self._attention(func, args, kwargs)
        if self.autocast:
            if name in _LOW:
                args, kwargs = self._cast(self._low, args, kwargs)
            elif name in _FULL:
                args, kwargs = self._cast(_full, args, kwargs)
            elif name in _FULL_RESULT and args[0].dtype == torch.bfloat16:
                kwargs = {"dtype": torch.float32, **kwargs}
        return func(*args, **kwargs)

    def _cast(self, cast: Any, args: Any, kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
        return [cast(a) for a in args], {k: cast(v) for k, v in kwargs.items()}

    def _low(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not (value.is_leaf and value.requires_grad):
            return value.to(torch.bfloat16)
        if id(value) not in self._weights:
            self._weights[id(value)] = value.to(torch.bfloat16)
        return self._weights[id(value)]

    def _attention(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """The kernel that a GPU takes: flash attention in bfloat16, the memory-efficient one in float32. Neither keeps
        the N x N weights. With a mask, whatever PyTorch does."""
        if len(args) != 3 or kwargs.get("attn_mask") is not None:
            args, kwargs = self._cast(self._low if self.autocast else (lambda v: v), args, kwargs)
            return func(*args, **kwargs)
        if self.autocast:
            return torch.ops.aten._scaled_dot_product_flash_attention(*(self._low(a) for a in args))[0]
        return torch.ops.aten._scaled_dot_product_efficient_attention(*args, None, True)[0]


def _full(value: Any) -> Any:
    low = isinstance(value, Tensor) and value.dtype == torch.bfloat16
    return value.float() if low else value
