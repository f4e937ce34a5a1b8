"""The codebook of VQ-KD: each code is a direction that moves by the same step towards that of its vectors."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.ops.directions import unit
from vq.ops.numerics.precision import computed_in
from vq.ops.numerics.reductions import count_and_sum
from vq.quantizers.codebooks.base import Codebook, step_size
from vq.quantizers.parts.initialization import Initialization, KMeansInit
from vq.quantizers.parts.revival import Revival
from vq.registry import CODEBOOKS


@CODEBOOKS.register_module()
class SphericalEMACodebook(Codebook):
    r"""Keeps codes of length 1, each a normalised moving average of the directions of the vectors that chose it.

    Let $s_k$ be the sum of the unit vectors of all ranks that chose code k in a step, and $u(x) = x / |x|$. Then
    $e_k \leftarrow u(g e_k + (1 - g) u(s_k))$ for the codes that were chosen; the others keep their value. Use it
    with `CosineDistance`, which gives the vectors length 1 too.

    With `EMACodebook` a step in which many vectors chose a code weighs more than one with few; here every step in
    which it was chosen weighs the same, and a step in which it was not leaves no trace.

    Source: Peng et al. 2022 (BEiT v2), https://arxiv.org/abs/2208.06366, section 2.2; the rule of the average is that
        of its published implementation.
    Differs from the source: revival is optional, and the clusters of the first batch are part of the state, so that a
        resumed training does not cluster again.

    Args:
        size: Number of codes.
        dim: Length of each code.
        decay: Fraction g of a code that is kept in a step in which it is chosen, in [0, 1).
        init: How the codes are initialised, then divided by their length; None is `KMeansInit()`.
        revival: How unused codes are replaced; None never replaces them.

    Raises:
        ValueError: If the decay is not in [0, 1).
    """

    weight: Tensor
    usage: Tensor

    def __init__(
        self,
        *,
        size: int,
        dim: int,
        decay: float = 0.99,
        init: Initialization | None = None,
        revival: Revival | None = None,
    ) -> None:
        super().__init__(size=size, dim=dim, init=init or KMeansInit(), revival=revival)
        if not 0 <= decay < 1:
            raise ValueError(f"SphericalEMACodebook: expected a decay in [0, 1), got {decay}")
        self.decay = decay
        self.register_buffer("weight", unit(self.init.draw(size, dim)))
        self.register_buffer("usage", torch.ones(size))

    @classmethod
    def example(cls) -> "SphericalEMACodebook":
        """Returns 16 codes of length 4."""
        return cls(size=16, dim=4)

    @property
    def vectors(self) -> Float[Tensor, "size dim"]:
        """The directions, without a gradient."""
        return self.weight

    def loss(
        self,
        z: Float[Tensor, "n dim"],
        code: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Returns 0: the codes learn in `update`, not by gradient."""
        return z.new_zeros(())

    def statistics(
        self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]
    ) -> Float[Tensor, "flat"]:
        """Counts and sums the directions of each code."""
        return count_and_sum(unit(z.to(computed_in(self.weight.dtype))), indices, mask, self.size)

    def learn(self, counts: Float[Tensor, "size"], sums: Float[Tensor, "size dim"]) -> None:
        """Moves each chosen code by the same step towards the direction of its sum."""
        moved = unit(torch.lerp(self.weight.to(sums.dtype), unit(sums), 1 - self.decay))
        self.weight.copy_(torch.where(counts[:, None] > 0, moved, self.weight))
        self.usage.lerp_(counts.to(self.usage.dtype), step_size(1 - self.decay, counts))

    def average_usage(self) -> Float[Tensor, "size"]:
        """Returns the moving average of the counts."""
        return self.usage

    def set_codes(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        """Overwrites the usage and, with length 1, the moved codes."""
        self.weight.copy_(torch.where(is_moved[:, None], unit(vectors), self.weight))
        self.usage.copy_(usage)
