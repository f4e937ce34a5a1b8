"""A tokenizer of features: it maps images to indices, and indices to features of a teacher, but not to images."""

from typing import NoReturn, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from vq.errors import UserError
from vq.networks.sizes import declared_size, image_channels_of
from vq.quantizers import Quantizer
from vq.registry import TOKENIZERS
from vq.tokenizers.base import Tokenizer
from vq.tokenizers.output import TokenizerOutput


class NoImageDecoderError(UserError, TypeError):
    """Images were asked of a tokenizer that has no image decoder."""


@TOKENIZERS.register_module()
class FeatureTokenizer(Tokenizer):
    """Maps an image to a grid of indices whose codes describe the content of the image rather than its pixels.

    * VQ-KD: the encoder is trained, and the decoder predicts the features of a frozen teacher from the codes. The
      training step compares them (`vq.losses.FeatureAlignment` with `source="reconstruction"`).
    * Cluster: the encoder is a frozen teacher (`TeacherEncoder`), its features are clustered by the quantizer, and
      there is no decoder.

    The encoder's features are quantized as they are: no convolution stands between them and the quantizer. To get
    images from the indices, train a decoder for them (`TokenizerWithDecoder`, configs/decoder/vqgan.py).

    Source: Peng et al. 2022 (BEiT v2, VQ-KD), https://arxiv.org/abs/2208.06366, section 2.1; Wang et al. 2024,
        https://arxiv.org/abs/2411.04406 (Cluster).

    Args:
        encoder: Maps an image to (batch, encoder.out_channels, h, w).
        quantizer: Quantizes (batch, h, w, encoder.out_channels).
        decoder: Maps (batch, encoder.out_channels, h, w) to features (batch, channels, h, w); None for no decoder.

    Raises:
        ValueError: If the encoder's channels are not those of the quantizer or of the decoder, or it produces a
            sequence instead of a grid.
    """

    has_image_decoder = False

    def __init__(self, *, encoder: nn.Module, quantizer: Quantizer, decoder: nn.Module | None = None) -> None:
        super().__init__()
        self.image_channels = image_channels_of(encoder)
        if getattr(encoder, "num_latents", None) is not None:
            raise ValueError(
                f"FeatureTokenizer: expected an encoder that produces a grid, got {type(encoder).__name__}, which "
                f"produces a sequence, with which no teacher's features can be compared"
            )
        channels = {"encoder.out_channels": declared_size(encoder, "out_channels")}
        if decoder is not None:
            channels["decoder.in_channels"] = declared_size(decoder, "in_channels")
        for name, number in channels.items():
            if number != quantizer.codebook_dim:
                raise ValueError(
                    f"FeatureTokenizer: expected {name} to be {quantizer.codebook_dim}, the quantizer's codebook_dim, "
                    f"got {number}; change one of them"
                )
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        self.downsample_factor = declared_size(encoder, "downsample_factor")

    @property
    def codebook_size(self) -> int:
        """The number of different indices."""
        return self.quantizer.codebook_size

    def indices_shape(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of the indices of one image with this height and width in pixels."""
        places = (height // self.downsample_factor, width // self.downsample_factor)
        return places[: len(places) - len(self.quantizer.grid)] + self.quantizer.index_shape

    def forward(
        self,
        image: Float[Tensor, "batch channels height width"] | None = None,
        *,
        latent: Float[Tensor, "batch h w codebook_dim"] | None = None,
    ) -> TokenizerOutput:
        """Predicts the teacher's features of images; without a decoder these are the quantized vectors.

        Args:
            image: Images in [-1, 1].
            latent: What `latent` returns for the images, if it is known: the stored features of a frozen encoder. The
                images are then not needed.

        Raises:
            ValueError: If there are neither images nor their latent, or both.
        """
        if (image is None) == (latent is None):
            raise ValueError("FeatureTokenizer: expected either images or their latent, got neither or both")
        latent = self.latent(cast(Tensor, image)) if latent is None else latent
        quantize = self.quantizer(latent)
        return TokenizerOutput(
            reconstruction=self.decode_features(quantize.quantized), latent=latent, quantize=quantize
        )

    def latent(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch h w codebook_dim"]:
        """Computes `z`, the input of the quantizer, of images in [-1, 1]."""
        return rearrange(self.encoder(image), "b c h w -> b h w c")

    @torch.no_grad()
    def encode_images(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Int[Tensor, "batch *index"]:
        """Maps images in [-1, 1] to int64 indices."""
        return self.quantizer.encode(self.latent(image))

    def decode_features(
        self, codes: Float[Tensor, "batch h w codebook_dim"]
    ) -> Float[Tensor, "batch channels _rows _columns"]:
        """Maps code vectors to the teacher's features; without a decoder it only moves the channels to axis 1."""
        features = rearrange(codes, "b h w c -> b c h w")
        return features if self.decoder is None else self.decoder(features)

    def decode(self, indices: Shaped[Tensor, "batch *index"]) -> NoReturn:
        """Raises `NoImageDecoderError`: the indices of this tokenizer are no description of pixels."""
        raise NoImageDecoderError(
            "FeatureTokenizer: has no image decoder, because its codes stand for features of a teacher; train one for "
            "its indices with configs/decoder/vqgan.py and --config-options it_state_dict::THIS_RUN"
        )

    def bypass(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch _features _h _w"]:
        """Applies the encoder and the decoder of features to images in [-1, 1], without quantization in between."""
        return self.decode_features(self.latent(image))
