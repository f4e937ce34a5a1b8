"""Conversion of integers of any type to int64, without rounding, truncation or overflow."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from vq.errors import UserError


class IntegerError(UserError, ValueError):
    """Raised for numbers that are not of an integer type or do not fit into int64."""


def as_int64(
    name: str, values: Shaped[Tensor, "*shape"] | Sequence[Any], *, device: torch.device | None = None
) -> Int64[Tensor, "*shape"]:
    """Converts a tensor of any integer type, or Python's or NumPy's integers, to int64.

    Args:
        name: Name of the numbers in error messages.
        values: Integers in [-2^63, 2^63).
        device: Device of the result; None keeps the device of a tensor.

    Raises:
        IntegerError: If they are floats, complex numbers or booleans, or one does not fit into int64.

    Example:
        >>> as_int64("labels", torch.tensor([3, 4], dtype=torch.uint8))
        tensor([3, 4])
    """
    if isinstance(values, Tensor):
        kind = values.dtype
        if kind == torch.bool or kind.is_floating_point or kind.is_complex:
            raise IntegerError(
                f"{name}: expected integers, got a tensor of {kind}; if that is intended, convert it with .long()"
            )
        whole = values.to(device=device or values.device, dtype=torch.int64)
        if kind == torch.uint64 and bool((whole < 0).any()):
            raise IntegerError(f"{name}: expected numbers below 2^63, got larger uint64 numbers")
        return whole
    return torch.tensor([_whole(name, value) for value in values], dtype=torch.int64, device=device)


def _whole(name: str, value: Any) -> int:
    try:
        number = None if isinstance(value, bool | np.bool) else operator.index(value)  # also NumPy's integers
    except TypeError:
        number = None
    if number is None:
        raise IntegerError(f"{name}: expected integers, got {value!r} of the type {type(value).__name__}")
    if not -(2**63) <= number < 2**63:
        raise IntegerError(f"{name}: expected numbers from -2^63 to 2^63 - 1, got {number}")
    return number
