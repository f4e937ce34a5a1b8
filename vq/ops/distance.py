"""Nearest code by squared Euclidean distance, streamed: no (vectors x codes) tensor is ever alive."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

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

    Minimises |e|^2 / 2 - z.e with z and e relative to the mean of the codes: a mean that all share would cost the
    digits in which close codes differ, and so would |z|^2, which is the same for every code. On a CPU the vectors
    for which rounding could still decide between two codes are searched again in float64, so the result is that
    of exact arithmetic down to float64's rounding, and does not depend on how the work is divided into tiles.

    Memory beyond the result is one tile of scores, whatever the number of vectors and codes, and a copy of the
    vectors that are searched again. No gradient flows; `torch.compile` sees one opaque operator.

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


def common_centre(codes: Float[Tensor, "size dim"]) -> Float[Tensor, "dim"]:
    """The mean of the codes, without a gradient; 0 in channels where it is not finite.

    Whatever depends on differences of vectors and codes only, or for each vector on differences of products with
    codes, is the same relative to it, and is computed there with all its digits.
    """
    mean = codes.detach().mean(dim=0)
    return torch.where(mean.isfinite(), mean, 0.0)


def centred(
    z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"]
) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "size dim"]]:
    """Vectors and codes relative to the codes' `common_centre`."""
    centre = common_centre(codes)
    return z - centre, codes - centre


@torch.library.custom_op(
    "vq::nearest_code", mutates_args=(), schema="(Tensor z, Tensor codebook, bool by_distance=True) -> Tensor"
)
def _nearest_code(z: Tensor, codebook: Tensor, by_distance: bool = True) -> Tensor:
    found = _search(z, codebook, by_distance, z.dtype)
    if z.device.type != "cpu":  # what follows looks at values, for which another device would have to wait
        return found.indices
    rows = found.doubtful()
    if len(rows):
        found.indices[rows] = _exactly(z[rows], codebook, by_distance)
    return found.indices


@_nearest_code.register_fake
def _(z: Tensor, codebook: Tensor, by_distance: bool = True) -> Tensor:
    return z.new_empty((z.shape[0],), dtype=torch.int64)


class _Found(NamedTuple):
    """The result of a search.

    Args:
        indices: Of the smallest scores.
        best: Those scores.
        runner_up: The smallest scores of the other codes.
        margin: How far two scores may change places by rounding.
    """

    indices: Int[Tensor, "n"]
    best: Float[Tensor, "n"]
    runner_up: Float[Tensor, "n"]
    margin: Float[Tensor, "n"]

    def doubtful(self) -> Int[Tensor, "some"]:
        """The rows in which rounding may have decided."""
        return (self.runner_up <= self.best + self.margin).nonzero()[:, 0]


def _search(z: Tensor, codebook: Tensor, by_distance: bool, dtype: torch.dtype) -> _Found:
    """The smallest score of each row, in the precision `dtype`."""
    best, runner_up = (torch.full((len(z),), torch.inf, dtype=dtype, device=z.device) for _ in range(2))
    indices = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    for rows, first, scores in _tiles(z, codebook, by_distance, dtype):
        smallest, where, second = _two_smallest(scores)
        # Strictly smaller: an equal code further on never replaces a lower index.
        is_better = smallest < best[rows]
        other = torch.where(is_better, best[rows], smallest)
        runner_up[rows] = torch.minimum(other, torch.where(is_better, second, runner_up[rows]))
        best[rows] = torch.where(is_better, smallest, best[rows])
        indices[rows] = torch.where(is_better, where + first, indices[rows])
    return _Found(indices, best, runner_up, _margin(z, codebook, best, by_distance))


def _exactly(z: Tensor, codebook: Tensor, by_distance: bool) -> Int[Tensor, "n"]:
    """The search in float64, on a CPU; where even that could decide between two codes, without a product."""
    found = _search(z, codebook, by_distance, torch.float64)
    rows = found.doubtful()
    if len(rows) == 0:
        return found.indices
    different = _first_of_equals(codebook)
    if len(different) < len(codebook):
        found.indices[rows] = different[_exactly(z[rows], codebook[different], by_distance)]
    else:
        found.indices[rows] = _one_by_one(z[rows], codebook, by_distance)
    return found.indices


def _first_of_equals(codebook: Tensor) -> Int[Tensor, "some"]:
    """The lowest index of each different code, ascending."""
    unique, group = torch.unique(codebook, dim=0, return_inverse=True)
    first = torch.full((len(unique),), len(codebook), device=codebook.device)
    first.scatter_reduce_(0, group, torch.arange(len(codebook), device=codebook.device), "amin")
    return first.sort().values


