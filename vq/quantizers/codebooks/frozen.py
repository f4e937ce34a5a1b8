"""A codebook that never learns: its codes are random, read from a file, or found in the first batch."""

from jaxtyping import Bool, Float
from torch import Tensor

from vq.quantizers.codebooks.base import Codebook
from vq.quantizers.parts.initialization import Initialization, NormalInit
from vq.registry import CODEBOOKS


@CODEBOOKS.register_module()
class FrozenCodebook(Codebook):
    """Keeps codes that never learn; only the commitment loss moves the encoder towards them.

    With `FileInit` they are the codes of a file, such as those of another model.

    Args:
        size: Number of codes.
        dim: Length of each code.
        init: How the codes are set; None is Gaussian with the standard deviation dim^-0.5. An initialization from
            data sets them once, in the first training forward.
    """

    weight: Tensor

    def __init__(self, *, size: int, dim: int, init: Initialization | None = None) -> None:
        super().__init__(size=size, dim=dim, init=init or NormalInit(), revival=None)
        self.register_buffer("weight", self.init.draw(size, dim))

    @classmethod
    def example(cls) -> "FrozenCodebook":
        """Returns 16 random codes of length 4."""
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
        """Returns 0: the codes do not learn."""
        return z.new_zeros(())

    def _searched(self) -> None:
        return None  # the codes never change after the first search

    def set_codes(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        """Overwrites the codes."""
        self.weight.copy_(vectors)
