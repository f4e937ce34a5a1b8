"""The nearest code by squared Euclidean distance, computed in tiles without a (vectors x codes) tensor."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vq.ops.kernels import use_kernels
from vq.ops.numerics.precision import at_least_float32

# Rows and columns of one tile of scores. On a CPU a tile fits into the last-level cache (4 MiB in float32); a GPU
# needs larger tiles to be fully used (64 MiB).
CPU_TILE = (512, 2048)
GPU_TILE = (4096, 4096)

# On a CPU `min` with indices is about ten times slower than `amin`, so the index is only searched inside the block
# of this many codes that contains the minimum.
CODES_PER_BLOCK = 64


def nearest_code(z: Float[Tensor, "n dim"], codebook: Float[Tensor, "size dim"]) -> Int[Tensor, "n"]:
    """Returns for each vector the index of the code at the smallest Euclidean distance.

    It minimises |e|^2 / 2 - z.e with z and e relative to the mean of the codes. A common mean would cost the digits
    in which close codes differ, and so would |z|^2, which is the same for every code. On a CPU the vectors for
    which rounding could still decide between two codes are searched again in float64. So the result is that of
    exact arithmetic down to the rounding of float64, and does not depend on how the work is divided into tiles.

    Memory beyond the result is one tile of scores, whatever the number of vectors and codes, and a copy of the
    vectors that are searched again. The result has no gradient; to `torch.compile` the search is one opaque operator.

    Args:
        z: Vectors of any floating-point dtype. Those in bfloat16 and float16 are compared as they are, in float32. A
            vector that is not finite gets some index in range.
        codebook: Codes in the dtype of `z`; at least one.

    Returns:
        int64 indices; the lowest one among equally near codes.

    Example:
        >>> nearest_code(torch.tensor([[0.9], [0.1]]), torch.tensor([[0.0], [1.0], [1.0]]))
        tensor([1, 0])
    """
    return _nearest_code(at_least_float32(z.detach()), at_least_float32(codebook.detach()), True)


def largest_product(z: Float[Tensor, "n dim"], codebook: Float[Tensor, "size dim"]) -> Int[Tensor, "n"]:
    """Returns for each vector the index of the code with the largest inner product, as exactly as `nearest_code`.

    Example:
        >>> largest_product(torch.tensor([[0.9], [-0.1]]), torch.tensor([[-1.0], [1.0], [5.0]]))
        tensor([2, 0])
    """
    return _nearest_code(at_least_float32(z.detach()), at_least_float32(codebook.detach()), False)


def nearest_codes(
    z: Float[Tensor, "n dim"], codebook: Float[Tensor, "size dim"], count: int
) -> Int[Tensor, "n count"]:
    """Returns for each vector the indices of the `count` nearest codes, the nearest first.

    If `count` is more than 1, rounding decides the order of codes that are almost equally near. Memory beyond the
    result is one tile of scores, whatever the number of vectors. The result has no gradient; to `torch.compile` the
    search is one opaque operator.

    Args:
        z: Vectors of any floating-point dtype. A vector that is not finite gets some indices in range.
        codebook: Codes in the dtype of `z`.
        count: Number of codes for each vector, from 1 to the number of codes.

    Example:
        >>> nearest_codes(torch.tensor([[0.9], [0.1]]), torch.tensor([[0.0], [1.0], [3.0]]), 2)
        tensor([[1, 0],
                [0, 1]])
    """
    if count == 1:
        return nearest_code(z, codebook)[:, None]
    return _nearest_codes(at_least_float32(z.detach()), at_least_float32(codebook.detach()), count)


def nearest_codes_at_once(
    z: Float[Tensor, "n dim"], codebook: Float[Tensor, "size dim"], count: int
) -> Int[Tensor, "n count"]:
    """Does the same as `nearest_codes` from a (vectors x codes) tensor of scores."""
    near, codes = centred(z, codebook)
    scores = codes.square().sum(dim=1) / 2 - near @ codes.T
    return scores.topk(count, dim=1, largest=False).indices


def common_centre(codes: Float[Tensor, "size dim"]) -> Float[Tensor, "dim"]:
    """Computes the mean of the codes, without a gradient; 0 in channels in which it is not finite.

    A result that depends only on differences of vectors and codes, or for each vector only on differences of its
    products with codes, stays the same if the centre is subtracted, and loses fewer digits.
    """
    mean = codes.detach().mean(dim=0)
    return torch.where(mean.isfinite(), mean, 0.0)


def centred(
    z: Float[Tensor, "n dim"], codes: Float[Tensor, "size dim"]
) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "size dim"]]:
    """Subtracts the codes' `common_centre` from vectors and codes."""
    centre = common_centre(codes)
    return z - centre, codes - centre


