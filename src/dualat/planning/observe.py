"""Operations and memory of a piece of work, seen by doing it on tensors without data (`torch.device("meta")`).

Every tensor operation is caught: its floating-point operations by PyTorch's own formulas, the bytes that it reads and
writes, and the bytes that are alive after it. A tensor lives as long on "meta" as it would on a GPU, so that the largest
sum is what a GPU would hold at its fullest: saved activations, temporaries and gradients, in the order of the real step.

PyTorch has no autocast for "meta"; `on_gpu` does what autocast to bfloat16 does on a GPU, by PyTorch's list for CUDA
(pytorch.org/docs/stable/amp.html, "CUDA Op-Specific Behavior"): products and convolutions run in bfloat16; layer norm and
powers in float32; softmax and sums give float32; all others take what they get. A weight is cast once and its copy is kept
until the end. Attention is fused, as on a GPU.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import conv_flop_count, flop_registry

META = torch.device("meta")
KERNEL_SECONDS = 3e-6
"""Least time of an operation on a GPU, however small: an assumption that counts where little is left for each GPU."""

_aten = torch.ops.aten
_FREE = {_aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten.new_empty_strided}


@dataclass
class Observation:
    """What was seen of a piece of work."""

    flops: int = 0
    """Floating-point operations of products and convolutions; a multiplication and an addition are two."""
    peak: int = 0
    """Most bytes alive at a time, of tensors that the work itself made."""
    left: int = 0
    """Bytes alive at the end, of the same."""
    parts: list[tuple[int, int]] = field(default_factory=list)
    """(operations, bytes read and written) of each operation."""

    def least_seconds(self, peak: float, bandwidth: float | None) -> float:
        """What a device needs at least: each operation takes as long as its arithmetic, or as its memory traffic.

        Args:
            peak: operations per second.
            bandwidth: bytes per second; None: not known, arithmetic alone.
        """
        if bandwidth is None:
            return self.flops / peak
        return sum(max(flops / peak, moved / bandwidth, KERNEL_SECONDS) for flops, moved in self.parts)


def observe(work: Callable[[], object]) -> Observation:
    """Do the work and tell what it takes. What it returns counts as alive at the end."""
    with _Watch() as watch:
        kept = work()
        watch.seen.left = watch.live
    del kept
    return watch.seen


class _Watch(TorchDispatchMode):
    """Counts operations, and bytes from when a storage is made until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Observation()
        self.live = 0
        self._storages: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        read, made = _tensors((args, kwargs)), _tensors(out)
        flops = _flops(func, args, kwargs, out)
        self.seen.flops += flops
        if made and not func.is_view and func.overloadpacket not in _FREE:
            moved = sum(t.numel() * t.element_size() for t in {id(t): t for t in (*read, *made)}.values())
            self.seen.parts.append((flops, moved))
        known = {_key(tensor) for tensor in read}
        for tensor in made:
            if _key(tensor) not in known:
                self._born(tensor)
        return out

    def _born(self, tensor: Tensor) -> None:
        storage, key = tensor.untyped_storage(), _key(tensor)
        if key in self._storages:
            return
        size = storage.nbytes()

        def freed(_: object) -> None:
            del self._storages[key]
            self.live -= size

        self._storages[key] = weakref.ref(storage, freed)
        self.live += size
        self.seen.peak = max(self.seen.peak, self.live)


def _tensors(values: object) -> list[Tensor]:
    leaves: Iterable[object] = tree_iter(values)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _key(tensor: Tensor) -> int:
    """What tells one storage from another; those on "meta" have no address."""
    return tensor.untyped_storage()._cdata


def _flops(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    if func is _aten.convolution_backward.default:
        return _convolution_backward(*args)
    count = flop_registry.get(func.overloadpacket)
    return 0 if count is None else int(count(*args, **kwargs, out_val=out))


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *settings: Any) -> int:
    """As many as the forward pass, for each gradient that is wanted. PyTorch's own formula has the weights' gradient of
    a depthwise convolution as many times too large as it has groups."""
    transposed, wanted = settings[4], settings[-1]
    once = conv_flop_count(list(x.shape), list(weight.shape), list(grad.shape), transposed)
    return once * (wanted[0] + wanted[1])


_LOW = {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "prelu"}
_LOW |= {"linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "addmm", "addmv", "addbmm"}
_LOW |= {"baddbmm", "einsum", "chain_matmul", "multi_dot"}
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
