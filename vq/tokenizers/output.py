"""What a tokenizer's forward returns."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vq.quantizers import QuantizeOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerOutput:
    """A reconstruction and what the quantizer did on the way.

    Attributes:
        reconstruction: The decoded image, aimed at [-1, 1], not clamped.
        quantize: The quantizer's result; `quantize.indices` is (batch, h, w) or (batch, h, w, depth), or
            (batch, number) where a whole image is quantized as one.
    """

    reconstruction: Float[Tensor, "batch 3 height width"]
    quantize: QuantizeOutput
