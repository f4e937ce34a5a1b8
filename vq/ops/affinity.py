"""Softmax over *vectors* of minus their squared distance to a code: which vectors are near to each code.

All functions take a mask of the vectors that count; masked vectors, even if they are NaN, have no influence. They
work in tiles, so that no (vectors x codes) tensor exists, and never wait for the device.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.ops.distance import common_centre, nearest_code

# Elements of one tile of scores of all vectors and some codes (4 MiB in float32 on a CPU).
CPU_TILE = 2**20
GPU_TILE = 2**24
# Minimum number of codes in a tile: with very many vectors a tile would shrink to single codes, which is slow.
MIN_CODES = 16


def closest_vector(
    z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"], codes: Float[Tensor, "size dim"]
) -> tuple[Float[Tensor, "size"], Int[Tensor, "size"]]:
    """Returns for each code minus the squared distance to its nearest vector, and the row of that vector.

    If no vector counts, these are minus infinity and 0.
    """
    if len(z) == 0:
        return codes.new_full((len(codes),), -torch.inf), codes.new_zeros(len(codes), dtype=torch.int64)
    # Masked vectors are replaced by copies of one that counts; `rows` maps the row of a copy to that of the original.
    rows = torch.where(mask, torch.arange(len(z), device=z.device), mask.long().argmax())
    filled = torch.where(mask.any(), z[rows], 0.0)
    found = rows[nearest_code(codes, filled)]
    nearness = -(torch.where(mask.any(), z[found], 0.0) - codes).square().sum(dim=1)
    return torch.where(mask.any(), nearness, -torch.inf), found


def log_affinity(
    z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"], codes: Float[Tensor, "size dim"]
) -> Float[Tensor, "size"]:
    r"""Computes for each code e the log of $\sum_n \exp(-|z_n - e|^2)$; minus infinity without any vector."""
    centre = common_centre(codes)  # differences are the same, but lose fewer digits
    moved = codes - centre
    return _log_affinity(z - centre, mask, moved) - moved.square().sum(dim=1)


def draw_by_affinity(
    z: Float[Tensor, "n dim"],
    mask: Bool[Tensor, "n"],
    codes: Float[Tensor, "size dim"],
    uniform: Float[Tensor, "size"],
) -> Int[Tensor, "size"]:
    r"""Draws for each code the row of a vector, with probabilities proportional to $\exp(-|z_n - e|^2)$.

    Args:
        z: Vectors.
        mask: True for the vectors that can be drawn.
        codes: Codes.
        uniform: Random number in [0, 1) for each code, which selects a row by the cumulative probability of the rows.
    """
    centre = common_centre(codes)
    return _draw_by_affinity(z - centre, mask, codes - centre, uniform)


def _tiles(
    z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"], codes: Float[Tensor, "size dim"]
) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n"], list[slice]]:
    """Returns the vectors, the bias of their scores, and the slices of codes that make up the tiles."""
    filled = torch.where(mask[:, None], z, 0.0)
    bias = torch.where(mask, -filled.square().sum(dim=1), -torch.inf)
    tile = CPU_TILE if z.device.type == "cpu" else GPU_TILE
    step = max(MIN_CODES, tile // max(len(z), 1))
    return filled, bias, [slice(start, start + step) for start in range(0, len(codes), step)]


@torch.library.custom_op(
    "vq::log_affinity", mutates_args=(), schema="(Tensor z, Tensor mask, Tensor codes) -> Tensor"
)
def _log_affinity(z: Tensor, mask: Tensor, codes: Tensor) -> Tensor:
    # The scores leave out |e|^2, which all scores of a code have in common.
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
