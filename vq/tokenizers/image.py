"""The image tokenizer: encoder, quantizer, decoder, in the order in which an image meets them."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from vq.quantizers import Quantizer
from vq.registry import TOKENIZERS
from vq.tokenizers.base import Tokenizer, check_colours
from vq.tokenizers.output import TokenizerOutput


@TOKENIZERS.register_module()
class ImageTokenizer(Tokenizer):
    """Turns an image into a grid of indices and back, or into a sequence of them.

    Between the networks and the quantizer stand two 1x1 convolutions (the field's `quant_conv` and
    `post_quant_conv`), so that any encoder meets any quantizer. Networks with `num_latents` (TiTok) make a
    sequence of that many vectors of an image instead of a grid: read `h, w` below as `num_latents`.

    Args:
        encoder: image -> (batch, encoder.out_channels, h, w).
        quantizer: (batch, h, w, quantizer.codebook_dim) -> `QuantizeOutput`.
        decoder: (batch, decoder.in_channels, h, w) -> image.

    Raises:
        ValueError: If the encoder and the decoder scale by different factors, or one makes a grid and the other
            wants a sequence, or the quantizer wants a grid and gets a sequence, or the networks are not made for
            the three channels of images.
    """

    def __init__(self, *, encoder: nn.Module, quantizer: Quantizer, decoder: nn.Module) -> None:
        super().__init__()
        check_colours("tokenizer", encoder, decoder)
        if encoder.downsample_factor != decoder.downsample_factor:
            raise ValueError(
                f"tokenizer: the encoder scales down by {encoder.downsample_factor} and the decoder up by "
                f"{decoder.downsample_factor}; give them the same stages"
            )
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        self.downsample_factor = int(encoder.downsample_factor)  # type: ignore[arg-type]
        self.num_latents: int | None = _num_latents(encoder, quantizer, decoder)
        # A decoder of a sequence is made for one size of images; one of a grid takes any.
        self.image_size: tuple[int, int] | None = getattr(decoder, "image_size", None)
        convolution = nn.Conv2d if self.num_latents is None else nn.Conv1d
        dim = quantizer.codebook_dim
        self.pre_quant = convolution(int(encoder.out_channels), dim, 1)  # type: ignore[arg-type]
        self.post_quant = convolution(dim, int(decoder.in_channels), 1)  # type: ignore[arg-type]

    @property
    def codebook_size(self) -> int:
        """The number of different indices."""
        return self.quantizer.codebook_size

    def indices_shape(self, height: int, width: int) -> tuple[int, ...]:
        """The axes of one image's indices, for an image of this size in pixels."""
        factor = self.downsample_factor
        places = (height // factor, width // factor) if self.num_latents is None else (self.num_latents,)
        return places[: len(places) - len(self.quantizer.grid)] + self.quantizer.index_shape

    def forward(self, image: Float[Tensor, "batch 3 height width"]) -> TokenizerOutput:
        """Image in [-1, 1] -> reconstruction, indices, the quantizer's loss.

        Raises:
            ValueError: If the decoder is made for images of another size, or the stride does not divide it.
        """
        quantize = self.quantizer(self.latent(image))
        return TokenizerOutput(reconstruction=self._decode(quantize.quantized), quantize=quantize)

    @torch.no_grad()
    def encode_images(self, image: Float[Tensor, "batch 3 height width"]) -> Int[Tensor, "batch *index"]:
        """Image in [-1, 1] -> int64 indices; changes no state, whatever the mode.

        They are (batch, h, w) and then the quantizer's `index_shape`, or without h and w where it quantizes
        whole grids.
        """
        return self.quantizer.encode(self.latent(image))

    @torch.no_grad()
    def decode(self, indices: Shaped[Tensor, "batch *index"]) -> Float[Tensor, "batch 3 height width"]:
        """Indices of any integer type -> image in the precision of the networks, clamped to [-1, 1].

        Raises:
            ValueError: If an index is not an integer in [0, codebook_size).
        """
        codes = self.quantizer.decode(indices, self.post_quant.weight.dtype)
        return self._decode(codes).clamp(-1, 1)

    def bypass(self, image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """Image in [-1, 1] -> what the networks alone make of it, with nothing quantized between them."""
        return self._decode(self.latent(image))

    def latent(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch *place codebook_dim"]:
        """Image in [-1, 1] -> the vectors that the quantizer gets of it, (batch, h, w, codebook_dim).

        Raises:
            ValueError: If the decoder is made for images of another size, or the stride does not divide it.
        """
        if self.image_size is not None and image.shape[2:] != self.image_size:
            raise ValueError(
                f"ImageTokenizer: expected images of {self.image_size[0]}x{self.image_size[1]}, for which its decoder "
                f"is made, got {image.shape[2]}x{image.shape[3]}; resize them, or change the decoder's image_size"
            )
        latent: Tensor = self.pre_quant(self.encoder(image)).movedim(1, -1)
        return latent

    def _decode(self, quantized: Tensor) -> Tensor:
        reconstruction: Tensor = self.decoder(self.post_quant(quantized.movedim(-1, 1)))
        return reconstruction


def _num_latents(encoder: nn.Module, quantizer: Quantizer, decoder: nn.Module) -> int | None:
    ours, theirs = getattr(encoder, "num_latents", None), getattr(decoder, "num_latents", None)
    if ours != theirs:
        words = ["a grid" if n is None else f"a sequence of {n}" for n in (ours, theirs)]
        raise ValueError(
            f"tokenizer: the encoder makes {words[0]}, but the decoder takes {words[1]}; give them the same kind"
        )
    if ours is not None and len(quantizer.grid) > 1:
        raise ValueError(
            f"tokenizer: {type(quantizer).__name__} quantizes whole grids, but the encoder makes a sequence; take "
            "an encoder of grids"
        )
    return ours