def _one_by_one(z: Tensor, codebook: Tensor, by_distance: bool) -> Int[Tensor, "n"]:
    """Each score from the vector and the code alone, so that equal ones are equal to the bit."""
    codes, indices = codebook.double(), []
    for some in torch.split(z.double(), max(1, CPU_TILE[0] * CPU_TILE[1] // codes.numel())):
        pairs = some[:, None]
        scores = (pairs - codes).square().sum(dim=2) if by_distance else -(pairs * codes).sum(dim=2)
        indices.append(scores.argmin(dim=1))
    return torch.cat(indices)


def _tiles(
    z: Tensor, codebook: Tensor, by_distance: bool, dtype: torch.dtype
) -> Iterator[tuple[slice, int, Float[Tensor, "rows columns"]]]:
    """Rows, first code and scores (the smaller the better) of one tile after another; they share their memory."""
    height, width = CPU_TILE if z.device.type == "cpu" else GPU_TILE
    tile = torch.empty(min(height, len(z)) * min(width, len(codebook)), dtype=dtype, device=z.device)
    centre = common_centre(codebook).to(dtype)
    for first, last in _column_ranges(len(codebook), width, z.device.type):
        codes = codebook[first:last].to(dtype) - centre
        half_norm = torch.linalg.vecdot(codes, codes) / 2 if by_distance else codes.new_zeros(len(codes))
        for start in range(0, len(z), height):
            some = z[start : start + height].to(dtype)
            some = some - centre if by_distance else some
            out = tile[: len(some) * len(codes)].view(len(some), len(codes))
            scores = torch.addmm(half_norm, some, codes.T, alpha=-1, out=out)
            yield slice(start, start + height), first, scores


def _column_ranges(size: int, width: int, device: str) -> Iterator[tuple[int, int]]:
    """The codes of each column of tiles; on a CPU whole blocks first, then what is left."""
    whole = size // CODES_PER_BLOCK * CODES_PER_BLOCK if device == "cpu" and width >= CODES_PER_BLOCK else 0
    bounds = [*range(0, whole, width), *range(whole, size, width), size]
    yield from itertools.pairwise(bounds)


def _two_smallest(
    scores: Float[Tensor, "n k"],
) -> tuple[Float[Tensor, "n"], Int[Tensor, "n"], Float[Tensor, "n"]]:
    """The minimum of each row, its first index, and the smallest of the others (on a CPU; else not looked for)."""
    n, k = scores.shape
    if scores.device.type != "cpu":
        smallest, where = scores.min(dim=1)
        return smallest, where, torch.full_like(smallest, torch.inf)
    if k % CODES_PER_BLOCK:
        smallest, where = scores.min(dim=1)
        return smallest, where, _without(scores, where)
    blocks = scores.view(n, k // CODES_PER_BLOCK, CODES_PER_BLOCK)
    minima = blocks.amin(dim=2)
    smallest, block = minima.min(dim=1)
    inside = blocks.gather(1, block[:, None, None].expand(n, 1, CODES_PER_BLOCK))[:, 0]
    where = inside.argmin(dim=1)
    second = torch.minimum(_without(minima, block), _without(inside, where))
    return smallest, where + block * CODES_PER_BLOCK, second


def _without(scores: Float[Tensor, "n k"], where: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The minimum of each row without one of its entries; the entry is overwritten."""
    return scores.scatter_(1, where[:, None], torch.inf).amin(dim=1)


def _margin(z: Tensor, codebook: Tensor, best: Float[Tensor, "n"], by_distance: bool) -> Float[Tensor, "n"]:
    """By how much rounding can change the difference of the scores of two codes that may be a row's best."""
    dim, eps = z.shape[1], torch.finfo(best.dtype).eps
    centre = common_centre(codebook)
    longest = _lengths(codebook, centre).max().to(best.dtype)
    lengths = _lengths(z, centre if by_distance else None).to(best.dtype)
    if not by_distance:
        return (dim + 8) * eps * longest * lengths
    # A code at least as near as the best one is no longer than |z| and the distance together.
    distance = (lengths.square() + 2 * best).clamp_min(0).sqrt()
    reach = torch.minimum(longest, 2 * (lengths + distance))
    return (dim + 8) * eps * reach * (lengths + reach)


def _lengths(vectors: Tensor, origin: Tensor | None) -> Float[Tensor, "n"]:
    parts = torch.split(vectors, CPU_TILE[0])
    lengths = [torch.linalg.vector_norm(part if origin is None else part - origin, dim=1) for part in parts]
    return torch.cat(lengths) if lengths else vectors.new_zeros(0)
