"""No quantization: the upper bound for ablations."""

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from vq.ops.digits import bits_of_float32, float32_of_bits
from vq.ops.gradients import replace_value
from vq.ops.numerics.constants import constant, int64s
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class IdentityQuantizer(Quantizer):
    """Returns `z` unchanged, with its gradient; the indices are the bytes of its float32 values.

    It is the upper bound in a comparison of quantizers. It satisfies the interface: each channel is stored in four
    bytes, the least significant first, so that `decode(encode(z))` is `z` bit for bit (float64 is rounded to
    float32), and the 32 bits per channel are what its indices really cost. Indices that no `z` has may decode to
    NaN or infinity. Usage and perplexity are those of the bytes and have little meaning.

    Args:
        dim: Last axis of `z`.

    Raises:
        ValueError: If `dim` is not positive.

    Example:
        >>> quantizer = IdentityQuantizer(dim=2)
        >>> quantizer.encode(torch.tensor([1.0, -2.0]))
        tensor([[  0,   0, 128,  63],
                [  0,   0,   0, 192]])
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"IdentityQuantizer: expected a positive dim, got {dim}")
        self.codebook_size, self.codebook_dim, self.index_shape = 256, dim, (dim, 4)

    @classmethod
    def example(cls) -> "IdentityQuantizer":
        """Returns a quantizer of vectors of length 4."""
        return cls(dim=4)

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        # float64 is rounded to what the indices can hold; a float32 z is returned as it is, including minus zero.
        kept = replace_value(z, z.float().to(z.dtype)) if z.dtype == torch.float64 else z
        return QuantizeOutput(quantized=kept, indices=self._encode(z.detach()), loss=z.new_zeros(()))

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead dim bytes"]:
        return bits_of_float32(z.float())[..., None] >> _shifts(z) & 255

    def _decode(
        self, indices: Int[Tensor, "*lead dim bytes"], dtype: torch.dtype
    ) -> Float[Tensor, "*lead dim"]:
        return float32_of_bits((indices << _shifts(indices)).sum(dim=-1)).to(dtype)


def _shifts(like: Shaped[Tensor, "..."]) -> Int[Tensor, "bytes"]:
    return constant(int64s, 0, 8, 16, 24, device=like.device)
