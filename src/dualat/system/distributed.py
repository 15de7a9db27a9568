"""Several processes, one run: rank helpers on PyTorch's own engine. Start them with torchrun:

    torchrun --nproc-per-node 8 -m dualat train cifar10

Every collective runs on every rank. With one process nothing is sent and every function is the identity. All ranks hold
the same weights; each has its part of every batch, and gradients are averaged once per step. That is done by hand and not
by DistributedDataParallel: the gradient loop runs dozens of passes without weight gradients on the bare module, so that
one exchange per step takes a few percent at most and has nothing to overlap with.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous

BUCKET = 2**25
"""Values that are averaged in one go, so that the copy of all gradients stays small."""


class LostRank(ConnectionError):
    """Another process of the run is gone."""


TIMEOUT = timedelta(minutes=30)
"""How long an exchange waits for another rank that is there but busy, as with a checkpoint; PyTorch's own default."""
STEP_TIMEOUT = timedelta(minutes=10)
"""How long rank 0 waits for the others within a training step; then the slowest counts as gone."""
ALONE_TIMEOUT = timedelta(hours=6)
"""How long the others wait for what rank 0 does alone."""

_meeting: dist.ProcessGroup | None = None
_patient: dist.ProcessGroup | None = None


@contextmanager
def processes(device: str = "auto") -> Iterator[None]:
    """Inside, the processes that torchrun has started are joined; one process alone, or those joined already, stay so.

    device: a name as in `precision.choose_device`; where it means GPUs, each process takes its own.
    """
    joins = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()
    if joins:
        backend = "cpu:gloo,cuda:nccl" if takes_gpu(device) else "gloo"
        store, own, count = next(iter(rendezvous("env://")))
        # After a restart torchrun's store still has the addresses of the processes before: each attempt gets its own names.
        store = PrefixStore(f"attempt{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(backend, store=store, rank=own, world_size=count, timeout=TIMEOUT)
    try:
        with meetings():
            yield
    finally:
        if joins:
            with suppress(RuntimeError):  # the others may be gone already
                dist.destroy_process_group()


def takes_gpu(device: str) -> bool:
    """Whether this process computes on a GPU by that name; its own is the current one from then on.

    Raises ValueError where there is none for it, or several processes are to share one.
    """
    if not device.startswith("cuda") and not (device == "auto" and torch.cuda.is_available()):
        return False
    if "LOCAL_RANK" not in os.environ:
        raise ValueError(
            "several processes are started without LOCAL_RANK, which says whose GPU is whose: use torchrun."
        )
    own, beside = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if ":" in device and beside > 1:
        raise ValueError(
            f"device is {device}, which {beside} processes of one machine cannot share: give cuda, and each takes its own."
        )
    if ":" not in device and own >= torch.cuda.device_count():
        raise ValueError(
            f"there are {beside} processes and {torch.cuda.device_count()} GPUs on this machine: give torchrun as many "
            "--nproc-per-node as there are GPUs, or --device cpu."
        )
    torch.cuda.set_device(torch.device(device) if ":" in device else torch.device("cuda", own))
    return True


@contextmanager
def meetings() -> Iterator[None]:
    """Inside, the ranks are joined by gloo alone too, with the times above; made now, while all are here."""
    global _meeting, _patient
    if world_size() == 1 or _meeting is not None:
        yield
        return
    made = _meeting, _patient = by_gloo(TIMEOUT), by_gloo(ALONE_TIMEOUT)
    try:
        yield
    finally:
        _meeting = _patient = None
        for group in made:
            with suppress(RuntimeError):
                dist.destroy_process_group(group)


def by_gloo(timeout: timedelta) -> dist.ProcessGroup:
    """All ranks once more, joined by gloo alone."""
    group = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(group, dist.ProcessGroup)
    return group


def barrier(timeout: timedelta | None = None) -> None:
    """Until every rank is here. LostRank where one is gone, or has not come to rank 0 within `timeout` (TIMEOUT)."""
    if world_size() > 1:
        with lost_ranks():
            dist.monitored_barrier(_meeting, timeout or TIMEOUT)


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, 0 being the one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def launched_rank() -> int:
    """The number that torchrun gave this process, before and after the processes are joined; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this process writes files and talks to people."""
    return rank() == 0


def share(count: int, what: str = "batch_size") -> slice:
    """This process's part of a batch of `count` images. ValueError where the ranks do not divide it."""
    if count % world_size():
        raise ValueError(f"{what} is {count}, which {world_size()} processes cannot divide: give a multiple.")
    size = count // world_size()
    return slice(rank() * size, (rank() + 1) * size)


def mine(items: Iterable) -> Iterator:
    """Every n-th item, beginning with this rank's: whole batches are dealt out, so that each is computed as by one process."""
    return (item for number, item in enumerate(items) if number % world_size() == rank())


def total(value: int) -> int:
    """Sum over the ranks."""
    return int(all_reduced(torch.tensor(value, dtype=torch.int64)))


def all_reduced(tensor: Tensor) -> Tensor:
    """Sum over the ranks, in place; on one rank the tensor itself."""
    if world_size() > 1:
        with lost_ranks():
            dist.all_reduce(tensor)
    return tensor


def mean_over_ranks(values: Mapping[str, float]) -> dict[str, float]:
    """Each value's mean over the ranks; all ranks give the same names."""
    if world_size() == 1:
        return dict(values)
    means = all_reduced(torch.tensor(list(values.values()), dtype=torch.float64)) / world_size()
    return dict(zip(values, means.tolist(), strict=True))


def all_gathered(tensor: Tensor) -> Tensor:
    """All ranks' tensors, of one shape (n, ...), in the ranks' order: (ranks * n, ...)."""
    if world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    with lost_ranks():
        dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def average_gradients(model: nn.Module) -> None:
    """Replace each weight's gradient by its mean over the ranks, once all have come here."""
    if world_size() == 1:
        return
    barrier(STEP_TIMEOUT)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    while gradients:
        bucket, size = [], 0
        while gradients and (not bucket or size + gradients[0].numel() <= BUCKET):
            bucket.append(gradients.pop(0))
            size += bucket[-1].numel()
        flat = all_reduced(torch.cat([g.flatten() for g in bucket])) / world_size()
        for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


@torch.no_grad()
def broadcast(tensors: Iterable[Tensor], alone: bool = False) -> None:
    """Give these tensors the values of rank 0's, in place, on any device and in any layout; shapes are the same everywhere.

    alone: rank 0 may come late, from what it does alone, by ALONE_TIMEOUT at most.
    """
    if world_size() == 1:
        return
    with lost_ranks():
        for tensor in tensors:
            sent = tensor.detach().cpu().contiguous()
            dist.broadcast(sent, 0, group=_patient if alone else _meeting)
            tensor.copy_(sent)


def broadcast_number(value: int) -> int:
    """Rank 0's value, on every rank."""
    sent = torch.tensor(value)
    broadcast([sent])
    return int(sent)


def abandon_gpus() -> None:
    """End what NCCL has begun and, as a rank is gone, would never end: behind it nothing else on the GPU goes on."""
    if world_size() > 1 and "nccl" in dist.get_backend_config():
        with suppress(RuntimeError):
            dist.distributed_c10d._get_default_group()._get_backend(torch.device("cuda")).abort()


SIGNS = ("gloo", "nccl", "connection", "peer", "socket", "broken pipe", "monitoredbarrier")
"""Words that the engine's errors have where another process is gone."""


@contextmanager
def lost_ranks() -> Iterator[None]:
    """A collective that fails because another process is gone ends in LostRank; other errors stay what they are."""
    try:
        yield
    except RuntimeError as error:
        text = (str(error).splitlines() or [""])[0]
        if world_size() == 1 or not any(s in text.lower() for s in SIGNS):
            raise
        raise LostRank(
            f"another process of this run is gone ({text[:100]}): start the run again with --resume."
        ) from error
