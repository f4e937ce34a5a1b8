"""Residual finite scalar quantization: each stage refines the grid of the one before (RFSQ)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from vq.ops.digits import unpack_digits
from vq.ops.gradients import replace_value
from vq.ops.numerics.constants import constant, int64s
from vq.ops.numerics.integers import as_int64
from vq.ops.numerics.precision import computed_in
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.finite_scalar import check_levels, pack_rounded
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class ResidualFiniteScalarQuantizer(Quantizer):
    r"""Bounds each channel, rounds it to L levels, then rounds the residual to levels L times finer, and so on (RFSQ).

    With $b = \frac{L}{L - 1}$ and $y = b \tanh(z / b)$, stage k rounds $(y - \sum_{j<k} s_j c_j) / s_k$ to the
    nearest c of the L evenly spaced levels from -1 to 1, with $s_k = L^{-k}$. The code is $\sum s_k c_k$. Each cell
    of a stage is divided into exactly L cells of the next: all codes are different, evenly spaced, and
    $|y - \sum_{j \le k} s_j c_j| \le s_k / (L - 1)$. There is no loss and nothing is learned.

    Each stage has one index, the number with its channels' digits, the first channel least significant.

    Source: Doraemonzzz/vector-quantize, `residual_finite_scalar_quantizer`; the levels are those of
        Parker et al. 2024, https://arxiv.org/abs/2411.19842, section 3.2.
    Differs from the source: there every stage subtracts unscaled codes in [0, 1], which cannot correct in
        both directions; here codes have both signs and the scales of the stages fall, as in vector-quantize-pytorch.

    Args:
        levels: Number of levels L of each channel, each at least 3.
        depth: Number of stages. Beyond L^depth = 2^23 float32 cannot represent finer levels.

    Raises:
        ValueError: If `levels` is empty, a level is below 3, one stage has 2^63 codes or more, or `depth` is below 1.

    Example:
        >>> quantizer = ResidualFiniteScalarQuantizer(levels=[5, 5], depth=2)
        >>> quantizer(torch.zeros(1, 2)).indices
        tensor([[12, 12]])
    """

    def __init__(self, *, levels: Sequence[int], depth: int) -> None:
        super().__init__()
        check_levels("ResidualFiniteScalarQuantizer", levels)
        if depth < 1:
            raise ValueError(f"ResidualFiniteScalarQuantizer: expected a depth of at least 1, got {depth}")
        self.levels, self.depth = tuple(levels), depth
        self.codebook_size, self.codebook_dim = math.prod(levels), len(levels)
        self.index_shape = (depth,)

    @classmethod
    def example(cls) -> "ResidualFiniteScalarQuantizer":
        """Returns three stages of 60 codes, with even and odd levels."""
        return cls(levels=[5, 4, 3], depth=3)

    def decode_prefix(
        self, indices: Shaped[Tensor, "*lead_and_stages"], depth: int, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "*lead dim"]:
        """Returns the sum of the codes of the first `depth` stages: a coarser version of the same vectors.

        Args:
            indices: Indices of all stages, or of the first `depth` stages at least.
            depth: Number of stages to sum.
            dtype: Dtype of the result; the default is that of `decode`.

        Raises:
            ValueError: If the depth is not in [1, number of stages], or an index is not an integer in range.
        """
        if not 1 <= depth <= self.depth:
            raise ValueError(
                f"ResidualFiniteScalarQuantizer: expected a depth in [1, {self.depth}], got {depth}"
            )
        whole = self._in_range(as_int64("ResidualFiniteScalarQuantizer.decode_prefix: indices", indices))
        dtype = dtype or torch.float32
        return self._decode(whole[..., :depth], computed_in(dtype)).to(dtype)

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        bounded = self._bounded(z)
        total, digits = self._search(bounded.detach())
        return QuantizeOutput(
            quantized=replace_value(bounded, total),
            indices=pack_rounded(digits, self._levels(z)),
            loss=z.new_zeros(()),
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead_and_stages"]:
        return pack_rounded(self._search(self._bounded(z))[1], self._levels(z))

    def _decode(
        self, indices: Int[Tensor, "*lead_and_stages"], dtype: torch.dtype
    ) -> Float[Tensor, "*lead dim"]:
        digits = unpack_digits(indices, self._levels(indices)).to(dtype)
        total = torch.zeros_like(digits[..., 0, :])
        for number in range(indices.shape[-1]):
            total = total + self._code(digits[..., number, :], number)
        return total

    def _bounded(self, z: Float[Tensor, "*lead dim"]) -> Float[Tensor, "*lead dim"]:
        """Bounds each channel to the union of the L cells of the first stage."""
        levels = self._levels(z)
        bound = levels.to(z.dtype) / (levels - 1)
        return bound * torch.tanh(z / bound)

    def _search(
        self, bounded: Float[Tensor, "*lead dim"]
    ) -> tuple[Float[Tensor, "*lead dim"], Float[Tensor, "*lead stages dim"]]:
        """Returns the sum of the codes, and the digits of every stage as whole numbers in [0, L - 1]."""
        total, digits, levels = torch.zeros_like(bounded), [], self._levels(bounded)
        for number in range(self.depth):
            rest = (bounded - total) * levels.to(bounded.dtype) ** number
            digits.append(((rest.clamp(-1, 1) + 1) / 2 * (levels - 1)).round())
            total = total + self._code(digits[-1], number)
        return total, torch.stack(digits, dim=-2)

    def _code(self, digits: Float[Tensor, "*lead dim"], number: int) -> Float[Tensor, "*lead dim"]:
        """Returns what the digits of a stage add to the sum."""
        levels = self._levels(digits)
        steps = levels - 1
        return (2 * digits - steps) / (steps * levels**number)

    def _levels(self, like: Shaped[Tensor, "..."]) -> Int[Tensor, "dim"]:
        return constant(int64s, *self.levels, device=like.device)
