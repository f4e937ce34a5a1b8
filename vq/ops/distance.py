"""Nearest code by squared Euclidean distance, streamed: no (vectors x codes) tensor is ever alive."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

# One tile of scores at a time. On a CPU it stays in the last-level cache (8 MiB in float32); a GPU
# needs more rows to be busy (64 MiB).
CPU_TILE = (1024, 2048)
GPU_TILE = (4096, 4096)

# `min` with indices is about ten times slower than `amin` on a CPU, so the index is only searched
# inside the block of this many codes that holds the minimum.
CODES_PER_BLOCK = 64


def nearest_code(z: Float[Tensor, "n dim"], codebook: Float[Tensor, "size dim"]) -> Int[Tensor, "n"]:
    """For each vector the index of the code at the smallest Euclidean distance.

    Minimises |e|^2 / 2 - z.e: without |z|^2, which is the same for every code and would cost the
    digits in which close codes differ. Memory beyond the result is one tile of scores, whatever the
    number of vectors and codes. No gradient flows; `torch.compile` sees one opaque operator.

    Args:
        z: The vectors, float32 or float64. A vector that is not finite gets some index in range.
        codebook: The codes, at least one, in the dtype of `z`.

    Returns:
        int64 indices; among equally near codes the lowest.

    Example:
        >>> nearest_code(torch.tensor([[0.9], [0.1]]), torch.tensor([[0.0], [1.0], [1.0]]))
        tensor([1, 0])
    """
    found: Tensor = _nearest_code(z.detach(), codebook.detach(), True)
    return found


def largest_product(z: Float[Tensor, "n dim"], codebook: Float[Tensor, "size dim"]) -> Int[Tensor, "n"]:
    """For each vector the index of the code with the largest inner product; otherwise as `nearest_code`.

    Example:
        >>> largest_product(torch.tensor([[0.9], [-0.1]]), torch.tensor([[-1.0], [1.0], [5.0]]))
        tensor([2, 0])
    """
    found: Tensor = _nearest_code(z.detach(), codebook.detach(), False)
    return found


@torch.library.custom_op(
    "vq::nearest_code", mutates_args=(), schema="(Tensor z, Tensor codebook, bool by_distance=True) -> Tensor"
)
def _nearest_code(z: Tensor, codebook: Tensor, by_distance: bool = True) -> Tensor:
    rows, columns = CPU_TILE if z.device.type == "cpu" else GPU_TILE
    best = torch.full((len(z),), torch.inf, dtype=z.dtype, device=z.device)
    indices = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    tile = torch.empty(min(rows, len(z)) * min(columns, len(codebook)), dtype=z.dtype, device=z.device)
    for first in range(0, len(codebook), columns):
        codes = codebook[first : first + columns]
        half_norm = torch.linalg.vecdot(codes, codes) / 2 if by_distance else codes.new_zeros(len(codes))
        for start in range(0, len(z), rows):
            some = z[start : start + rows]
            out = tile[: len(some) * len(codes)].view(len(some), len(codes))
            scores = torch.addmm(half_norm, some, codes.T, alpha=-1, out=out)
            smallest, where = _row_minimum(scores)
            # Strictly smaller: an equal code further on never replaces a lower index.
            is_better = smallest < best[start : start + rows]
            torch.where(is_better, smallest, best[start : start + rows], out=best[start : start + rows])
            torch.where(
                is_better, where + first, indices[start : start + rows], out=indices[start : start + rows]
            )
    return indices


@_nearest_code.register_fake
def _(z: Tensor, codebook: Tensor, by_distance: bool = True) -> Tensor:
    return z.new_empty((z.shape[0],), dtype=torch.int64)


def _row_minimum(scores: Float[Tensor, "n k"]) -> tuple[Float[Tensor, "n"], Int[Tensor, "n"]]:
    """The minimum of each row and its first index."""
    n, k = scores.shape
    if scores.device.type != "cpu" or k % CODES_PER_BLOCK:
        smallest, where = scores.min(dim=1)
        return smallest, where
    blocks = scores.view(n, k // CODES_PER_BLOCK, CODES_PER_BLOCK)
    smallest, block = blocks.amin(dim=2).min(dim=1)
    inside = blocks.gather(1, block[:, None, None].expand(n, 1, CODES_PER_BLOCK))[:, 0]
    return smallest, inside.argmin(dim=1) + block * CODES_PER_BLOCK
