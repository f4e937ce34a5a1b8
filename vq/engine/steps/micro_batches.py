"""How micro-batches and ranks of unequal size add up to the gradient of one large batch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vq import distributed
from vq.ops.numerics.precision import computed_in


@dataclass(frozen=True, slots=True)
class Share:
    """The factors of a micro-batch's means that make a step's gradient that of the mean over all images.

    A step lowers the mean over all images (vectors, indices) of all its micro-batches and ranks, however unevenly they
    are divided. Gradients are averaged over the ranks, so a micro-batch with `n` of the `N` images has the share
    `n / N` times the number of ranks.

    Attributes:
        local: For a mean over this rank's images.
        common: For a mean over the images of all ranks, such as the loss of a quantizer.
    """

    local: float | Tensor
    common: float | Tensor


def shares_of(counts: Sequence[int], like: Shaped[Tensor, "..."]) -> list[Share]:
    """The share of each micro-batch of a step; every rank must have the same number of micro-batches.

    Args:
        counts: Number of images of each micro-batch on this rank.
        like: With several ranks the shares are tensors on its device, in float64 if it is float64, else in float32.
    """
    if distributed.world_size() == 1:
        return [Share(count / max(1, sum(counts)), count / max(1, sum(counts))) for count in counts]
    own = torch.tensor(counts, dtype=torch.float64).to(like.device, non_blocking=True)
    everywhere = distributed.all_reduce_sum(own)
    total = everywhere.sum().clamp_min(1)
    shares = torch.stack([own * distributed.world_size() / total, everywhere / total])
    return [Share(local, common) for local, common in shares.to(computed_in(like.dtype)).unbind(1)]


def add(sums: dict[str, Float[Tensor, ""]], scalars: Mapping[str, Float[Tensor, ""]]) -> None:
    """Adds a micro-batch's scalars, already multiplied by its share, to those of the step."""
    for name, value in scalars.items():
        sums[name] = sums[name] + value if name in sums else value


@torch.no_grad()
def mean_over_ranks(tensors: Sequence[Float[Tensor, "..."]]) -> list[Float[Tensor, "..."]]:
    """The tensors' means over the ranks, in one message."""
    if distributed.world_size() == 1:
        return list(tensors)
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    mean = distributed.all_reduce_sum(flat) / distributed.world_size()
    parts = torch.split(mean, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces the gradients by their means over the ranks, for parameters that the backward pass does not average."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients and distributed.world_size() > 1:
        torch._foreach_copy_(gradients, mean_over_ranks(gradients))
