"""The two-level tokenizer: a coarse map of indices, and a fine one that knows it (VQ-VAE-2)."""

from contextlib import ExitStack

import torch
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from vq.ops.numerics.integers import as_int64
from vq.quantizers import Codebook, QuantizeOutput, Quantizer, accumulate
from vq.registry import TOKENIZERS
from vq.tokenizers.base import Tokenizer, check_colours
from vq.tokenizers.output import TokenizerOutput

Images = Float[Tensor, "batch 3 height width"]
Map = Int[Tensor, "batch _rows _columns"]


@TOKENIZERS.register_module()
class TwoLevelTokenizer(Tokenizer):
    """Turns an image into a coarse and a fine map of indices and back (VQ-VAE-2).

    image -> bottom features -> top features -> top codes; the bottom codes are those of the bottom features
    beside what `top_decoder` makes of the top codes, so the top map is chosen first and the bottom map given
    it. The decoder gets the top codes at the bottom's size, beside the bottom codes.

    The two maps are `encode_levels` and `decode_levels`. Where one tensor is wanted (metrics, files), they are
    packed: at each place of the top map its index, then those of the f * f bottom places that it covers, shifted
    by the top's codebook size. So every code has a number of its own and every index is there once.

    Source: Razavi et al. 2019, https://arxiv.org/abs/1906.00446, section 3.1 and algorithm 1.
    Differs from the source: the top code is brought to the bottom's size by a transposed convolution (as in its
        public code).

    Args:
        bottom_encoder: image -> (batch, channels, rows * f, columns * f).
        top_encoder: bottom features -> (batch, channels, rows, columns); its factor f is even.
        top_quantizer: One index a vector.
        bottom_quantizer: One index a vector.
        top_decoder: top codes -> (batch, channels, rows * f, columns * f).
        decoder: both codes, (batch, decoder.in_channels, rows * f, columns * f) -> image.

    Raises:
        ValueError: If factors or channels do not fit, or a quantizer gives more than one index a vector.
    """

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
        check_colours("TwoLevelTokenizer", bottom_encoder, decoder)
        self.bottom_encoder, self.top_encoder = bottom_encoder, top_encoder
        self.top_quantizer, self.bottom_quantizer = top_quantizer, bottom_quantizer
        self.top_decoder, self.decoder = top_decoder, decoder
        self.top_factor = int(top_encoder.downsample_factor)  # type: ignore[arg-type]
        bottom_factor = int(bottom_encoder.downsample_factor)  # type: ignore[arg-type]
        self.downsample_factor = bottom_factor * self.top_factor
        self._check(bottom_factor)
        top, bottom = top_quantizer.codebook_dim, bottom_quantizer.codebook_dim
        features = int(bottom_encoder.out_channels) + int(top_decoder.out_channels)  # type: ignore[arg-type]
        self.top_pre_quant = nn.Conv2d(int(top_encoder.out_channels), top, 1)  # type: ignore[arg-type]
        self.top_post_quant = nn.Conv2d(top, int(top_decoder.in_channels), 1)  # type: ignore[arg-type]
        self.bottom_pre_quant = nn.Conv2d(features, bottom, 1)
        factor = self.top_factor
        self.enlarge = nn.ConvTranspose2d(top, top, 2 * factor, stride=factor, padding=factor // 2)
        self.post_quant = nn.Conv2d(top + bottom, int(decoder.in_channels), 1)  # type: ignore[arg-type]

    @property
    def quantizer(self) -> Quantizer:  # type: ignore[override]
        """The bottom's quantizer."""
        return self.bottom_quantizer

    @property
    def codebook_size(self) -> int:
        """The number of different packed indices: the top's, then the bottom's."""
        return self.top_quantizer.codebook_size + self.bottom_quantizer.codebook_size

    @property
    def index_ranges(self) -> tuple[tuple[int, int], ...]:
        """The top index of a place is below the top's codebook size, the others are from there on."""
        top = self.top_quantizer.codebook_size
        return ((0, top), *[(top, self.codebook_size)] * self.top_factor**2)

    def indices_shape(self, height: int, width: int) -> tuple[int, ...]:
        """The axes of one image's packed indices, for an image of this size in pixels."""
        factor = self.downsample_factor
        return height // factor, width // factor, 1 + self.top_factor**2

    def forward(self, image: Images) -> TokenizerOutput:
        """Image in [-1, 1] -> reconstruction, packed indices, the sum of the quantizers' losses.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        features, top_z = self._top(image)
        with ExitStack() as stack:
            for book in self._shared_codebooks():  # learns once, with the bottom
                stack.enter_context(accumulate(book))
            top: QuantizeOutput = self.top_quantizer(top_z)
        bottom: QuantizeOutput = self.bottom_quantizer(self._bottom(features, top.quantized))
        codes = self._both(top.quantized, bottom.quantized)
        metrics = {f"top/{name}": value for name, value in top.metrics.items()}
        metrics |= {f"bottom/{name}": value for name, value in bottom.metrics.items()}
        quantize = QuantizeOutput(
            quantized=codes.movedim(1, -1),
            indices=self.pack(top.indices, bottom.indices),
            loss=top.loss + bottom.loss,
            metrics=metrics,
        )
        return TokenizerOutput(reconstruction=self.decoder(self.post_quant(codes)), quantize=quantize)

    def latent(self, image: Images) -> Float[Tensor, "batch _rows _columns codebook_dim"]:
        """Image in [-1, 1] -> the vectors that the bottom's quantizer gets of it, given the top's codes."""
        features, top_z = self._top(image)
        top = self.top_quantizer.encode(top_z.detach())
        return self._bottom(features, self.top_quantizer.decode(top, top_z.dtype))

    def _shared_codebooks(self) -> list[Codebook]:
        """Those that both quantizers search."""
        below = set(self.bottom_quantizer.modules())
        return [part for part in self.top_quantizer.modules() if isinstance(part, Codebook) and part in below]

    @torch.no_grad()
    def encode_levels(self, image: Shaped[Tensor, "*shape"]) -> tuple[Map, Map]:
        """Images -> the top map and the bottom map, int64; changes no state. See `encode` for what images may be."""
        return self._levels(self.as_images(image))

    def _levels(self, image: Images) -> tuple[Map, Map]:
        features, top_z = self._top(image)
        top = self.top_quantizer.encode(top_z)
        codes = self.top_quantizer.decode(top, top_z.dtype)
        return top, self.bottom_quantizer.encode(self._bottom(features, codes))

    @torch.no_grad()
    def decode_levels(self, top: Shaped[Tensor, "*top"], bottom: Shaped[Tensor, "*bottom"]) -> Images:
        """The top map and the bottom map -> image, clamped to [-1, 1].

        Raises:
            ValueError: If an index is out of range, or the bottom map is not f times as large as the top map.
        """
        self._check_maps(top, bottom)
        dtype = self.post_quant.weight.dtype
        codes = self._both(self.top_quantizer.decode(top, dtype), self.bottom_quantizer.decode(bottom, dtype))
        image: Tensor = self.decoder(self.post_quant(codes)).clamp(-1, 1)
        return image

    @torch.no_grad()
    def encode_images(self, image: Images) -> Int[Tensor, "batch rows columns number"]:
        """Image in [-1, 1] -> packed indices; changes no state, whatever the mode."""
        return self.pack(*self._levels(image))

    def decode(self, indices: Shaped[Tensor, "*axes"]) -> Images:
        """Packed indices -> image, clamped to [-1, 1].

        Raises:
            ValueError: If the last axis has another length, or an index is out of its level's range.
        """
        return self.decode_levels(*self.unpack(indices))

    def pack(
        self, top: Shaped[Tensor, "*top"], bottom: Shaped[Tensor, "*bottom"]
    ) -> Int[Tensor, "batch rows columns number"]:
        """Two maps -> one tensor: at each top place its index, then those of the bottom places it covers.

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
            ValueError: If the last axis has another length.
        """
        f = self.top_factor
        if indices.shape[-1] != 1 + f * f:
            raise ValueError(
                f"TwoLevelTokenizer: expected indices whose last axis is {1 + f * f} long (one top index, {f * f} "
                f"bottom ones), got the shape {tuple(indices.shape)}"
            )
        whole = as_int64("TwoLevelTokenizer: indices", indices)
        cells = whole[..., 1:] - self.top_quantizer.codebook_size
        return whole[..., 0], rearrange(cells, "b h w (p q) -> b (h p) (w q)", p=f, q=f)

    def bypass(self, image: Images) -> Images:
        """Image in [-1, 1] -> what the networks alone make of it, with nothing quantized between them."""
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
                    f"TwoLevelTokenizer: expected a {name} that scales up by {wanted}, as its encoder scales down, "
                    f"got {found}"
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
                    f"TwoLevelTokenizer: expected a {name} with one index a vector, got "
                    f"{type(quantizer).__name__}"
                )

    def _check_maps(self, top: Tensor, bottom: Tensor) -> None:
        wanted = (*top.shape[:1], *(self.top_factor * side for side in top.shape[1:]))
        if tuple(bottom.shape) != wanted:
            raise ValueError(
                f"TwoLevelTokenizer: expected a bottom map of the shape {wanted} for a top map of "
                f"{tuple(top.shape)}, got {tuple(bottom.shape)}"
            )
