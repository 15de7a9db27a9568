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

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous

BUCKET = 2**25
"""Values that are averaged in one go, so that the copy of all gradients stays small."""


class LostRank(ConnectionError):
    """Another process of the run is gone."""


@contextmanager
def processes() -> Iterator[None]:
    """Inside, the processes that torchrun has started are joined; one process alone, or those joined already, stay so."""
    joins = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()
    if joins:
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        store, own, count = next(iter(rendezvous("env://")))
        # After a restart torchrun's store still has the addresses of the processes before: each attempt gets its own names.
        store = PrefixStore(f"attempt{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=own, world_size=count)
    try:
        yield
    finally:
        if joins:
            with suppress(RuntimeError):  # the others may be gone already
                dist.destroy_process_group()


def wait() -> None:
    """Until every rank is here."""
    if ranks() > 1:
        with lost_ranks():
            dist.barrier()


def ranks() -> int:
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
    if count % ranks():
        raise ValueError(f"{what} is {count}, which {ranks()} processes cannot divide: give a multiple.")
    size = count // ranks()
    return slice(rank() * size, (rank() + 1) * size)


def mine(items: Iterable) -> Iterator:
    """Every n-th item, beginning with this rank's: whole batches are dealt out, so that each is computed as by one process."""
    return (item for number, item in enumerate(items) if number % ranks() == rank())


def total(value: int) -> int:
    """Sum over the ranks."""
    return int(summed(torch.tensor(value, dtype=torch.int64)))


def summed(tensor: Tensor) -> Tensor:
    """Sum over the ranks, in place; on one rank the tensor itself."""
    if ranks() > 1:
        with lost_ranks():
            dist.all_reduce(tensor)
    return tensor


def mean_of(values: Mapping[str, float]) -> dict[str, float]:
    """Each value's mean over the ranks; all ranks give the same names."""
    if ranks() == 1:
        return dict(values)
    means = summed(torch.tensor(list(values.values()), dtype=torch.float64)) / ranks()
    return dict(zip(values, means.tolist(), strict=True))


def gathered(tensor: Tensor) -> Tensor:
    """All ranks' tensors, of one shape (n, ...), in the ranks' order: (ranks * n, ...)."""
    if ranks() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(ranks())]
    with lost_ranks():
        dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def average_gradients(model: nn.Module) -> None:
    """Replace each weight's gradient by its mean over the ranks."""
    if ranks() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    while gradients:
        bucket, size = [], 0
        while gradients and (not bucket or size + gradients[0].numel() <= BUCKET):
            bucket.append(gradients.pop(0))
            size += bucket[-1].numel()
        flat = summed(torch.cat([g.flatten() for g in bucket])) / ranks()
        for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


@contextmanager
def first_alone() -> Iterator[None]:
    """Inside, rank 0 goes before all others: what it puts into a cache they find there."""
    if not is_first():
        wait()
    try:
        yield
    finally:
        if is_first():
            wait()


SIGNS = ("gloo", "nccl", "connection", "peer", "socket", "broken pipe")
"""Words that the engine's errors have where another process is gone."""


@contextmanager
def lost_ranks() -> Iterator[None]:
    """A collective that fails because another process is gone ends in LostRank; other errors stay what they are."""
    try:
        yield
    except RuntimeError as error:
        text = (str(error).splitlines() or [""])[0]
        if ranks() == 1 or not any(s in text.lower() for s in SIGNS):
            raise
        raise LostRank(
            f"another process of this run is gone ({text[:100]}): start the run again with --resume."
        ) from error
