"""Radial quantization: a grid whose levels are spaced like a sine (Raq)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from vq.ops.digits import unpack_digits
from vq.ops.gradients import replace_value
from vq.ops.numerics.constants import constant, int64s
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.finite_scalar import check_levels, pack_rounded, round_unit
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class RadialQuantizer(Quantizer):
    r"""Rounds each channel, as an angle, to evenly spaced steps and returns the sine of the angle (Raq).

    With $n = \operatorname{round}((L - 1)\,\sigma(z))$ the code is $\sin(\pi (n / (L - 1) - 1/2))$, from -1 to 1
    and denser towards the ends. The index is the number with the digits n, the first channel least significant.
    There is no loss; a commitment loss is known to make it fail.

    Source: Doraemonzzz/vector-quantize, `radial_quantizer`; there is no paper.
    Differs from the source: the straight-through step comes after the sine, not before it, so the gradient is that
        of $\sin(\pi (\sigma(z) - 1/2))$. Before the sine, its slope at the outermost levels is 0, and a channel that
        has reached them gets no gradient any more. Each channel may have its own L, and `decode` exists.

    Args:
        levels: Number of levels L of each channel, each at least 3.

    Raises:
        ValueError: If `levels` is empty, a level is below 3, or the codebook has 2^63 codes or more.

    Example:
        >>> RadialQuantizer(levels=[3, 3]).decode(torch.tensor([0, 5])).tolist()
        [[-1.0, -1.0], [1.0, 0.0]]
    """

    def __init__(self, *, levels: Sequence[int]) -> None:
        super().__init__()
        check_levels("RadialQuantizer", levels)
        self.levels = tuple(levels)
        self.codebook_size, self.codebook_dim = math.prod(levels), len(levels)

    @classmethod
    def example(cls) -> "RadialQuantizer":
        """Returns a quantizer with even and odd levels, which has 240 codes."""
        return cls(levels=[8, 6, 5])

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        bounded = z.sigmoid()
        levels = self._levels(z)
        indices = pack_rounded(round_unit(bounded, levels), levels)
        return QuantizeOutput(
            quantized=replace_value(_sine(bounded), self._code(indices, z.dtype)),
            indices=indices,
            loss=z.new_zeros(()),
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        levels = self._levels(z)
        return pack_rounded(round_unit(z.sigmoid(), levels), levels)

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        return self._code(indices, dtype)

    def _code(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        # Read from a table, because a vectorised sine may differ from a scalar one in the last bit.
        levels = self._levels(indices)
        table = constant(_table, self.levels, dtype, device=indices.device)
        return table[unpack_digits(indices, levels) + (levels.cumsum(0) - levels)]

    def _levels(self, like: Shaped[Tensor, "..."]) -> Int[Tensor, "dim"]:
        return constant(int64s, *self.levels, device=like.device)


def _table(levels: tuple[int, ...], dtype: torch.dtype) -> Float[Tensor, "sum_of_levels"]:
    """Concatenates the codes of all levels of all channels."""
    return torch.cat([_sine(torch.arange(count).to(dtype) / (count - 1)) for count in levels])


def _sine(unit: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Maps [0, 1] to [-1, 1] along half a period of a sine."""
    return torch.sin(math.pi * (unit - 0.5))
