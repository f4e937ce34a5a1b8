"""In which precision formulas are computed."""

import torch
from jaxtyping import Shaped
from torch import Tensor


def at_least_float32(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The same numbers in float32, or in float64 if they are float64 already.

    Example:
        >>> at_least_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x.to(computed_in(x.dtype))


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for every other type."""
    return torch.float64 if dtype == torch.float64 else torch.float32
