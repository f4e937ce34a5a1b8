"""Several small numbers in one index and back: mixed radix, the first digit least significant.

This little-endian order is the only one inside this project. `reverse_digits` translates the
indices of a peer that puts the first digit on the most significant place.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from operator import mul

import torch
from jaxtyping import Int
from torch import Tensor


def place_values(levels: Sequence[int]) -> list[int]:
    """The weight of each digit: the product of the levels before it.

    Example:
        >>> place_values([8, 5, 3])
        [1, 8, 40]
    """
    return [1, *accumulate(levels, mul)][:-1]


def pack_digits(digits: Int[Tensor, "*lead digits"], levels: Int[Tensor, "digits"]) -> Int[Tensor, "*lead"]:
    """Joins digits into one index, in integer arithmetic: a float sum is wrong from 2^8 (bfloat16) on.

    Args:
        digits: int64, digit i in [0, levels[i]).
        levels: int64, how many values each digit has.

    Example:
        >>> pack_digits(torch.tensor([3, 4]), torch.tensor([8, 5]))
        tensor(35)
    """
    return (digits * _place_values(levels)).sum(dim=-1)


def unpack_digits(
    indices: Int[Tensor, "*lead"], levels: Int[Tensor, "digits"]
) -> Int[Tensor, "*lead digits"]:
    """Splits each index into its digits; the inverse of `pack_digits`.

    Example:
        >>> unpack_digits(torch.tensor(35), torch.tensor([8, 5]))
        tensor([3, 4])
    """
    return indices[..., None] // _place_values(levels) % levels


def reverse_digits(indices: Int[Tensor, "*lead"], levels: Sequence[int]) -> Int[Tensor, "*lead"]:
    """Translates big-endian indices into this project's, for codes with these levels.

    Applied to the result with the levels reversed, it gives the big-endian indices back.

    Args:
        indices: Indices whose first digit is the most significant one.
        levels: How many values each digit has, first digit first.

    Raises:
        ValueError: If an index is outside of what the levels can express.

    Example:
        >>> reverse_digits(torch.tensor([0b110]), [2, 2, 2])
        tensor([3])
    """
    size = math.prod(levels)
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < size:
        raise ValueError(
            f"reverse_digits: expected indices in [0, {size}), got {int(indices.min())} to "
            f"{int(indices.max())}; check the levels {list(levels)}"
        )
    big_endian_levels = torch.tensor(list(levels)[::-1], device=indices.device)
    digits = unpack_digits(indices, big_endian_levels).flip(-1)
    return pack_digits(digits, big_endian_levels.flip(0))


def _place_values(levels: Int[Tensor, "digits"]) -> Int[Tensor, "digits"]:
    return levels.cumprod(0) // levels
