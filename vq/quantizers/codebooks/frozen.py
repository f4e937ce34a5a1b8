"""Codes that stay as they are: drawn, read from a file, or found in the first batch."""

from jaxtyping import Bool, Float
from torch import Tensor

from vq.quantizers.codebooks.learned import Codebook
from vq.quantizers.parts.initialization import Initialization, NormalInit
from vq.registry import CODEBOOKS


@CODEBOOKS.register_module()
class FrozenCodebook(Codebook):
    """Keeps codes that never learn; only the encoder comes to them, by the commitment term.

    With `FileInit` these are the codes of a file, such as another model's.

    Args:
        size: The number of codes.
        dim: The length of each.
        init: Where the codes are; None is Gaussian with the standard deviation dim^-0.5. An `init` from data
            sets them once, in the first training forward.
    """

    weight: Tensor

    def __init__(self, *, size: int, dim: int, init: Initialization | None = None) -> None:
        super().__init__(size=size, dim=dim, init=init or NormalInit(), revival=None)
        self.register_buffer("weight", self.init.draw(size, dim))

    @classmethod
    def example(cls) -> "FrozenCodebook":
        """Sixteen random codes of length 4."""
        return cls(size=16, dim=4)

    @property
    def vectors(self) -> Float[Tensor, "size dim"]:
        """The codes, without a gradient."""
        return self.weight

    def loss(
        self,
        z: Float[Tensor, "n dim"],
        code: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Zero: the codes do not learn."""
        return z.new_zeros(())

    def _searched(self) -> Tensor | None:
        return None  # they never change after the first search

    def _place(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        self.weight.copy_(vectors)
