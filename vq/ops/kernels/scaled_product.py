"""The product of a few vectors with a matrix of 8-bit weights, as a Triton kernel that reads them as 8 bits."""

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Shaped
from torch import Tensor

from vq.ops.kernels.tiles import LEAST_DEPTH, products

MOST_ROWS, COLUMNS, DEPTH = 64, 32, 128
"""The vectors, outputs and inputs of one tile; few outputs, so that even a small matrix occupies a GPU."""


def scaled_product(
    x: Float[Tensor, "n dim"], weight: Shaped[Tensor, "size dim"], scale: Float[Tensor, "size"]
) -> Float[Tensor, "n size"]:
    """Returns (x @ weight.T) * scale in float32, with the weights converted to the type of `x` tile by tile.

    Args:
        x: Vectors in bfloat16, float16 or float32, contiguous.
        weight: int8 or float8_e4m3fn, contiguous; both types fit into bfloat16 without rounding.
        scale: One float32 factor per row of the weights.
    """
    n, dim = x.shape
    size = len(weight)
    out = torch.empty((n, size), dtype=torch.float32, device=x.device)
    rows = min(MOST_ROWS, max(LEAST_DEPTH, triton.next_power_of_2(max(1, n))))
    depth = min(DEPTH, max(LEAST_DEPTH, triton.next_power_of_2(dim)))
    if n:
        _product[(triton.cdiv(n, rows), triton.cdiv(size, COLUMNS))](
            x, weight, scale, out, n, size, dim=dim, rows=rows, columns=COLUMNS, depth=depth, num_warps=4
        )
    return out


@triton.jit
def _product(  # noqa: PLR0917  # a kernel takes its arguments by position
    x: Any,
    weight: Any,
    scale: Any,
    out: Any,
    n: Any,
    size: Any,
    dim: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
) -> None:
    """Writes one tile of the scaled products."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    total = products(x, weight, row, column, n, size, dim, rows, columns, depth)
    total = total * tl.load(scale + column, mask=column < size, other=0.0)[None, :]
    where = row[:, None].to(tl.int64) * size + column[None, :]
    tl.store(out + where, total, mask=(row[:, None] < n) & (column[None, :] < size))
