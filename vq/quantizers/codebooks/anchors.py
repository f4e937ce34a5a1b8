"""Anchors of CVQ-VAE: for each code one vector of the batches of all ranks, to which it may move."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vq.distributed import all_reduce_sum, rank, world_size
from vq.ops.affinity import closest_vector, draw_by_affinity, log_affinity

AnchorKind = Literal["closest", "probrandom", "random"]


class Anchors(NamedTuple):
    """One vector for each code, the same on every rank.

    Args:
        vectors: The anchors; 0 where there was no vector to choose from.
        weight: How an anchor compares with one of another batch: for `"closest"` minus its squared distance,
            else the log of the probability mass that it was drawn from. Minus infinity without any vector.
        uniform: A number in [0, 1) for each code, to decide between two draws.
    """

    vectors: Float[Tensor, "size dim"]
    weight: Float[Tensor, "size"]
    uniform: Float[Tensor, "size"]


def draw_anchors(
    kind: AnchorKind, z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"], codes: Float[Tensor, "size dim"]
) -> Anchors:
    """Chooses an anchor for each code among the vectors of all ranks together.

    A random choice is decided by numbers of rank 0, which is a position in the ranks' concatenated vectors:
    the result does not depend on how vectors are divided among ranks. Nothing waits for the device.

    Args:
        kind: `"closest"`, `"probrandom"` (in proportion to exp(-|z - e|^2)) or `"random"` (all alike).
        z: This rank's vectors, possibly none.
        mask: Which of them can be chosen.
        codes: Where the codes are now.
    """
    size = len(codes)
    weight, nearest = _weight(kind, z, mask, codes)
    # Rows of the message: two draws of rank 0, then each rank's weights.
    message = torch.zeros(2 + world_size(), size, dtype=torch.float64, device=codes.device)
    draws = torch.rand(2, size, device=codes.device)
    if rank() == 0:
        message[:2] = draws
    message[2 + rank()] = weight
    message = all_reduce_sum(message)
    draw, uniform, weights = message[0], message[1], message[2:]

    total = weights.logsumexp(dim=0)
    if kind == "closest":
        total = weights.amax(dim=0)
        is_here = weights.argmax(dim=0) == rank()
        row = nearest
    else:
        mass = (weights - torch.where(total.isfinite(), total, 0.0)).exp()
        before = mass[: rank()].sum(dim=0)
        own = mass[rank()]
        is_last = mass[rank() + 1 :].sum(dim=0) == 0  # whose range also takes what rounding leaves over
        is_here = (own > 0) & (draw >= before) & ((draw < before + own) | is_last)
        within = ((draw - before) / own.clamp_min(1e-300)).clamp(0, 1 - 1e-9)
        row = _row(kind, z, mask, codes, within)
    is_here = is_here & total.isfinite()
    here = torch.where(is_here[:, None], z[row], 0.0) if len(z) else torch.zeros_like(codes)
    return Anchors(all_reduce_sum(here), total, uniform)


def merge_anchors(kind: AnchorKind, old: Anchors, new: Anchors) -> Anchors:
    """The anchors of two batches taken together."""
    if kind == "closest":
        is_new = new.weight > old.weight
        total = torch.maximum(old.weight, new.weight)
    else:
        total = torch.logaddexp(old.weight, new.weight)
        is_new = new.uniform < (new.weight - torch.where(total.isfinite(), total, 0.0)).exp()
    return Anchors(torch.where(is_new[:, None], new.vectors, old.vectors), total, new.uniform)


def _weight(kind: AnchorKind, z: Tensor, mask: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """This rank's weight for each code, and for `"closest"` the row of its vector."""
    nowhere = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
    if kind == "closest":
        weight, nearest = closest_vector(z, mask, codes)
        return _ordered(weight), nearest
    if kind == "random":
        return mask.sum().to(torch.float64).log().expand(len(codes)), nowhere
    return _ordered(log_affinity(z, mask, codes)), nowhere


def _ordered(weight: Tensor) -> Tensor:
    """Where a distance has overflowed to NaN there is no anchor."""
    return torch.where(weight.isnan(), -torch.inf, weight)


def _row(kind: AnchorKind, z: Tensor, mask: Tensor, codes: Tensor, within: Tensor) -> Tensor:
    if len(z) == 0:
        return torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
    if kind == "random":
        position = (within * mask.sum()).long() + 1
        return torch.searchsorted(mask.cumsum(0), position).clamp_max(len(z) - 1)
    return draw_by_affinity(z, mask, codes, within)
