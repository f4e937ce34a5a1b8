"""The collective operations that this project needs. All of them also work without a process group."""

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
    """Tests whether a process group exists."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Returns the number of this process in the group; 0 without a group."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Returns the number of processes in the group; 1 without a group."""
    return dist.get_world_size() if is_distributed() else 1


def local_world_size() -> int:
    """Returns the number of processes of the group on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def all_reduce_sum(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Returns the sum of `x` over all ranks, as a new contiguous tensor without gradients.

    The argument is not changed, so use the *result*. (A reduced copy that is never read is a well-known bug of EMA
    codebooks.)
    """
    total = x.detach().clone(memory_format=torch.contiguous_format)
    if is_distributed():
        dist.all_reduce(total)
    return total


def all_reduce_sum_with_gradient(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Returns the sum of `x` over all ranks, with gradients.

    Every rank must use the result in the same way, as for a loss that all ranks share. Then the gradient of the sum of
    all ranks' losses is `world_size` times the gradient of this rank's own, which needs no communication and therefore
    cannot deadlock or change its order in the backward pass. DistributedDataParallel averages gradients over ranks,
    which gives the gradient of the shared loss.
    """
    if not is_distributed():
        return x
    carrier = x * world_size()
    return _reduced(x) + (carrier - carrier.detach())


class _Repeat(threading.local):
    """The results of `all_reduce_sum_with_gradient` that this thread records, or replays from position `place`."""

    results: list[Tensor] | None = None
    place: int | None = None


_repeat = _Repeat()


@contextmanager
def repeatable(results: list[Shaped[Tensor, "..."]], *, is_replay: bool) -> Iterator[None]:
    """Records the results of `all_reduce_sum_with_gradient` inside the context, or replays them.

    This is for a forward pass that the ranks repeat at different times, when a collective operation could deadlock.

    Args:
        results: The list to which results are appended, or from which they are read in a replay.
        is_replay: Whether to read the results instead of computing them.
    """
    before = _repeat.results, _repeat.place
    _repeat.results, _repeat.place = results, 0 if is_replay else None
    try:
        yield
    finally:
        _repeat.results, _repeat.place = before


def _reduced(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
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
    """Returns the value that `x` has on rank `source`, as a new contiguous tensor, on every rank."""
    value = x.detach().clone(memory_format=torch.contiguous_format)
    if is_distributed():
        dist.broadcast(value, source)
    return value


def broadcast_object(value: T, source: int = 0) -> T:
    """Returns a small picklable value of rank `source`, on every rank."""
    if not is_distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, source)
    return box[0]


def gather_objects(value: T) -> list[T]:
    """Returns the small picklable values of all ranks, in rank order, on every rank."""
    if not is_distributed():
        return [value]
    box: list[T] = [value] * world_size()
    dist.all_gather_object(box, value)
    return box


def barrier() -> None:
    """Waits until all ranks have called it."""
    if is_distributed():
        dist.barrier()
