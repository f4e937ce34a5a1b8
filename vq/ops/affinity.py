r"""Which vectors are near to a code: softmax of minus the squared distance over *vectors*, streamed.

Every function is given a mask of the vectors that count; what stands at the others, NaN included, has no
influence. No (vectors x codes) tensor is ever alive, and nothing waits for the device.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.ops.distance import common_centre, nearest_code

# Elements of one tile of scores, all vectors against some codes (4 MiB in float32 on a CPU).
CPU_TILE = 2**20
GPU_TILE = 2**24
# With very many vectors a tile still has this many codes, or the product would become one of vectors.
MIN_CODES = 16


def closest_vector(
    z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"], codes: Float[Tensor, "size dim"]
) -> tuple[Float[Tensor, "size"], Int[Tensor, "size"]]:
    """For each code minus the squared distance to its nearest vector, and that vector's row.

    Without any vector that counts, minus infinity and row 0.
    """
    if len(z) == 0:
        return codes.new_full((len(codes),), -torch.inf), codes.new_zeros(len(codes), dtype=torch.int64)
    # Vectors that do not count are replaced by one that does; the row may be that of a copy, so it is
    # translated back.
    rows = torch.where(mask, torch.arange(len(z), device=z.device), mask.long().argmax())
    filled = torch.where(mask.any(), z[rows], 0.0)
    found = rows[nearest_code(codes, filled)]
    nearness = -(torch.where(mask.any(), z[found], 0.0) - codes).square().sum(dim=1)
    return torch.where(mask.any(), nearness, -torch.inf), found


def log_affinity(
    z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"], codes: Float[Tensor, "size dim"]
) -> Float[Tensor, "size"]:
    r"""For each code e the log of $\sum_n \exp(-|z_n - e|^2)$; minus infinity without any vector."""
    centre = common_centre(codes)  # differences are the same, but keep their digits
    moved = codes - centre
    total: Tensor = _log_affinity(z - centre, mask, moved)
    return total - moved.square().sum(dim=1)


def draw_by_affinity(
    z: Float[Tensor, "n dim"],
    mask: Bool[Tensor, "n"],
    codes: Float[Tensor, "size dim"],
    uniform: Float[Tensor, "size"],
) -> Int[Tensor, "size"]:
    r"""For each code the row of a vector, drawn with probabilities in proportion to $\exp(-|z_n - e|^2)$.

    Args:
        z: The vectors.
        mask: Which of them can be drawn.
        codes: The codes.
        uniform: In [0, 1): what decides the draw, by the rows' cumulative probability.
    """
    centre = common_centre(codes)
    rows: Tensor = _draw_by_affinity(z - centre, mask, codes - centre, uniform)
    return rows


def _tiles(z: Tensor, mask: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, list[slice]]:
    """The vectors, the bias of their scores, and the slices of codes that make a tile each."""
    filled = torch.where(mask[:, None], z, 0.0)
    bias = torch.where(mask, -filled.square().sum(dim=1), -torch.inf)
    tile = CPU_TILE if z.device.type == "cpu" else GPU_TILE
    step = max(MIN_CODES, tile // max(len(z), 1))
    return filled, bias, [slice(start, start + step) for start in range(0, len(codes), step)]


@torch.library.custom_op(
    "vq::log_affinity", mutates_args=(), schema="(Tensor z, Tensor mask, Tensor codes) -> Tensor"
)
def _log_affinity(z: Tensor, mask: Tensor, codes: Tensor) -> Tensor:
    # Of the squared distance all but |e|^2, which a code's scores share.
    filled, bias, tiles = _tiles(z, mask, codes)
    totals = [torch.addmm(bias, codes[some], filled.T, alpha=2).logsumexp(dim=1) for some in tiles]
    return torch.cat(totals)


@_log_affinity.register_fake
def _(z: Tensor, mask: Tensor, codes: Tensor) -> Tensor:
    return codes.new_empty((codes.shape[0],))


@torch.library.custom_op(
    "vq::draw_by_affinity",
    mutates_args=(),
    schema="(Tensor z, Tensor mask, Tensor codes, Tensor uniform) -> Tensor",
)
def _draw_by_affinity(z: Tensor, mask: Tensor, codes: Tensor, uniform: Tensor) -> Tensor:
    filled, bias, tiles = _tiles(z, mask, codes)
    rows = []
    for some in tiles:
        scores = torch.addmm(bias, codes[some], filled.T, alpha=2)
        scores -= scores.amax(dim=1, keepdim=True)
        cumulative = scores.exp_().double().cumsum_(dim=1)
        target = uniform[some, None].double() * cumulative[:, -1:]
        rows.append(torch.searchsorted(cumulative, target, right=True)[:, 0].clamp_max(len(z) - 1))
    return torch.cat(rows)


@_draw_by_affinity.register_fake
def _(z: Tensor, mask: Tensor, codes: Tensor, uniform: Tensor) -> Tensor:
    return codes.new_empty((codes.shape[0],), dtype=torch.int64)
