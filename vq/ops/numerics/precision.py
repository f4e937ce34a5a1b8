"""The precision in which formulas are computed."""

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def without_autocast(x: Shaped[Tensor, "..."]) -> Iterator[None]:
    """Disables autocast for the device of a tensor."""
    # The meta device has no autocast. Asking torch which devices have it breaks the graph before torch 2.12.
    if x.device.type == "meta":
        yield
        return
    with torch.autocast(x.device.type, enabled=False):
        yield
