"""The anchors of CVQ-VAE: for each code one vector of the batches of all ranks, towards which it may move."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.distributed import all_reduce_sum, rank, world_size
from vq.ops.affinity import closest_vector, draw_by_affinity, log_affinity

AnchorKind = Literal["closest", "probrandom", "random"]


class Anchors(NamedTuple):
    """Holds one vector for each code, the same on every rank.

    Args:
        vectors: The anchors; 0 if there was no vector to choose from.
        weight: Rank of each anchor against those of other batches: for `"closest"` minus its squared distance to the
            code, otherwise the log of the probability mass it was drawn from; minus infinity without any vector.
        uniform: Random number in [0, 1) for each code, which decides between the anchors of two batches.
    """

    vectors: Float[Tensor, "size dim"]
    weight: Float[Tensor, "size"]
    uniform: Float[Tensor, "size"]


def draw_anchors(
    kind: AnchorKind, z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"], codes: Float[Tensor, "size dim"]
) -> Anchors:
    """Chooses an anchor for each code among the vectors of all ranks.

    Random choices use numbers drawn on rank 0, each of which selects a position in the concatenation of all ranks'
    vectors. So the result does not depend on how the vectors are divided among ranks. Nothing waits for the device.

    Args:
        kind: `"closest"`, `"probrandom"` (probability proportional to exp(-|z - e|^2)) or `"random"` (uniform).
        z: This rank's vectors; may be empty.
        mask: True for the vectors that can be chosen.
        codes: Current codes.
    """
    size = len(codes)
    weight, nearest = _weight(kind, z, mask, codes)
    # The first two rows of the message are draws of rank 0; each further row holds the weights of one rank.
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
        is_last = mass[rank() + 1 :].sum(dim=0) == 0  # the last range also covers what rounding leaves over
        is_here = (own > 0) & (draw >= before) & ((draw < before + own) | is_last)
        within = ((draw - before) / own.clamp_min(1e-300)).clamp(0, 1 - 1e-9)
        row = _row(kind, z, mask, codes, within)
    is_here = is_here & total.isfinite()
    here = torch.where(is_here[:, None], z[row], 0.0) if len(z) else torch.zeros_like(codes)
    return Anchors(all_reduce_sum(here), total, uniform)


def merge_anchors(kind: AnchorKind, old: Anchors, new: Anchors) -> Anchors:
    """Chooses between the anchors of two batches, as if they had been drawn from both batches together."""
    if kind == "closest":
        is_new = new.weight > old.weight
        total = torch.maximum(old.weight, new.weight)
    else:
        total = torch.logaddexp(old.weight, new.weight)
        is_new = new.uniform < (new.weight - torch.where(total.isfinite(), total, 0.0)).exp()
    return Anchors(torch.where(is_new[:, None], new.vectors, old.vectors), total, new.uniform)


def _weight(
    kind: AnchorKind, z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"], codes: Float[Tensor, "size dim"]
) -> tuple[Float[Tensor, "size"], Int[Tensor, "size"]]:
    """Computes this rank's weight for each code and, for `"closest"`, the row of the closest vector."""
    nowhere = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
    if kind == "closest":
        weight, nearest = closest_vector(z, mask, codes)
        return _ordered(weight), nearest
    if kind == "random":
        return mask.sum().to(torch.float64).log().expand(len(codes)), nowhere
    return _ordered(log_affinity(z, mask, codes)), nowhere


def _ordered(weight: Float[Tensor, "size"]) -> Float[Tensor, "size"]:
    """Turns NaN, from distances that overflowed, into minus infinity: such a code has no anchor."""
    return torch.where(weight.isnan(), -torch.inf, weight)


def _row(
    kind: AnchorKind,
    z: Float[Tensor, "n dim"],
    mask: Bool[Tensor, "n"],
    codes: Float[Tensor, "size dim"],
    within: Float[Tensor, "size"],
) -> Int[Tensor, "size"]:
    """Returns the row of the vector at the fraction `within` of this rank's probability mass."""
    if len(z) == 0:
        return torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
    if kind == "random":
        position = (within * mask.sum()).long() + 1
        return torch.searchsorted(mask.cumsum(0), position).clamp_max(len(z) - 1)
    return draw_by_affinity(z, mask, codes, within)
