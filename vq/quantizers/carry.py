"""Carry quantization: the parts of a vector are the digits of one number (Carry VQ, the log's Cvq)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.ops.digits import pack_digits, unpack_digits
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.codebooks import LearnedCodebook
from vq.quantizers.initialization import NormalInit
from vq.quantizers.product import ProductQuantizer
from vq.quantizers.vector import VectorQuantizer
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class CarryQuantizer(Quantizer):
    """Cuts each vector into equal digits, all from one small shared quantizer; the index is their number.

    With a quantizer of B codes and m digits there are B^m codes and one index in [0, B^m), the first digit
    least significant. A vector that is shorter than the digits together is filled up with zeros
    (`ProductQuantizer`). It is not CVQ-VAE, whose codebook is `ClusteredCodebook`.

    Source: Doraemonzzz/vector-quantize, `carry_vector_quantizer.py`; there is no paper.
    Differs from the source: `codebook_size` is B^m, the number of different indices, not B.

    Args:
        quantizer: What every digit is quantized by; its `codebook_size` is the base.
        digits: The number of digits, m.
        dim: The last axis of `z`; None is `digits` times the quantizer's.

    Raises:
        ValueError: If there is no digit, the last digit would be nothing but padding, or the index does not
            fit into int64.

    Example:
        >>> base = VectorQuantizer(codebook=LearnedCodebook(size=8, dim=3))
        >>> quantizer = CarryQuantizer(quantizer=base, digits=4, dim=10)
        >>> quantizer.codebook_size, quantizer(torch.randn(5, 10)).indices.shape
        (4096, torch.Size([5]))
    """

    _bases: Tensor

    def __init__(self, *, quantizer: Quantizer, digits: int, dim: int | None = None) -> None:
        super().__init__()
        if digits < 1:
            raise ValueError(f"CarryQuantizer: expected at least one digit, got {digits}")
        self.product = ProductQuantizer(quantizers=[quantizer], groups=digits, dim=dim, is_packed=True)
        self.codebook_size, self.codebook_dim = self.product.codebook_size, self.product.codebook_dim
        self.register_buffer("_bases", torch.tensor([quantizer.codebook_size] * digits), persistent=False)

    @classmethod
    def example(cls) -> "CarryQuantizer":
        """Three digits to the base 4 for vectors of length 5."""
        base = VectorQuantizer(codebook=LearnedCodebook(size=4, dim=2, init=NormalInit()))
        return cls(quantizer=base, digits=3, dim=5)

    def digits(self, indices: Int[Tensor, "*lead"]) -> Int[Tensor, "*lead digits"]:
        """The digits of each index, each in [0, base)."""
        return unpack_digits(indices, self._bases)

    def packed(self, digits: Int[Tensor, "*lead digits"]) -> Int[Tensor, "*lead"]:
        """The index with these digits."""
        return pack_digits(digits, self._bases)

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        output: QuantizeOutput = self.product(z, mask)
        return output

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        return self.product.encode(z)

    def _decode(self, indices: Int[Tensor, "*lead"]) -> Float[Tensor, "*lead dim"]:
        return self.product.decode(indices)
