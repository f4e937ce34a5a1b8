"""The input embedding of a generator's transformer: classes, indices and positions to vectors."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vq.generators.decoder import rotation_by, start_normal
from vq.generators.errors import GeneratorError
from vq.layers.positions import angles
from vq.ops.dct import zigzag
from vq.ops.numerics.constants import constant, multiples


class TokenStem(nn.Module):
    """Embeds the class as the first token, and each position as the sum of the embeddings of its indices.

    Rotary positions rotate a token by the row and column of its position, and the class token not at all. Without
    them, a learned vector is added for each position.

    Args:
        width: Channels of the vectors.
        vocabulary_size: Rows of each index embedding table.
        num_classes: The number of classes; one more row means "no class".
        num_indices: The number of indices per position; each has its own table.
        grid: (rows, columns) or (length,).
        head_width: Channels per head for rotary positions; None for learned positions.
        has_class_key: Whether the class token has a query and a key; if not, its rotation sets both to zero.
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
        has_class_key: bool = True,
    ) -> None:
        super().__init__()
        self.classes = nn.Embedding(num_classes + 1, width)
        self.tables = nn.Embedding(num_indices * vocabulary_size, width)
        self.vocabulary_size, self.num_indices = vocabulary_size, num_indices
        rows, columns = (1, *grid)[-2:]
        self.grid, self.head_width, self.has_class_key = (rows, columns), head_width, has_class_key
        self.positions = nn.Embedding(1 + rows * columns, width) if head_width is None else None
        start_normal(self)

    def forward(
        self, label: Int64[Tensor, "b"], indices: Int64[Tensor, "b n q"], places: Int64[Tensor, "n"]
    ) -> Float[Tensor, "b 1+n c"]:
        """Embeds the classes and the indices of some positions.

        Args:
            label: Classes.
            indices: The indices of those positions.
            places: The positions, as row * columns + column.
        """
        return torch.cat([self.of_class(label), self.of_indices(indices, places)], dim=1)

    def of_class(self, label: Int64[Tensor, "b"]) -> Float[Tensor, "b 1 c"]:
        """Embeds classes."""
        vectors: Tensor = self.classes(label)
        return (vectors if self.positions is None else vectors + self.positions.weight[0])[:, None]

    def of_indices(
        self, indices: Int64[Tensor, "b n q"], places: Int64[Tensor, "n"]
    ) -> Float[Tensor, "b n c"]:
        """Embeds the indices of some positions."""
        offsets = constant(multiples, self.num_indices, self.vocabulary_size, device=indices.device)
        vectors: Tensor = self.tables(indices + offsets)
        vectors = vectors[:, :, 0] if indices.shape[2] == 1 else vectors.sum(2)
        return vectors if self.positions is None else vectors + self.positions(places + 1)

    def rotation(self, places: Int64[Tensor, "n"]) -> Float[Tensor, "2 1+n dim"] | None:
        """The rotary positions of the class token and of some positions; None if positions are learned."""
        if self.head_width is None:
            return None
        where = torch.stack([places // self.grid[1], places % self.grid[1]], dim=-1)
        angle = angles(where, self.head_width // 4).flatten(1)
        of_class = rotation_by(angle.new_zeros(1, angle.shape[1]))
        return torch.cat([of_class * self.has_class_key, rotation_by(angle)], dim=1)


def order_of(order: str | Sequence[int], grid: Sequence[int]) -> Int64[Tensor, "places"]:
    """The positions of a grid in the order in which they are generated, as a tensor on the CPU.

    Args:
        order: "raster", "zigzag" (from low to high frequency if row and column are frequencies), or all positions.
        grid: (rows, columns) or (length,).

    Raises:
        ValueError: If the order is not one of these, or does not name every position once.

    Example:
        >>> order_of("zigzag", (2, 2)).tolist()
        [0, 1, 2, 3]
    """
    rows, columns = (1, *grid)[-2:]
    if isinstance(order, str):
        if order not in ("raster", "zigzag"):
            raise GeneratorError(f"order: expected 'raster', 'zigzag' or a list of positions, got {order!r}")
        is_raster = order == "raster"
        return (
            torch.arange(rows * columns, device="cpu") if is_raster else zigzag(rows, columns, "cpu").long()
        )
    if sorted(order) != list(range(rows * columns)):
        raise GeneratorError(
            f"order: expected each position from 0 to {rows * columns - 1} once, got {len(order)} positions, "
            f"{len(set(order))} of them different"
        )
    return torch.tensor(list(order), device="cpu")
