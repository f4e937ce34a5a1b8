"""Sums and means over the vectors that count; padded positions, and batches without any vector, are handled."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def mean_square(
    a: Float[Tensor, "*lead dim"], b: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None = None
) -> Float[Tensor, ""]:
    """Computes the mean of (a - b)^2 over all elements of the positions where `mask` is True.

    It is 0, with a zero gradient, if there is no such position. Masked positions, even if they are NaN, reach neither
    the value nor a gradient.

    Example:
        >>> a = torch.tensor([[1.0], [torch.nan]])
        >>> mean_square(a, torch.zeros(2, 1), torch.tensor([True, False])).item()
        1.0
    """
    if mask is None:
        # For its gradient mse_loss keeps `a` and `b`, which are in memory anyway, not their difference.
        return F.mse_loss(a, b, reduction="sum") / max(a.numel(), 1)
    # The difference is masked, not its square, whose gradient would be 0 * NaN.
    difference = torch.where(mask[..., None], a - b, 0.0)
    return difference.square().sum() / (mask.sum().clamp_min(1) * difference.shape[-1])


def count_and_sum(
    z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"], size: int
) -> Float[Tensor, "flat"]:
    """Counts the vectors of each index and sums them, as one flat tensor (see `split_counts`).

    It is one tensor so that ranks reduce it in one message.

    Args:
        z: Vectors; `dim` may be 0 to count only.
        indices: int64 indices in [0, size).
        mask: True for the vectors that count; the others, even if they are NaN, have no influence.
        size: Number of different indices.
    """
    # Masked vectors are added to an extra row that is never read, which is cheaper than a masked copy of `z`.
    row = torch.where(mask, indices, size)
    flat = z.new_zeros((size + 1) * (1 + z.shape[1]))
    flat[: size + 1].index_add_(0, row, z.new_ones(len(z)))
    flat[size + 1 :].view(size + 1, z.shape[1]).index_add_(0, row, z)
    return flat


def split_counts(
    flat: Float[Tensor, "flat"], size: int
) -> tuple[Float[Tensor, "size"], Float[Tensor, "size dim"]]:
    """Returns the counts and the sums, as views into the flat tensor of `count_and_sum`."""
    dim = len(flat) // (size + 1) - 1
    return flat[:size], flat[size + 1 :].view(size + 1, dim)[:size]
