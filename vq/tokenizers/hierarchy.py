"""The two-level tokenizer: a coarse index map, and a fine one that is conditioned on it (VQ-VAE-2)."""

from contextlib import ExitStack

import torch
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from vq.networks.sizes import declared_size
from vq.ops.numerics.integers import as_int64
from vq.quantizers import Codebook, QuantizeOutput, Quantizer, accumulate
from vq.registry import TOKENIZERS
from vq.tokenizers.base import Tokenizer, common_image_channels
from vq.tokenizers.output import TokenizerOutput

Images = Float[Tensor, "batch channels height width"]
Map = Int[Tensor, "batch _rows _columns"]


@TOKENIZERS.register_module()
class TwoLevelTokenizer(Tokenizer):
    """Maps an image to a coarse (top) and a fine (bottom) index map and back (VQ-VAE-2).

    The image is encoded to bottom features, and these to top features, which are quantized first. The bottom vectors
    are computed from the bottom features and from the output of `top_decoder` for the top codes, concatenated. The
    decoder takes the top codes, upsampled to the bottom's size, and the bottom codes.

    `encode_levels` and `decode_levels` work with the two maps. If a single tensor is needed (in metrics and files),
    the maps are packed: each position of the top map holds its own index, followed by those of the f * f bottom
    positions that it covers, shifted by the top's codebook size. So every code of both levels has its own number.

    Source: Razavi et al. 2019, https://arxiv.org/abs/1906.00446, section 3.1 and algorithm 1.
    Differs from the source: the top codes are upsampled by a transposed convolution (as in its public code).

    Args:
        bottom_encoder: Maps an image to (batch, channels, rows * f, columns * f).
        top_encoder: Maps bottom features to (batch, channels, rows, columns); its factor f is even.
        top_quantizer: A quantizer with one index per vector.
        bottom_quantizer: A quantizer with one index per vector.
        top_decoder: Maps top codes to (batch, channels, rows * f, columns * f).
        decoder: Maps both codes, (batch, decoder.in_channels, rows * f, columns * f), to an image.

    Raises:
        ValueError: If factors or channels do not match, or a quantizer has more than one index per vector.
    """

    decoder: nn.Module

    def __init__(
        self,
        *,
        bottom_encoder: nn.Module,
        top_encoder: nn.Module,
        top_quantizer: Quantizer,
        bottom_quantizer: Quantizer,
        top_decoder: nn.Module,
        decoder: nn.Module,
    ) -> None:
        super().__init__()
        self.image_channels = common_image_channels("TwoLevelTokenizer", bottom_encoder, decoder)
        self.bottom_encoder, self.top_encoder = bottom_encoder, top_encoder
        self.top_quantizer, self.bottom_quantizer = top_quantizer, bottom_quantizer
        self.top_decoder, self.decoder = top_decoder, decoder
        self.top_factor = declared_size(top_encoder, "downsample_factor")
        bottom_factor = declared_size(bottom_encoder, "downsample_factor")
        self.downsample_factor = bottom_factor * self.top_factor
        self._check(bottom_factor)
        top, bottom = top_quantizer.codebook_dim, bottom_quantizer.codebook_dim
        features = declared_size(bottom_encoder, "out_channels") + declared_size(top_decoder, "out_channels")
        self.top_pre_quant = nn.Conv2d(declared_size(top_encoder, "out_channels"), top, 1)
        self.top_post_quant = nn.Conv2d(top, declared_size(top_decoder, "in_channels"), 1)
        self.bottom_pre_quant = nn.Conv2d(features, bottom, 1)
        factor = self.top_factor
        self.enlarge = nn.ConvTranspose2d(top, top, 2 * factor, stride=factor, padding=factor // 2)
        self.post_quant = nn.Conv2d(top + bottom, declared_size(decoder, "in_channels"), 1)

    @property
    def quantizer(self) -> Quantizer:  # type: ignore[override]  # a property in place of an attribute
        """The quantizer of the bottom level."""
        return self.bottom_quantizer

    @property
    def codebook_size(self) -> int:
        """The number of different packed indices: those of the top level, then those of the bottom level."""
        return self.top_quantizer.codebook_size + self.bottom_quantizer.codebook_size

    @property
    def index_ranges(self) -> tuple[tuple[int, int], ...]:
        """The range of the top index is the top's codebook size; the ranges of the bottom indices start there."""
        top = self.top_quantizer.codebook_size
        return ((0, top), *[(top, self.codebook_size)] * self.top_factor**2)

    def indices_shape(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of the packed indices of one image with this height and width in pixels."""
        factor = self.downsample_factor
        return height // factor, width // factor, 1 + self.top_factor**2

    def forward(self, image: Images) -> TokenizerOutput:
        """Reconstructs images in [-1, 1]; returns packed indices and the sum of both quantizers' losses.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        features, top_z = self._top(image)
        with ExitStack() as stack:
            for book in self._shared_codebooks():  # these learn once, with the bottom level
                stack.enter_context(accumulate(book))
            top: QuantizeOutput = self.top_quantizer(top_z)
        latent = self._bottom(features, top.quantized)
        bottom: QuantizeOutput = self.bottom_quantizer(latent)
        codes = self._both(top.quantized, bottom.quantized)
        metrics = {f"top/{name}": value for name, value in top.metrics.items()}
        metrics |= {f"bottom/{name}": value for name, value in bottom.metrics.items()}
        quantize = QuantizeOutput(
            quantized=codes.movedim(1, -1),
            indices=self.pack(top.indices, bottom.indices),
            loss=top.loss + bottom.loss,
            metrics=metrics,
        )
        reconstruction = self.decoder(self.post_quant(codes))
        return TokenizerOutput(reconstruction=reconstruction, latent=latent, quantize=quantize)

    def latent(self, image: Images) -> Float[Tensor, "batch _rows _columns codebook_dim"]:
        """Computes the input of the bottom quantizer of images in [-1, 1], given the codes of the top level."""
        features, top_z = self._top(image)
        top = self.top_quantizer.encode(top_z.detach())
        return self._bottom(features, self.top_quantizer.decode(top, top_z.dtype))

    def _shared_codebooks(self) -> list[Codebook]:
        """The codebooks that both quantizers share."""
        below = set(self.bottom_quantizer.modules())
        return [part for part in self.top_quantizer.modules() if isinstance(part, Codebook) and part in below]

    @torch.no_grad()
    def encode_levels(self, image: Shaped[Tensor, "*shape"]) -> tuple[Map, Map]:
        """Maps images to the top map and the bottom map, both int64. It takes the same images as `encode`."""
        return self._levels(self.as_images(image))

    def _levels(self, image: Images) -> tuple[Map, Map]:
        features, top_z = self._top(image)
        top = self.top_quantizer.encode(top_z)
        codes = self.top_quantizer.decode(top, top_z.dtype)
        return top, self.bottom_quantizer.encode(self._bottom(features, codes))

    @torch.no_grad()
    def decode_levels(self, top: Shaped[Tensor, "*top"], bottom: Shaped[Tensor, "*bottom"]) -> Images:
        """Maps the top map and the bottom map to images, clamped to [-1, 1].

        Raises:
            ValueError: If an index is out of range, or the bottom map is not f times as large as the top map.
        """
        image: Tensor = self.decoder(self.post_quant(self._codes_of_levels(top, bottom))).clamp(-1, 1)
        return image

    def codes(self, indices: Shaped[Tensor, "*axes"]) -> Float[Tensor, "batch _rows _columns codebook_dims"]:
        """Maps packed indices to the code vectors of both levels, the upsampled top codes first.

        Raises:
            ValueError: If the last axis has the wrong length, or an index is out of its level's range.
        """
        return self._codes_of_levels(*self.unpack(indices)).movedim(1, -1)

    def _codes_of_levels(self, top: Tensor, bottom: Tensor) -> Tensor:
        self._check_maps(top, bottom)
        dtype = self.post_quant.weight.dtype
        return self._both(self.top_quantizer.decode(top, dtype), self.bottom_quantizer.decode(bottom, dtype))

    @torch.no_grad()
    def encode_images(self, image: Images) -> Int[Tensor, "batch rows columns number"]:
        """Maps images in [-1, 1] to packed indices."""
        return self.pack(*self._levels(image))

    def decode(self, indices: Shaped[Tensor, "*axes"]) -> Images:
        """Maps packed indices to images, clamped to [-1, 1].

        Raises:
            ValueError: If the last axis has the wrong length, or an index is out of its level's range.
        """
        return self.decode_levels(*self.unpack(indices))

    def pack(
        self, top: Shaped[Tensor, "*top"], bottom: Shaped[Tensor, "*bottom"]
    ) -> Int[Tensor, "batch rows columns number"]:
        """Packs two maps into one tensor: each top index is followed by those of the bottom positions that it covers.

        Raises:
            ValueError: If the bottom map is not f times as large as the top map.
        """
        top, bottom = as_int64("TwoLevelTokenizer: top", top), as_int64("TwoLevelTokenizer: bottom", bottom)
        self._check_maps(top, bottom)
        f = self.top_factor
        cells = rearrange(bottom, "b (h p) (w q) -> b h w (p q)", p=f, q=f)
        return torch.cat([top[..., None], cells + self.top_quantizer.codebook_size], dim=-1)

    def unpack(self, indices: Shaped[Tensor, "*axes"]) -> tuple[Map, Map]:
        """The inverse of `pack`.

        Raises:
            ValueError: If the last axis has the wrong length.
        """
        f = self.top_factor
        if indices.shape[-1] != 1 + f * f:
            raise ValueError(
                f"TwoLevelTokenizer: expected indices whose last axis is {1 + f * f} long (one top index, {f * f} "
                f"bottom ones), got shape {tuple(indices.shape)}"
            )
        whole = as_int64("TwoLevelTokenizer: indices", indices)
        cells = whole[..., 1:] - self.top_quantizer.codebook_size
        return whole[..., 0], rearrange(cells, "b h w (p q) -> b (h p) (w q)", p=f, q=f)

    def bypass(self, image: Images) -> Images:
        """Applies all networks to images in [-1, 1], without quantization in between."""
        features, top_z = self._top(image)
        reconstruction: Tensor = self.decoder(
            self.post_quant(self._both(top_z, self._bottom(features, top_z)))
        )
        return reconstruction

    def _top(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The bottom features, and the vectors of the top level."""
        factor = self.downsample_factor
        if image.shape[2] % factor or image.shape[3] % factor:
            raise ValueError(
                f"TwoLevelTokenizer: expected a height and width that are multiples of {factor}, got "
                f"{image.shape[2]}x{image.shape[3]}; crop or resize the images"
            )
        features = self.bottom_encoder(image)
        return features, self.top_pre_quant(self.top_encoder(features)).movedim(1, -1)

    def _bottom(self, features: Tensor, top: Tensor) -> Tensor:
        """The vectors of the bottom level, given the top codes."""
        known = self.top_decoder(self.top_post_quant(top.movedim(-1, 1)))
        vectors: Tensor = self.bottom_pre_quant(torch.cat([known, features], dim=1)).movedim(1, -1)
        return vectors

    def _both(self, top: Tensor, bottom: Tensor) -> Tensor:
        return torch.cat([self.enlarge(top.movedim(-1, 1)), bottom.movedim(-1, 1)], dim=1)

    def _check(self, bottom_factor: int) -> None:
        if self.top_factor % 2:
            raise ValueError(
                f"TwoLevelTokenizer: expected a top_encoder with an even factor, got {self.top_factor}"
            )
        factors = {"top_decoder": self.top_factor, "decoder": bottom_factor}
        for name, wanted in factors.items():
            if (found := getattr(self, name).downsample_factor) != wanted:
                raise ValueError(
                    f"TwoLevelTokenizer: expected a {name} with upsampling factor {wanted}, that of its encoder, got "
                    f"{found}"
                )
        given, channels = self.top_encoder.in_channels, self.bottom_encoder.out_channels
        if given != channels:
            raise ValueError(
                f"TwoLevelTokenizer: expected a top_encoder that takes the {channels} channels of the bottom_encoder, "
                f"got one that takes {given}"
            )
        for name in ("top_quantizer", "bottom_quantizer"):
            quantizer = getattr(self, name)
            if quantizer.index_shape or quantizer.grid:
                raise ValueError(
                    f"TwoLevelTokenizer: expected a {name} with one index per vector, got "
                    f"{type(quantizer).__name__}"
                )

    def _check_maps(self, top: Tensor, bottom: Tensor) -> None:
        wanted = (*top.shape[:1], *(self.top_factor * side for side in top.shape[1:]))
        if tuple(bottom.shape) != wanted:
            raise ValueError(
                f"TwoLevelTokenizer: expected a bottom map of shape {wanted} for a top map of shape "
                f"{tuple(top.shape)}, got {tuple(bottom.shape)}"
            )
