"""Sums and means over the vectors that count: padded positions, and none at all, are in order."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def mean_square(
    a: Float[Tensor, "*lead dim"], b: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None = None
) -> Float[Tensor, ""]:
    """The mean of (a - b)^2 over all elements of the positions where `mask` is True.

    It is 0, with a zero gradient, if there is no such position. Nothing at a masked position, NaN
    included, reaches the value or a gradient.

    Example:
        >>> a = torch.tensor([[1.0], [torch.nan]])
        >>> mean_square(a, torch.zeros(2, 1), torch.tensor([True, False])).item()
        1.0
    """
    difference = a - b
    if mask is None:
        return difference.square().sum() / max(difference.numel(), 1)
    # The difference is masked, not its square: the square's gradient would be 0 * NaN.
    difference = torch.where(mask[..., None], difference, 0.0)
    return difference.square().sum() / (mask.sum().clamp_min(1) * difference.shape[-1])


def count_and_sum(
    z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"], size: int
) -> Float[Tensor, "size_times_1_plus_dim"]:
    """How many vectors each index has, then their sums, as one flat tensor (see `split_counts`).

    One tensor, because it is reduced over all ranks in one message.

    Args:
        z: The vectors; `dim` may be 0 to count only.
        indices: int64 in [0, size).
        mask: Which vectors count. What the others hold, NaN included, has no influence.
        size: How many different indices there are.
    """
    # Masked vectors fall into one more row, which is cut off: cheaper than a masked copy of `z`.
    row = torch.where(mask, indices, size)
    counts = z.new_zeros(size + 1).index_add_(0, row, z.new_ones(len(z)))
    sums = z.new_zeros(size + 1, z.shape[1]).index_add_(0, row, z)
    return torch.cat([counts[:size], sums[:size].flatten()])


def split_counts(
    statistics: Float[Tensor, "size_times_1_plus_dim"], size: int
) -> tuple[Float[Tensor, "size"], Float[Tensor, "size dim"]]:
    """The counts and the sums out of the flat tensor of `count_and_sum`."""
    return statistics[:size], statistics[size:].view(size, -1)
