"""Positional encodings: how a transformer knows where in the image a token is."""

from abc import ABC
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vq.ops.numerics.precision import at_least_float32
from vq.registry import LAYERS

Places = Int[Tensor, "n 2"]
"""Row and column of each token in its grid."""


class Positions(nn.Module, ABC):
    """Encodes the positions of tokens in a grid of any size: once in the input of a transformer, or in every block.

    Subclasses override one of the two methods. Tokens without a position are not passed to it.
    """

    def add(
        self, tokens: Float[Tensor, "b n c"], places: Places, grid: tuple[int, int]
    ) -> Float[Tensor, "b n c"]:
        """Adds the positions to the tokens; the default returns them unchanged.

        Args:
            tokens: Input tokens of the transformer.
            places: Row and column of each token.
            grid: Number of rows and columns.
        """
        return tokens

    def rotate(self, x: Float[Tensor, "b heads n dim"], places: Places) -> Float[Tensor, "b heads n dim"]:
        """Encodes the positions in the queries or keys of a block; the default returns them unchanged.

        Args:
            x: Queries or keys.
            places: Row and column of each token.
        """
        return x


@LAYERS.register_module()
class SineCosinePositions(Positions):
    """Adds fixed sines and cosines to the tokens: half of the channels encode the row, half the column; for any grid.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5, for two axes as in MAE
        (He et al. 2021, https://arxiv.org/abs/2111.06377).
    Differs from the source: nothing.
    """

    def add(
        self, tokens: Float[Tensor, "b n c"], places: Places, grid: tuple[int, int]
    ) -> Float[Tensor, "b n c"]:
        """Adds the sines and cosines of each token's row and column.

        Raises:
            ValueError: If the width of the tokens is not a multiple of 4.
        """
        width = tokens.shape[-1]
        if width % 4:
            raise ValueError(f"SineCosinePositions: expected a width that is a multiple of 4, got {width}")
        return tokens + waves(places, width).to(tokens.dtype)


@LAYERS.register_module()
class RotaryPositions(Positions):
    """Rotates queries and keys by angles proportional to row and column; products depend on differences only.

    The first half of the channels of a head is rotated by the row, the second by the column, in pairs of decreasing
    frequency. It works for any grid.

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, eq. 34, for two axes.
    Differs from the source: two axes; pairs are channels i and i + dim / 4 of the half of an axis.

    Args:
        base: Ratio of the fastest and the slowest frequency, approximately; the slowest wave is about `base` * 2 pi
            tokens long.

    Raises:
        ValueError: If `base` is not above 1.
    """

    def __init__(self, *, base: float = 100.0) -> None:
        super().__init__()
        if not base > 1:
            raise ValueError(f"RotaryPositions: expected a base above 1, got {base}")
        self.base = base

    def rotate(self, x: Float[Tensor, "b heads n dim"], places: Places) -> Float[Tensor, "b heads n dim"]:
        """Rotates pairs of channels by the angles of each token's row and column.

        Raises:
            ValueError: If the number of channels of a head is not a multiple of 4.
        """
        dim = x.shape[-1]
        if dim % 4:
            raise ValueError(f"RotaryPositions: expected heads of a multiple of 4 channels, got {dim}")
        angle = angles(places, dim // 4, self.base)  # (n, axis, dim / 4)
        first, second = at_least_float32(x).reshape(*x.shape[:-1], 2, 2, dim // 4).unbind(-2)
        rotated = torch.stack(
            [first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()], dim=-2
        )
        return rotated.flatten(-3).to(x.dtype)


@LAYERS.register_module()
class LearnedPositions(Positions):
    """Adds a learned vector for each position; for a grid of another size the vectors are interpolated bicubically.

    Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, section 3.1 and 3.2.
    Differs from the source: nothing.

    Args:
        width: Number of channels of the tokens.
        grid: Number of rows and columns that have a vector each.
        offset: Added to the rows and columns of a grid of another size when the scale of the interpolation is
            computed. The published code of DINO and BEiT v2 adds 0.1, so that rounding cannot lose a row.

    Raises:
        ValueError: If `width` or a side of the grid is below 1, or `offset` is not in [0, 1).
    """

    def __init__(self, *, width: int, grid: Sequence[int], offset: float = 0.0) -> None:
        super().__init__()
        if width < 1 or len(grid) != 2 or min(grid) < 1:
            raise ValueError(
                f"LearnedPositions: expected a width of at least 1 and a grid of (rows, columns), got {width} "
                f"and {grid}"
            )
        if not 0 <= offset < 1:
            raise ValueError(f"LearnedPositions: expected an offset in [0, 1), got {offset}")
        self.offset = offset
        self.vectors = nn.Parameter(nn.init.trunc_normal_(torch.empty(width, *grid), std=0.02))

    def add(
        self, tokens: Float[Tensor, "b n c"], places: Places, grid: tuple[int, int]
    ) -> Float[Tensor, "b n c"]:
        """Adds the vector of each token's position, interpolated if the grid has another size."""
        vectors: Float[Tensor, "c rows columns"] = self.vectors
        if vectors.shape[1:] != grid:
            wanted: dict[str, Any] = {"size": grid}
            if self.offset:
                scales = [(new + self.offset) / old for new, old in zip(grid, vectors.shape[1:], strict=True)]
                wanted = {"scale_factor": scales}
            vectors = F.interpolate(vectors[None], **wanted, mode="bicubic", align_corners=False)[0]
        return tokens + vectors[:, places[:, 0], places[:, 1]].T.to(tokens.dtype)


def angles(places: Int[Tensor, "*n"], count: int, base: float = 10000.0) -> Float[Tensor, "*n {count}"]:
    """Returns at each place the angles in radians of `count` waves: place * base ** (-i / count).

    Example:
        >>> angles(torch.tensor([0, 3]), 2, base=100.0)
        tensor([[0.0000, 0.0000],
                [3.0000, 0.3000]])
    """
    step = torch.arange(count, device=places.device, dtype=torch.float32) / count
    return places[..., None].float() * base**-step


def waves(places: Int[Tensor, "n axes"], width: int) -> Float[Tensor, "n {width}"]:
    """Returns sines and cosines of the places' angles; each axis has an equal share of the channels."""
    angle = angles(places, width // (2 * places.shape[-1]))
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(1)
