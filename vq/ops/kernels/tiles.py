"""What the kernels share: the products of a tile of vectors with a tile of codes."""

from typing import Any

import triton
import triton.language as tl

LEAST_DEPTH = 16
"""The smallest side of a product of matrices in Triton."""


@triton.jit
def products(  # noqa: PLR0917  # a kernel takes its arguments by position
    z: Any,
    codes: Any,
    row: Any,
    column: Any,
    n: Any,
    size: Any,
    dim: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
) -> Any:
    """Computes a tile of z @ codes.T in float32 without TF32; rows and columns past the end are 0.

    Codes of another type are converted to that of `z`.
    """
    total = tl.zeros((rows, columns), tl.float32)
    for offset in range(0, dim, depth):
        channel = offset + tl.arange(0, depth)
        some_z = tl.load(
            z + row[:, None].to(tl.int64) * dim + channel[None, :],
            mask=(row[:, None] < n) & (channel[None, :] < dim),
            other=0.0,
        )
        some_codes = tl.load(
            codes + column[None, :].to(tl.int64) * dim + channel[:, None],
            mask=(column[None, :] < size) & (channel[:, None] < dim),
            other=0.0,
        )
        total = tl.dot(some_z, some_codes.to(some_z.dtype), total, input_precision="ieee")
    return total
