"""The precision in which formulas are computed."""

import torch
from jaxtyping import Shaped
from torch import Tensor


def at_least_float32(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Converts numbers to float32, except those in float64, which stay float64.

    Example:
        >>> at_least_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x.to(computed_in(x.dtype))


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """Returns float64 for float64, and float32 for every other dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32
