"""Packing several small numbers into one index and back: mixed radix, the first digit the least significant.

This little-endian order is the only one inside this project. `reverse_digits` converts the indices of other
implementations, whose first digit is the most significant one.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from operator import mul

import torch
from jaxtyping import Float, Int
from torch import Tensor


def place_values(levels: Sequence[int]) -> list[int]:
    """Returns the weight of each digit: the product of the levels before it.

    Example:
        >>> place_values([8, 5, 3])
        [1, 8, 40]
    """
    return [1, *accumulate(levels, mul)][:-1]


def pack_digits(digits: Int[Tensor, "*lead digits"], levels: Int[Tensor, "digits"]) -> Int[Tensor, "*lead"]:
    """Packs digits into one index in integer arithmetic; a floating-point sum is inexact from 2^8 (bfloat16) on.

    Args:
        digits: int64 digits; digit i is in [0, levels[i]).
        levels: int64 number of values of each digit.

    Example:
        >>> pack_digits(torch.tensor([3, 4]), torch.tensor([8, 5]))
        tensor(35)
    """
    return (digits * _place_values(levels)).sum(dim=-1)


def unpack_digits(
    indices: Int[Tensor, "*lead"], levels: Int[Tensor, "digits"]
) -> Int[Tensor, "*lead digits"]:
    """Splits each index into its digits: the inverse of `pack_digits`.

    Example:
        >>> unpack_digits(torch.tensor(35), torch.tensor([8, 5]))
        tensor([3, 4])
    """
    return indices[..., None] // _place_values(levels) % levels


def reverse_digits(indices: Int[Tensor, "*lead"], levels: Sequence[int]) -> Int[Tensor, "*lead"]:
    """Converts big-endian indices of codes with these levels to the little-endian ones of this project.

    Applied to the result with the levels reversed, it returns the big-endian indices.

    Args:
        indices: Indices whose first digit is the most significant one.
        levels: Number of values of each digit, first digit first.

    Raises:
        ValueError: If an index is out of the range of the levels.

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


def bits_of_float32(x: Float[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Returns the 32 bits of each float32 number, as an int64 number in [0, 2^32).

    Example:
        >>> bits_of_float32(torch.tensor([1.0, -2.0]))
        tensor([1065353216, 3221225472])
    """
    return x.contiguous().view(torch.int32).long() & (2**32 - 1)


def float32_of_bits(bits: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Returns the float32 number with these 32 bits: the inverse of `bits_of_float32`."""
    return torch.where(bits >= 2**31, bits - 2**32, bits).to(torch.int32).view(torch.float32)


def _place_values(levels: Int[Tensor, "digits"]) -> Int[Tensor, "digits"]:
    return levels.cumprod(0) // levels
