"""The few collectives that this project needs; each is right with no process group too."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether a process group exists."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number in the group; 0 without one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """The number of processes in the group; 1 without one."""
    return dist.get_world_size() if is_distributed() else 1


def local_world_size() -> int:
    """The number of processes that share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def all_reduce_sum(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The sum of `x` over all ranks, as a new contiguous tensor; no gradient flows.

    Use the *result*: the argument is never changed. (A reduced copy that nobody reads is the
    best-known bug of the field's EMA codebooks.)
    """
    total = x.detach().clone(memory_format=torch.contiguous_format)
    if is_distributed():
        dist.all_reduce(total)
    return total


def all_reduce_sum_with_gradient(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The sum of `x` over all ranks, with a gradient.

    Every rank must use the result in the same way, as for a loss that all ranks share: then the gradient
    of the ranks' summed losses is `world_size` times a rank's own, which needs no communication (and so
    cannot hang or change order in the backward). DistributedDataParallel, which averages gradients over
    the ranks, so arrives at the gradient of the shared loss.
    """
    if not is_distributed():
        return x
    carrier = x * world_size()
    return _reduced(x) + (carrier - carrier.detach())


class _Repeat(threading.local):
    """Where this thread's `all_reduce_sum_with_gradient` keeps its results, or takes them from."""

    results: list[Tensor] | None = None
    place: int | None = None


_repeat = _Repeat()


@contextmanager
def repeatable(results: list[Tensor], *, is_replay: bool) -> Iterator[None]:
    """Inside, what `all_reduce_sum_with_gradient` sums is appended to `results`, or in a replay taken from them.

    For a forward that is run again on one rank after the other, where a collective could hang.
    """
    before = _repeat.results, _repeat.place
    _repeat.results, _repeat.place = results, 0 if is_replay else None
    try:
        yield
    finally:
        _repeat.results, _repeat.place = before


def _reduced(x: Tensor) -> Tensor:
    if torch.compiler.is_compiling() or _repeat.results is None:
        return all_reduce_sum(x)
    if _repeat.place is None:
        _repeat.results.append(all_reduce_sum(x))
        return _repeat.results[-1]
    _repeat.place += 1
    return _repeat.results[_repeat.place - 1]


def all_gather_cat(x: Shaped[Tensor, "local *rest"]) -> Shaped[Tensor, "all *rest"]:
    """Concatenates the ranks' tensors along the first axis, in rank order; lengths may differ."""
    if not is_distributed() or world_size() == 1:
        return x.detach()
    x = x.detach().contiguous()
    lengths = torch.zeros(world_size(), dtype=torch.int64, device=x.device)
    lengths[rank()] = len(x)
    dist.all_reduce(lengths)
    longest = int(lengths.max())
    padded = x.new_zeros((longest, *x.shape[1:]))
    padded[: len(x)] = x
    gathered = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(gathered, padded)
    return torch.cat([part[:length] for part, length in zip(gathered, lengths.tolist(), strict=True)])


def broadcast(x: Shaped[Tensor, "*shape"], source: int = 0) -> Shaped[Tensor, "*shape"]:
    """The value that `x` has on rank `source`, as a new contiguous tensor on every rank."""
    value = x.detach().clone(memory_format=torch.contiguous_format)
    if is_distributed():
        dist.broadcast(value, source)
    return value


def broadcast_object(value: T, source: int = 0) -> T:
    """A small picklable value from rank `source`, on every rank."""
    if not is_distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, source)
    return box[0]


def gather_objects(value: T) -> list[T]:
    """One small picklable value of each rank, in rank order, on every rank."""
    if not is_distributed():
        return [value]
    box: list[T] = [value] * world_size()
    dist.all_gather_object(box, value)
    return box


def barrier() -> None:
    """Waits until every rank is here."""
    if is_distributed():
        dist.barrier()
