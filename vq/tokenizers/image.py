"""The image tokenizer: an encoder, a quantizer and a decoder."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from vq.networks.sizes import declared_size
from vq.quantizers import Quantizer
from vq.registry import TOKENIZERS
from vq.tokenizers.base import Tokenizer, common_image_channels
from vq.tokenizers.output import TokenizerOutput


@TOKENIZERS.register_module()
class ImageTokenizer(Tokenizer):
    """Maps an image to a grid or a sequence of indices and back.

    Two 1x1 convolutions between the networks and the quantizer (`quant_conv` and `post_quant_conv` in other projects)
    match their channels, so that any encoder can be combined with any quantizer. Published tokenizers may have other
    ones (`projection_kernel`). Networks with `num_latents` (TiTok)
    produce a sequence of that many vectors instead of a grid; for those, read `h, w` below as `num_latents`.

    Args:
        encoder: Maps an image to (batch, encoder.out_channels, h, w).
        quantizer: Quantizes (batch, h, w, quantizer.codebook_dim).
        decoder: Maps (batch, decoder.in_channels, h, w) to an image.
        projection_kernel: The height and width, an odd number, of the two convolutions; None for no convolutions, if
            the channels of the networks are those of the codes.
        value_range: The pixel values that the networks take and return for black and white. Those of the tokenizer
            stay in [-1, 1].

    Raises:
        ValueError: If the encoder and the decoder have different scaling factors, one works on a grid and the other
            on a sequence, the quantizer needs a grid and the encoder produces a sequence, the networks are built
            for images of different numbers of channels, there are no convolutions and the channels differ, or the
            kernel or the range is not one.
    """

    decoder: nn.Module

    def __init__(
        self,
        *,
        encoder: nn.Module,
        quantizer: Quantizer,
        decoder: nn.Module,
        projection_kernel: int | None = 1,
        value_range: Sequence[float | int] = (-1.0, 1.0),
    ) -> None:
        super().__init__()
        self.image_channels = common_image_channels("tokenizer", encoder, decoder)
        if encoder.downsample_factor != decoder.downsample_factor:
            raise ValueError(
                f"tokenizer: the encoder's downsampling factor is {encoder.downsample_factor} and the decoder's "
                f"upsampling factor {decoder.downsample_factor}; give them the same stages"
            )
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        self.downsample_factor = declared_size(encoder, "downsample_factor")
        self.num_latents: int | None = common_num_latents(encoder, quantizer, decoder)
        # A decoder that takes a sequence is built for one image size; one that takes a grid works with any size.
        self.image_size: tuple[int, int] | None = getattr(decoder, "image_size", None)
        self.value_range = _checked_range(value_range)
        dim, is_grid = quantizer.codebook_dim, self.num_latents is None
        self.pre_quant = _projection(
            declared_size(encoder, "out_channels"), dim, projection_kernel, is_grid=is_grid
        )
        self.post_quant = _projection(
            dim, declared_size(decoder, "in_channels"), projection_kernel, is_grid=is_grid
        )

    @property
    def codebook_size(self) -> int:
        """The number of different indices."""
        return self.quantizer.codebook_size

    def indices_shape(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of the indices of one image with this height and width in pixels."""
        factor = self.downsample_factor
        places = (height // factor, width // factor) if self.num_latents is None else (self.num_latents,)
        return places[: len(places) - len(self.quantizer.grid)] + self.quantizer.index_shape

    def forward(self, image: Float[Tensor, "batch channels height width"]) -> TokenizerOutput:
        """Reconstructs images in [-1, 1]; returns the reconstruction, the indices and the quantizer's loss.

        Raises:
            ValueError: If the decoder is built for a different image size, or the size is not divisible by the stride.
        """
        latent = self.latent(image)
        quantize = self.quantizer(latent)
        reconstruction = self._decode(quantize.quantized)
        return TokenizerOutput(reconstruction=reconstruction, latent=latent, quantize=quantize)

    @torch.no_grad()
    def encode_images(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Int[Tensor, "batch *index"]:
        """Maps images in [-1, 1] to int64 indices.

        Their shape is (batch, h, w) followed by the quantizer's `index_shape`, without h and w if the quantizer works
        on whole grids.
        """
        return self.quantizer.encode(self.latent(image))

    @torch.no_grad()
    def decode(self, indices: Shaped[Tensor, "batch *index"]) -> Float[Tensor, "batch channels height width"]:
        """Maps indices of any integer type to images in the precision of the networks, clamped to [-1, 1].

        Raises:
            ValueError: If an index is not an integer in [0, codebook_size).
        """
        return self._decode(self.codes(indices)).clamp(-1, 1)

    def bypass(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Applies the encoder and the decoder to images in [-1, 1], without quantization in between."""
        return self._decode(self.latent(image))

    def latent(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch *position codebook_dim"]:
        """Computes `z`, the input of the quantizer, of images in [-1, 1]: (batch, h, w, codebook_dim).

        Raises:
            ValueError: If the decoder is built for a different image size, or the size is not divisible by the stride.
        """
        if self.image_size is not None and image.shape[2:] != self.image_size:
            raise ValueError(
                f"ImageTokenizer: expected images of {self.image_size[0]}x{self.image_size[1]}, the size that its "
                f"decoder is built for, got {image.shape[2]}x{image.shape[3]}; resize them, or change "
                f"the decoder's image_size"
            )
        low, high = self.value_range
        if self.value_range != (-1.0, 1.0):
            image = (image + 1) * ((high - low) / 2) + low
        latent: Tensor = self.pre_quant(self.encoder(image)).movedim(1, -1)
        return latent

    def _decode(self, quantized: Tensor) -> Tensor:
        low, high = self.value_range
        reconstruction: Tensor = self.decoder(self.post_quant(quantized.movedim(-1, 1)))
        if self.value_range != (-1.0, 1.0):
            reconstruction = (reconstruction - low) * (2 / (high - low)) - 1
        return reconstruction


def _projection(in_channels: int, out_channels: int, kernel: int | None, *, is_grid: bool) -> nn.Module:
    """The convolution between a network and the quantizer."""
    if kernel is None:
        if in_channels != out_channels:
            raise ValueError(
                f"ImageTokenizer: expected networks with the channels of the codes, since projection_kernel is None, "
                f"got {in_channels} and {out_channels}; give projection_kernel=1"
            )
        return nn.Identity()
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"ImageTokenizer: expected projection_kernel to be odd, got {kernel}; try 1 or 3")
    convolution = nn.Conv2d if is_grid else nn.Conv1d
    return convolution(in_channels, out_channels, kernel, padding=kernel // 2)


def _checked_range(values: Sequence[float | int]) -> tuple[float, float]:
    if len(values) != 2 or not values[0] < values[1]:
        raise ValueError(
            f"ImageTokenizer: expected value_range to be the values of black and white, got {list(values)}; the usual "
            "ones are (-1, 1) and (0, 1)"
        )
    return float(values[0]), float(values[1])


def common_num_latents(encoder: nn.Module, quantizer: Quantizer, decoder: nn.Module) -> int | None:
    """The length of the sequence that an encoder produces and a decoder takes; None if both work on a grid.

    Raises:
        ValueError: If they differ, or the quantizer needs a grid and there is a sequence.
    """
    ours, theirs = getattr(encoder, "num_latents", None), getattr(decoder, "num_latents", None)
    if ours != theirs:
        words = ["a grid" if n is None else f"a sequence of {n}" for n in (ours, theirs)]
        raise ValueError(
            f"tokenizer: the encoder produces {words[0]}, but the decoder takes {words[1]}; combine networks of the "
            f"same kind"
        )
    if ours is not None and len(quantizer.grid) > 1:
        raise ValueError(
            f"tokenizer: {type(quantizer).__name__} quantizes whole grids, but the encoder produces a sequence; use an "
            "encoder that produces a grid"
        )
    return ours
