"""Norm-preserving cosine quantization: a code gives the direction of a vector, whose length is kept (vqtorch)."""

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from vq.ops.digits import bits_of_float32, float32_of_bits, pack_digits, unpack_digits
from vq.ops.directions import length, unit
from vq.ops.gradients import replace_value
from vq.ops.numerics.constants import constant, int64s
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.codebooks.learned import LearnedCodebook
from vq.quantizers.parts.distances import CosineDistance
from vq.quantizers.vector import VectorQuantizer
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class NormPreservingQuantizer(Quantizer):
    r"""Quantizes the direction of each vector, and multiplies the code by the length of the vector.

    With the code e of length 1 that has the largest cosine with z, $q = |z| e$. A decoder needs $|z|$ beside the index
    of e, which is not quantized. So this class is an experiment. To satisfy the interface the indices of a vector are
    the index of e, followed by the 32 bits of $|z|$ in float32 as a number in base K, the least significant digit
    first, with K the number of codes. Then `decode(encode(z))` is q bit for bit (a float64 length is rounded to
    float32), and the indices show what q really costs: with 256 codes 8 bits for e, and 32 for the length. Digits
    that no `z` has may decode to NaN, infinite or negative lengths. `DirectionDistance` returns a learned length and
    needs the index of e alone.

    The loss is that of the inner quantizer, between directions. With u = z / |z| and the gradient g of q, the gradient
    of z is $(I - u u^T) g + (e \cdot g) u$ if the inner estimator is `StraightThrough`.

    Source: Huh et al. 2023 (vqtorch), https://arxiv.org/abs/2305.08842; the cosine search with `vector_normalize` in
        an early version of its code, and `match_norm` in the current one.
    Differs from the source: there g passes to z unchanged, so that its part along u is $(u \cdot g) u$. Here it is the
        derivative of q with respect to $|z|$. There are no indices from which q could be decoded.

    Args:
        quantizer: A `VectorQuantizer` with `CosineDistance`, which quantizes the directions.

    Raises:
        ValueError: If the quantizer is another one, whose codes need not have length 1, or it has a single code.

    Example:
        >>> quantizer = NormPreservingQuantizer.example()
        >>> quantizer(torch.randn(2, 9, 4)).indices.shape
        torch.Size([2, 9, 9])
    """

    def __init__(self, *, quantizer: Quantizer) -> None:
        super().__init__()
        if not isinstance(quantizer, VectorQuantizer) or not isinstance(quantizer.distance, CosineDistance):
            found = (
                f" with {type(quantizer.distance).__name__}" if isinstance(quantizer, VectorQuantizer) else ""
            )
            raise ValueError(
                f"NormPreservingQuantizer: expected a VectorQuantizer with CosineDistance, whose codes have length 1, "
                f"got {type(quantizer).__name__}{found}; give it distance=CosineDistance()"
            )
        if quantizer.codebook_size < 2:
            raise ValueError(
                "NormPreservingQuantizer: expected a codebook of at least 2 codes, got 1; give it more"
            )
        self.quantizer = quantizer
        self.codebook_size, self.codebook_dim = quantizer.codebook_size, quantizer.codebook_dim
        self.index_shape = (1 + _digits_of_32_bits(self.codebook_size),)

    @classmethod
    def example(cls) -> "NormPreservingQuantizer":
        """Returns a quantizer with 16 learned directions of length 4."""
        return cls(quantizer=VectorQuantizer(codebook=LearnedCodebook.example(), distance=CosineDistance()))

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        output: QuantizeOutput = self.quantizer(z, mask)
        # The product with the constant direction has the value and the gradient of the length, also at 0.
        along = (z * unit(z).detach()).sum(dim=-1, keepdim=True)
        return QuantizeOutput(
            quantized=replace_value(along, _length(z)) * output.quantized,
            indices=self._with_length(output.indices, z),
            loss=output.loss,
            metrics=output.metrics,
        )

    @torch.no_grad()
    def prepare(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> None:
        """Shows the vectors to the inner quantizer."""
        self.quantizer.prepare(z, mask)

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead parts"]:
        return self._with_length(self.quantizer.encode(z), z)

    def _decode(self, indices: Int[Tensor, "*lead parts"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        bits = pack_digits(indices[..., 1:], self._levels(indices)) % 2**32
        return float32_of_bits(bits)[..., None].to(dtype) * self.quantizer.decode(indices[..., 0], dtype)

    def _with_length(
        self, indices: Int[Tensor, "*lead"], z: Float[Tensor, "*lead dim"]
    ) -> Int[Tensor, "*lead parts"]:
        """Appends the digits of the length of each vector to the index of its direction."""
        bits = bits_of_float32(length(z).float()[..., 0])
        return torch.cat([indices[..., None], unpack_digits(bits, self._levels(z))], dim=-1)

    def _levels(self, like: Shaped[Tensor, "..."]) -> Int[Tensor, "digits"]:
        return constant(int64s, *[self.codebook_size] * (self.index_shape[0] - 1), device=like.device)


def _length(z: Float[Tensor, "*lead dim"]) -> Float[Tensor, "*lead 1"]:
    """Computes the length of each vector, rounded to what the indices can hold."""
    return length(z).float().to(z.dtype)


def _digits_of_32_bits(base: int) -> int:
    """Counts the digits of the largest number of 32 bits."""
    return next(count for count in range(1, 33) if base**count >= 2**32)
