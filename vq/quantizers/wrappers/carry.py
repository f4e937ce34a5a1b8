"""Carry quantization: the codes of a vector's parts are the digits of one index (Carry VQ)."""

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from vq.ops.digits import pack_digits, unpack_digits
from vq.ops.numerics.constants import constant, int64s
from vq.ops.numerics.integers import as_int64
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.codebooks.learned import LearnedCodebook
from vq.quantizers.parts.initialization import NormalInit
from vq.quantizers.vector import VectorQuantizer
from vq.quantizers.wrappers.product import ProductQuantizer
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class CarryQuantizer(Quantizer):
    """Splits each vector into equal parts, which one small quantizer turns into the digits of one index.

    With a quantizer of B codes and m digits there are B^m codes and one index in [0, B^m), the first digit least
    significant. A vector that is shorter than all parts together is padded with zeros (see `ProductQuantizer`).
    This is not CVQ-VAE, whose codebook is `ClusteredCodebook`.

    Source: Doraemonzzz/vector-quantize, `carry_vector_quantizer.py`; there is no paper.
    Differs from the source: `codebook_size` is B^m, the number of different indices, not B.

    Args:
        quantizer: Quantizer of every part; its `codebook_size` is the base B.
        digits: Number of digits, m.
        dim: Last axis of `z`; None is `digits` times the quantizer's `codebook_dim`.

    Raises:
        ValueError: If `digits` is below 1, the last part would be padding only, or the index does not fit into int64.

    Example:
        >>> base = VectorQuantizer(codebook=LearnedCodebook(size=8, dim=3))
        >>> quantizer = CarryQuantizer(quantizer=base, digits=4, dim=10)
        >>> quantizer.codebook_size, quantizer(torch.randn(5, 10)).indices.shape
        (4096, torch.Size([5]))
    """

    def __init__(self, *, quantizer: Quantizer, digits: int, dim: int | None = None) -> None:
        super().__init__()
        if digits < 1:
            raise ValueError(f"CarryQuantizer: expected at least one digit, got {digits}")
        self.product = ProductQuantizer(quantizers=[quantizer], groups=digits, dim=dim, is_packed=True)
        self.codebook_size, self.codebook_dim = self.product.codebook_size, self.product.codebook_dim
        self._base, self._num_digits = quantizer.codebook_size, digits

    @classmethod
    def example(cls) -> "CarryQuantizer":
        """Returns a quantizer with three digits to the base 4 for vectors of length 5."""
        base = VectorQuantizer(codebook=LearnedCodebook(size=4, dim=2, init=NormalInit()))
        return cls(quantizer=base, digits=3, dim=5)

    def digits(self, indices: Shaped[Tensor, "*lead"]) -> Int[Tensor, "*lead digits"]:
        """Returns the digits of each index, each in [0, base).

        Raises:
            ValueError: If an index is not an integer in [0, codebook_size).
        """
        return unpack_digits(self._checked_indices(indices), self._bases(indices))

    def packed(self, digits: Shaped[Tensor, "*lead digits"]) -> Int[Tensor, "*lead"]:
        """Returns the index that has these digits.

        Raises:
            ValueError: If a digit is not an integer in [0, base), or the number of digits is wrong.
        """
        whole = as_int64("CarryQuantizer.packed: digits", digits)
        is_whole = whole.shape[-1:] == (self._num_digits,)
        if not is_whole or (whole.numel() and not 0 <= int(whole.min()) <= int(whole.max()) < self._base):
            raise ValueError(
                f"CarryQuantizer.packed: expected {self._num_digits} digits in [0, {self._base}) on the last axis, "
                f"got the shape {tuple(digits.shape)}"
                + (f" with {int(whole.min())} to {int(whole.max())}" * is_whole)
            )
        return pack_digits(whole, self._bases(digits))

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        return self.product(z, mask)

    @torch.no_grad()
    def prepare(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> None:
        """Shows the vectors to the inner product quantizer."""
        self.product.prepare(z, mask)

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        return self.product.encode(z)

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        return self.product.decode(indices, dtype)

    def _bases(self, like: Shaped[Tensor, "..."]) -> Int[Tensor, "digits"]:
        return constant(int64s, *[self._base] * self._num_digits, device=like.device)