@torch.library.custom_op(
    "vq::nearest_code", mutates_args=(), schema="(Tensor z, Tensor codebook, bool by_distance=True) -> Tensor"
)
def _nearest_code(z: Tensor, codebook: Tensor, by_distance: bool = True) -> Tensor:
    if use_kernels(z.device) and z.dtype == torch.float32:
        return _by_kernel(z, codebook, by_distance)
    codes = _measured(codebook, by_distance)
    found = _search(z, codes, z.dtype)
    if (
        z.device.type != "cpu"
    ):  # the rest reads values, for which the host would have to wait for another device
        return found.indices
    rows = found.doubtful()
    if len(rows):
        found.indices[rows] = _exactly(z[rows], codes)
    return found.indices


@_nearest_code.register_fake
def _(z: Tensor, codebook: Tensor, by_distance: bool = True) -> Tensor:
    return z.new_empty((z.shape[0],), dtype=torch.int64)


@torch.library.custom_op(
    "vq::nearest_codes", mutates_args=(), schema="(Tensor z, Tensor codebook, int count) -> Tensor"
)
def _nearest_codes(z: Tensor, codebook: Tensor, count: int) -> Tensor:
    height, width = CPU_TILE if z.device.type == "cpu" else GPU_TILE
    rows = max(1, height * width // len(codebook))
    return torch.cat([nearest_codes_at_once(some, codebook, count) for some in torch.split(z, rows)])


@_nearest_codes.register_fake
def _(z: Tensor, codebook: Tensor, count: int) -> Tensor:
    return z.new_empty((z.shape[0], count), dtype=torch.int64)


def _by_kernel(
    z: Float[Tensor, "n dim"], codebook: Float[Tensor, "size dim"], by_distance: bool
) -> Int[Tensor, "n"]:
    """Searches on a GPU without writing scores to memory, with the same centre."""
    from vq.ops.kernels.nearest import nearest

    centre = common_centre(codebook)
    codes = (codebook - centre).contiguous()
    half_norms = torch.linalg.vecdot(codes, codes) / 2 if by_distance else codes.new_zeros(len(codes))
    return nearest((z - centre if by_distance else z).contiguous(), codes, half_norms)


class _Codes(NamedTuple):
    """Holds the codes to be searched, with what all searches among them need.

    Args:
        all: The codes.
        centre: Subtracted from them.
        longest: Largest distance of a code from the centre.
        by_distance: Whether the nearest code is searched, and not the largest product.
    """

    all: Float[Tensor, "size dim"]
    centre: Float[Tensor, "dim"]
    longest: Float[Tensor, ""]
    by_distance: bool


def _measured(codebook: Float[Tensor, "size dim"], by_distance: bool) -> _Codes:
    centre = common_centre(codebook)
    return _Codes(codebook, centre, _lengths(codebook, centre).max(), by_distance)


class _Found(NamedTuple):
    """Holds the result of a search.

    Args:
        indices: Codes with the smallest scores.
        best: Smallest scores.
        runner_up: Smallest scores of the other codes.
        margin: Largest change by rounding of the difference of two scores.
    """

    indices: Int[Tensor, "n"]
    best: Float[Tensor, "n"]
    runner_up: Float[Tensor, "n"]
    margin: Float[Tensor, "n"]

    def doubtful(self) -> Int[Tensor, "some"]:
        """Returns the rows in which rounding may have decided."""
        return (self.runner_up <= self.best + self.margin).nonzero()[:, 0]


def _search(z: Float[Tensor, "n dim"], codes: _Codes, dtype: torch.dtype) -> _Found:
    """Searches the smallest score of each row in the precision `dtype`."""
    best, runner_up = (torch.empty(len(z), dtype=dtype, device=z.device) for _ in range(2))
    indices = torch.empty(len(z), dtype=torch.int64, device=z.device)
    for rows, first, scores in _tiles(z, codes, dtype):
        smallest, where, second = _two_smallest(scores)
        if first == 0:
            best[rows], runner_up[rows], indices[rows] = smallest, second, where
            continue
        # Strictly smaller: a later code with an equal score never replaces a lower index.
        is_better = smallest < best[rows]
        other = torch.where(is_better, best[rows], smallest)
        runner_up[rows] = torch.minimum(other, torch.where(is_better, second, runner_up[rows]))
        best[rows] = torch.where(is_better, smallest, best[rows])
        indices[rows] = torch.where(is_better, where + first, indices[rows])
    return _Found(indices, best, runner_up, _margin(z, codes, best))


def _exactly(z: Float[Tensor, "n dim"], codes: _Codes) -> Int[Tensor, "n"]:
    """Searches in float64 on a CPU, and without matrix products where even float64 could decide by rounding."""
    found = _search(z, codes, torch.float64)
    rows = found.doubtful()
    if len(rows) == 0:
        return found.indices
    different = _first_of_equals(codes.all)
    if len(different) < len(codes.all):
        found.indices[rows] = different[_exactly(z[rows], codes._replace(all=codes.all[different]))]
    else:
        found.indices[rows] = _one_by_one(z[rows], codes.all, codes.by_distance)
    return found.indices


def _first_of_equals(codebook: Float[Tensor, "size dim"]) -> Int[Tensor, "some"]:
    """Returns the lowest index of each different code, in ascending order."""
    unique, group = torch.unique(codebook, dim=0, return_inverse=True)
    first = torch.full((len(unique),), len(codebook), device=codebook.device)
    first.scatter_reduce_(0, group, torch.arange(len(codebook), device=codebook.device), "amin")
    return first.sort().values


def _one_by_one(
    z: Float[Tensor, "n dim"], codebook: Float[Tensor, "size dim"], by_distance: bool
) -> Int[Tensor, "n"]:
    """Computes each score from its vector and code alone, so that equal scores are equal bit for bit."""
    codes, indices = codebook.double(), []
    for some in torch.split(z.double(), max(1, CPU_TILE[0] * CPU_TILE[1] // codes.numel())):
        pairs = some[:, None]
        scores = (pairs - codes).square().sum(dim=2) if by_distance else -(pairs * codes).sum(dim=2)
        indices.append(scores.argmin(dim=1))
    return torch.cat(indices)


def _tiles(
    z: Float[Tensor, "n dim"], codes: _Codes, dtype: torch.dtype
) -> Iterator[tuple[slice, int, Float[Tensor, "rows columns"]]]:
    """Yields rows, first code and scores (smaller is better) of each tile; all tiles use the same memory."""
    height, width = CPU_TILE if z.device.type == "cpu" else GPU_TILE
    tile = torch.empty(min(height, len(z)) * min(width, len(codes.all)), dtype=dtype, device=z.device)
    centre = codes.centre.to(dtype)
    for first, last in _column_ranges(len(codes.all), width, z.device.type):
        column = codes.all[first:last].to(dtype) - centre
        half_norm = (
            torch.linalg.vecdot(column, column) / 2 if codes.by_distance else column.new_zeros(len(column))
        )
        for start in range(0, len(z), height):
            some = z[start : start + height].to(dtype)
            some = some - centre if codes.by_distance else some
            out = tile[: len(some) * len(column)].view(len(some), len(column))
            scores = torch.addmm(half_norm, some, column.T, alpha=-1, out=out)
            yield slice(start, start + height), first, scores


def _column_ranges(size: int, width: int, device: str) -> Iterator[tuple[int, int]]:
    """Yields first and last code of each column of tiles; on a CPU whole blocks first, then the rest."""
    whole = size // CODES_PER_BLOCK * CODES_PER_BLOCK if device == "cpu" and width >= CODES_PER_BLOCK else 0
    bounds = [*range(0, whole, width), *range(whole, size, width), size]
    yield from itertools.pairwise(bounds)


def _two_smallest(
    scores: Float[Tensor, "n k"],
) -> tuple[Float[Tensor, "n"], Int[Tensor, "n"], Float[Tensor, "n"]]:
    """Returns the minimum of each row, its first index, and the second smallest score (infinity except on a CPU)."""
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
    """Returns the minimum of each row without one of its entries, which is overwritten."""
    return scores.scatter_(1, where[:, None], torch.inf).amin(dim=1)


def _margin(z: Float[Tensor, "n dim"], codes: _Codes, best: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Bounds the rounding error of the difference of two scores either of which may be the best of its row."""
    dim, eps = z.shape[1], torch.finfo(best.dtype).eps
    longest = codes.longest.to(best.dtype)
    lengths = _lengths(z, codes.centre if codes.by_distance else None).to(best.dtype)
    if not codes.by_distance:
        return (dim + 8) * eps * longest * lengths
    # A code at least as near as the best one has at most the length |z| plus the distance.
    distance = (lengths.square() + 2 * best).clamp_min(0).sqrt()
    reach = torch.minimum(longest, 2 * (lengths + distance))
    return (dim + 8) * eps * reach * (lengths + reach)


def _lengths(vectors: Float[Tensor, "n dim"], origin: Float[Tensor, "dim"] | None) -> Float[Tensor, "n"]:
    parts = torch.split(vectors, CPU_TILE[0])
    lengths = [torch.linalg.vector_norm(part if origin is None else part - origin, dim=1) for part in parts]
    return torch.cat(lengths) if lengths else vectors.new_zeros(0)
