"""The return value of a tokenizer's forward pass."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vq.quantizers import QuantizeOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerOutput:
    """A reconstruction, the vectors that were quantized, and the quantizer's output.

    Attributes:
        reconstruction: The decoded image. Its range is nominally [-1, 1], but it is not clamped. For a tokenizer
            without an image decoder it is a map of features (`FeatureTokenizer`).
        latent: `z`, the input of the quantizer; of the finest one if there are several.
        quantize: The quantizer's output. `quantize.indices` is (batch, h, w) or (batch, h, w, depth), or
            (batch, number) if a whole image is quantized at once.
    """

    reconstruction: Float[Tensor, "batch channels height width"]
    latent: Float[Tensor, "batch *position codebook_dim"]
    quantize: QuantizeOutput
