"""The nearest code in one pass over the codebook, as a Triton kernel that writes no (vectors x codes) tensor."""

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from vq.ops.kernels.tiles import LEAST_DEPTH, products

ROWS, COLUMNS, DEPTH = 64, 64, 64
"""The vectors, codes and dimensions of one tile in shared memory."""

_PROGRAMS = 1024  # enough to occupy a large GPU; with fewer rows, the codebook is divided too


def nearest(
    z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"], half_norms: Float[Tensor, "size"]
) -> Int[Tensor, "n"]:
    """Returns for each vector the index of the code with the smallest `half_norm - z.code`.

    With half of each code's squared norm that is the nearest code, and with zeros the one with the largest inner
    product. Products of float32 are exact to float32 (no TF32); those of bfloat16 and float16 are summed in float32.

    Args:
        z: Vectors, contiguous.
        codes: Codes of the same type, contiguous; at least one.
        half_norms: float32 numbers to which the negative products are added.

    Returns:
        int64 indices; the lowest one among equal scores. A vector that is not finite gets some index in range.
    """
    n, dim = z.shape
    size = len(codes)
    blocks = triton.cdiv(n, ROWS)
    splits = max(1, min(triton.cdiv(size, COLUMNS), _PROGRAMS // max(1, blocks)))
    per_split = triton.cdiv(triton.cdiv(size, splits), COLUMNS) * COLUMNS
    splits = triton.cdiv(size, per_split)
    keys = torch.empty((splits, n), dtype=torch.int64, device=z.device)
    if n:
        depth = min(DEPTH, max(LEAST_DEPTH, triton.next_power_of_2(dim)))
        _search[(blocks, splits)](
            z, codes, half_norms, keys, n, size, per_split,
            dim=dim, rows=ROWS, columns=COLUMNS, depth=depth, num_warps=4,
        )  # fmt: skip
    return keys.amin(dim=0) & 0xFFFFFFFF


@triton.jit
def _search(  # noqa: PLR0917  # a kernel takes its arguments by position
    z: Any,
    codes: Any,
    half_norms: Any,
    keys: Any,
    n: Any,
    size: Any,
    per_split: Any,
    dim: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
) -> None:
    """Writes for some vectors and a part of the codes the smallest score and its index, as one sortable integer."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    first = tl.program_id(1) * per_split
    best = tl.full((rows,), float("inf"), tl.float32)
    index = tl.full((rows,), 0, tl.int32) + first
    for start in range(first, min(first + per_split, size), columns):
        column = start + tl.arange(0, columns)
        scores = -products(z, codes, row, column, n, size, dim, rows, columns, depth)
        scores += tl.load(half_norms + column, mask=column < size, other=float("inf"))[None, :]
        scores = tl.where((scores == scores) & (column[None, :] < size), scores, float("inf"))  # noqa: PLR0124  # no NaN
        smallest = tl.min(scores, axis=1)
        where = tl.min(tl.where(scores == smallest[:, None], column[None, :], size), axis=1)
        # Strictly smaller: a later code with an equal score never replaces a lower index.
        is_better = smallest < best
        best = tl.where(is_better, smallest, best)
        index = tl.where(is_better, where, index)
    # The bits of a float are made to sort as an integer; + 0.0 turns -0.0 into 0.0, which has other bits.
    bits = (best + 0.0).to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    key = (ordered.to(tl.int64) << 32) | index.to(tl.int64)
    tl.store(keys + tl.program_id(1).to(tl.int64) * n + row, key, mask=row < n)
