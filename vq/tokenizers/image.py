"""The image tokenizer: encoder, quantizer, decoder, in the order in which an image meets them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vq.quantizers import Quantizer
from vq.registry import TOKENIZERS
from vq.tokenizers.output import TokenizerOutput


@TOKENIZERS.register_module()
class ImageTokenizer(nn.Module):
    """Turns an image into a grid of indices and back.

    Between the networks and the quantizer stand two 1x1 convolutions (the field's `quant_conv` and
    `post_quant_conv`), so that any encoder meets any quantizer.

    Args:
        encoder: image -> (batch, encoder.out_channels, h, w).
        quantizer: (batch, h, w, quantizer.codebook_dim) -> `QuantizeOutput`.
        decoder: (batch, decoder.in_channels, h, w) -> image.

    Raises:
        ValueError: If the encoder and the decoder scale by different factors.
    """

    def __init__(self, *, encoder: nn.Module, quantizer: Quantizer, decoder: nn.Module) -> None:
        super().__init__()
        if encoder.downsample_factor != decoder.downsample_factor:
            raise ValueError(
                f"tokenizer: the encoder scales down by {encoder.downsample_factor} and the decoder up by "
                f"{decoder.downsample_factor}; give them the same stages"
            )
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        self.downsample_factor = int(encoder.downsample_factor)  # type: ignore[arg-type]
        dim = quantizer.codebook_dim
        self.pre_quant = nn.Conv2d(int(encoder.out_channels), dim, 1)  # type: ignore[arg-type]
        self.post_quant = nn.Conv2d(dim, int(decoder.in_channels), 1)  # type: ignore[arg-type]

    @property
    def codebook_size(self) -> int:
        """The number of different indices."""
        return self.quantizer.codebook_size

    def forward(self, image: Float[Tensor, "batch 3 height width"]) -> TokenizerOutput:
        """Image in [-1, 1] -> reconstruction, indices, the quantizer's loss."""
        quantize = self.quantizer(self._latent(image))
        return TokenizerOutput(reconstruction=self._decode(quantize.quantized), quantize=quantize)

    @torch.no_grad()
    def encode(self, image: Float[Tensor, "batch 3 height width"]) -> Int[Tensor, "batch *index"]:
        """Image in [-1, 1] -> int64 indices; changes no state, whatever the mode.

        They are (batch, h, w) and then the quantizer's `index_shape`, or without h and w where it quantizes
        whole grids.
        """
        return self.quantizer.encode(self._latent(image))

    @torch.no_grad()
    def decode(self, indices: Int[Tensor, "batch *index"]) -> Float[Tensor, "batch 3 height width"]:
        """Indices -> image, clamped to [-1, 1].

        Raises:
            ValueError: If an index is outside [0, codebook_size).
        """
        return self._decode(self.quantizer.decode(indices)).clamp(-1, 1)

    def _latent(self, image: Tensor) -> Tensor:
        latent: Tensor = self.pre_quant(self.encoder(image)).movedim(1, -1)
        return latent

    def _decode(self, quantized: Tensor) -> Tensor:
        reconstruction: Tensor = self.decoder(self.post_quant(quantized.movedim(-1, 1)))
        return reconstruction
