"""The entrance of a transformer that proposes indices: classes, indices and places to vectors."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vq.generators.decoder import start_normal
from vq.generators.errors import GeneratorError
from vq.layers.positions import angles
from vq.ops.dct import zigzag
from vq.ops.numerics.constants import constant, multiples


class TokenStem(nn.Module):
    """Looks up a vector for the class, which stands first, and one for each place, the sum of its indices'.

    Rotary positions turn with row and column of the place whose indices a token holds, the class not at all;
    else a learned vector for each place is added.

    Args:
        width: Channels of the vectors.
        vocabulary_size: Rows of each table of indices.
        num_classes: Classes; one more stands for none.
        num_indices: Indices a place, each with a table of its own.
        grid: (rows, columns) or (length,).
        head_width: Channels of a head for rotary positions; None for learned ones.
    """

    def __init__(
        self,
        *,
        width: int,
        vocabulary_size: int,
        num_classes: int,
        num_indices: int,
        grid: Sequence[int],
        head_width: int | None,
    ) -> None:
        super().__init__()
        self.classes = nn.Embedding(num_classes + 1, width)
        self.tables = nn.Embedding(num_indices * vocabulary_size, width)
        self.vocabulary_size, self.num_indices = vocabulary_size, num_indices
        rows, columns = (1, *grid)[-2:]
        self.grid, self.head_width = (rows, columns), head_width
        self.positions = nn.Embedding(1 + rows * columns, width) if head_width is None else None
        start_normal(self)

    def forward(
        self, label: Int64[Tensor, "b"], indices: Int64[Tensor, "b n q"], places: Int64[Tensor, "n"]
    ) -> Float[Tensor, "b 1+n c"]:
        """The class and any indices to vectors.

        Args:
            label: Classes.
            indices: Those of some places.
            places: Which (row * columns + column).
        """
        return torch.cat([self.of_class(label), self.of_indices(indices, places)], dim=1)

    def of_class(self, label: Int64[Tensor, "b"]) -> Float[Tensor, "b 1 c"]:
        """Classes to vectors."""
        vectors: Tensor = self.classes(label)
        return (vectors if self.positions is None else vectors + self.positions.weight[0])[:, None]

    def of_indices(
        self, indices: Int64[Tensor, "b n q"], places: Int64[Tensor, "n"]
    ) -> Float[Tensor, "b n c"]:
        """Indices of some places to vectors."""
        offsets = constant(multiples, self.num_indices, self.vocabulary_size, device=indices.device)
        vectors: Tensor = self.tables(indices + offsets)
        vectors = vectors[:, :, 0] if indices.shape[2] == 1 else vectors.sum(2)
        return vectors if self.positions is None else vectors + self.positions(places + 1)

    def rotation(self, places: Int64[Tensor, "n"]) -> Float[Tensor, "2 1+n pairs"] | None:
        """By which the class and the tokens of some places turn; None with learned positions."""
        if self.head_width is None:
            return None
        where = torch.stack([places // self.grid[1], places % self.grid[1]], dim=-1)
        angle = angles(where, self.head_width // 4).flatten(1)
        angle = torch.cat([torch.zeros_like(angle[:1]), angle])
        return torch.stack([angle.cos(), angle.sin()])


def order_of(order: str | Sequence[int], grid: Sequence[int]) -> Int64[Tensor, "places"]:
    """The places of a grid in the order in which they are proposed; on the CPU.

    Args:
        order: "raster", "zigzag" (from low to high frequency, where row and column are frequencies), or the places.
        grid: (rows, columns) or (length,).

    Raises:
        ValueError: If the order is not one of these, or does not name every place once.

    Example:
        >>> order_of("zigzag", (2, 2)).tolist()
        [0, 1, 2, 3]
    """
    rows, columns = (1, *grid)[-2:]
    if isinstance(order, str):
        if order not in ("raster", "zigzag"):
            raise GeneratorError(f"order: expected 'raster', 'zigzag' or a list of places, got {order!r}")
        is_raster = order == "raster"
        return (
            torch.arange(rows * columns, device="cpu") if is_raster else zigzag(rows, columns, "cpu").long()
        )
    if sorted(order) != list(range(rows * columns)):
        raise GeneratorError(
            f"order: expected each place from 0 to {rows * columns - 1} once, got {len(order)} places, "
            f"{len(set(order))} of them different"
        )
    return torch.tensor(list(order), device="cpu")
