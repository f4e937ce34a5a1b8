"""Tensors of which each rank holds a part: gathering, dividing, and the norm of their gradients."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vq import distributed

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_divided(x: object) -> "TypeGuard[DTensor]":
    """Whether the ranks hold parts of a tensor."""
    # The import of the class takes as long as that of torch; without it, there is no such tensor.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def gathered(tree: Any) -> Any:
    """Gathers the divided tensors in nested dicts and lists; every rank must call it.

    Returns:
        On rank 0 the same tree with whole tensors on the CPU in place of the divided ones, all others as they are; on
        other ranks the divided ones are empty, so that only one rank needs the memory.
    """
    if is_divided(tree):
        whole = _whole(tree)
        return whole.cpu() if distributed.rank() == 0 else whole.new_empty(0)
    if isinstance(tree, Mapping):
        return {key: gathered(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map(gathered, tree))
    return tree


def _whole(x: "DTensor") -> Shaped[Tensor, "..."]:
    """The parts of a divided tensor, one after the other; every rank must call it.

    `DTensor.full_tensor` returns the same, but starts an asynchronous operation and takes longer to do so.
    """
    group = _ranks_of_parts(x)
    part = x.to_local().detach()
    longest = -(-len(x) // group.size())  # the parts after the last full one are shorter, or empty
    padded = part.new_zeros((longest, *x.shape[1:]))
    padded[: len(part)] = part
    parts = padded.new_empty((group.size(), *padded.shape))
    dist.all_gather(list(parts), padded, group=group)
    return parts.flatten(0, 1)[: len(x)]


def _ranks_of_parts(x: "DTensor") -> dist.ProcessGroup:
    """The ranks that together hold a divided tensor once."""
    return x.device_mesh.get_group("shard")


def part_of(x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """This rank's part of a divided tensor, which shares its memory; any other tensor as it is."""
    return x.to_local() if is_divided(x) else x


def divided_like(x: Shaped[Tensor, "*shape"], like: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """This rank's part of a tensor, if `like` is a divided one; else the tensor. Every rank must have the same `x`."""
    if not is_divided(like) or is_divided(x):
        return x
    from torch.distributed.tensor import distribute_tensor

    on_device = x.detach().to(like.device)
    part: Tensor = distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)
    return part


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> Float[Tensor, ""]:
    """Clips the gradients to a 2-norm, whether they are divided or not; returns the norm before clipping."""
    divided = [p for p in parameters if is_divided(p)]
    if not divided:
        return nn.utils.clip_grad_norm_(parameters, max_norm)
    others = [p for p in parameters if not is_divided(p)]
    squares = _norm(divided).square().to(divided[0].device)
    dist.all_reduce(squares, group=_ranks_of_parts(divided[0]))
    total = (squares + _norm(others).to(squares.device).square()).sqrt()
    for group in (divided, others):
        nn.utils.clip_grads_with_norm_(group, max_norm, total)
    return total


def _norm(parameters: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The 2-norm of this rank's gradients; 0 if there are none."""
    return nn.utils.get_total_norm([part_of(p.grad) for p in parameters if p.grad is not None])
