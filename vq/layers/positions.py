"""How a transformer learns where in the image a token stands."""

from abc import ABC
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vq.ops.numerics.precision import at_least_float32
from vq.registry import LAYERS

Places = Int[Tensor, "n 2"]
"""The row and column of each token in its grid."""


class Positions(nn.Module, ABC):
    """Tells tokens apart by their places in a grid of any size: once at the entrance, or in every block.

    A kind of positions overrides one of the two methods. Tokens without a place are not handed to it.
    """

    def add(
        self, tokens: Float[Tensor, "b n c"], places: Places, grid: tuple[int, int]
    ) -> Float[Tensor, "b n c"]:
        """Tokens to tokens that know their places.

        Args:
            tokens: At the entrance of the transformer.
            places: Row and column of each.
            grid: Number of rows and columns.
        """
        return tokens

    def rotate(self, x: Float[Tensor, "b heads n dim"], places: Places) -> Float[Tensor, "b heads n dim"]:
        """Queries or keys of one block to those that know their places."""
        return x


@LAYERS.register_module()
class SineCosinePositions(Positions):
    """Adds fixed waves to the tokens: half of the channels tell the row, half the column; any image size.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5, for two axes as in MAE
        (He et al. 2021, https://arxiv.org/abs/2111.06377).
    Differs from the source: nothing.
    """

    def add(
        self, tokens: Float[Tensor, "b n c"], places: Places, grid: tuple[int, int]
    ) -> Float[Tensor, "b n c"]:
        """See `Positions`.

        Raises:
            ValueError: If the width of the tokens is not a multiple of 4.
        """
        width = tokens.shape[-1]
        if width % 4:
            raise ValueError(f"SineCosinePositions: expected a width that is a multiple of 4, got {width}")
        return tokens + waves(places, width).to(tokens.dtype)


@LAYERS.register_module()
class RotaryPositions(Positions):
    """Turns queries and keys by angles that grow with row and column, so that products see differences only.

    The first half of a head's channels turns with the row, the second with the column, in pairs of ever
    lower frequency. Any image size.

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, eq. 34, for two axes.
    Differs from the source: two axes; pairs are channel i and i + dim / 4 of an axis' half.

    Args:
        base: The slowest wave is about `base` * 2 pi tokens long.

    Raises:
        ValueError: If `base` is not above 1.
    """

    def __init__(self, *, base: float = 100.0) -> None:
        super().__init__()
        if not base > 1:
            raise ValueError(f"RotaryPositions: expected a base above 1, got {base}")
        self.base = base

    def rotate(self, x: Float[Tensor, "b heads n dim"], places: Places) -> Float[Tensor, "b heads n dim"]:
        """See `Positions`.

        Raises:
            ValueError: If the channels of a head are not a multiple of 4.
        """
        dim = x.shape[-1]
        if dim % 4:
            raise ValueError(f"RotaryPositions: expected heads of a multiple of 4 channels, got {dim}")
        angle = angles(places, dim // 4, self.base)  # (n, axis, dim / 4)
        first, second = at_least_float32(x).reshape(*x.shape[:-1], 2, 2, dim // 4).unbind(-2)
        turned = torch.stack(
            [first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()], dim=-2
        )
        return turned.flatten(-3).to(x.dtype)


@LAYERS.register_module()
class LearnedPositions(Positions):
    """Adds a learned vector for each place; a grid of another size gets bicubic interpolations.

    Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, section 3.1 and 3.2.
    Differs from the source: nothing.

    Args:
        width: Channels of the tokens.
        grid: Rows and columns that have a vector each.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(self, *, width: int, grid: Sequence[int]) -> None:
        super().__init__()
        if width < 1 or len(grid) != 2 or min(grid) < 1:
            raise ValueError(
                f"LearnedPositions: expected a width of at least 1 and a grid of (rows, columns), got {width} "
                f"and {grid}"
            )
        self.vectors = nn.Parameter(nn.init.trunc_normal_(torch.empty(width, *grid), std=0.02))

    def add(
        self, tokens: Float[Tensor, "b n c"], places: Places, grid: tuple[int, int]
    ) -> Float[Tensor, "b n c"]:
        """See `Positions`."""
        vectors: Tensor = self.vectors
        if vectors.shape[1:] != grid:
            vectors = F.interpolate(vectors[None], size=grid, mode="bicubic", align_corners=False)[0]
        return tokens + vectors[:, places[:, 0], places[:, 1]].T.to(tokens.dtype)


def angles(places: Int[Tensor, "*n"], count: int, base: float = 10000.0) -> Float[Tensor, "*n {count}"]:
    """Places to the angles of `count` waves of ever lower frequency, in radians: place * base ** (-i / count).

    Example:
        >>> angles(torch.tensor([0, 3]), 2, base=100.0)
        tensor([[0.0000, 0.0000],
                [3.0000, 0.3000]])
    """
    step = torch.arange(count, device=places.device, dtype=torch.float32) / count
    return places[..., None].float() * base**-step


def waves(places: Int[Tensor, "n axes"], width: int) -> Float[Tensor, "n {width}"]:
    """Places to the sines and cosines of their angles; each axis has an equal share of the channels."""
    angle = angles(places, width // (2 * places.shape[-1]))
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(1)
