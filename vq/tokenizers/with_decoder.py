"""A frozen tokenizer with a new image decoder."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from vq.networks.sizes import declared_size
from vq.ops.numerics.precision import without_autocast
from vq.quantizers import Quantizer
from vq.registry import TOKENIZERS
from vq.tokenizers.base import Tokenizer, common_image_channels
from vq.tokenizers.hierarchy import TwoLevelTokenizer
from vq.tokenizers.image import common_num_latents
from vq.tokenizers.output import TokenizerOutput


@TOKENIZERS.register_module()
class TokenizerWithDecoder(Tokenizer):
    """Decodes the indices of a frozen tokenizer to images by a decoder of its own, which is trained.

    `encode` gives the frozen tokenizer's indices, whatever is trained here: they are computed in its own precision,
    outside autocast. `decode` maps the code vectors through `post_quant`, a 1x1 convolution, to the decoder. The
    frozen tokenizer may be one without an image decoder (`FeatureTokenizer`), or have one that is not used.

    Args:
        tokenizer: The tokenizer whose indices are decoded; frozen here.
        decoder: Maps (batch, decoder.in_channels, h, w) to an image.
        stores_tokenizer: Whether the state dict, and so each checkpoint, holds the weights of `tokenizer` too. If not,
            a checkpoint refers to their files by path and SHA-256, and they must be there when it is loaded.

    Raises:
        ValueError: If the decoder's factor is not that of the tokenizer, one works on a grid and the other on a
            sequence, they are for images of different numbers of channels, or the tokenizer has two levels.
    """

    decoder: nn.Module

    def __init__(self, *, tokenizer: Tokenizer, decoder: nn.Module, stores_tokenizer: bool = True) -> None:
        super().__init__()
        if isinstance(tokenizer, TwoLevelTokenizer):
            raise ValueError(
                "TokenizerWithDecoder: expected a tokenizer with one grid of codes, got a TwoLevelTokenizer, whose two "
                "maps have different sizes; fine-tune its own decoder instead (configs/decoder/finetune.py)"
            )
        if tokenizer.downsample_factor != (factor := declared_size(decoder, "downsample_factor")):
            raise ValueError(
                f"TokenizerWithDecoder: expected a decoder with upsampling factor {tokenizer.downsample_factor}, the "
                f"tokenizer's, got {factor}; give it other stages"
            )
        self.image_channels = common_image_channels("TokenizerWithDecoder", tokenizer, decoder)
        self.num_latents = common_num_latents(tokenizer, tokenizer.quantizer, decoder)
        self.tokenizer, self.decoder, self.stores_tokenizer = tokenizer, decoder, stores_tokenizer
        self.downsample_factor = tokenizer.downsample_factor
        self.image_size: tuple[int, int] | None = getattr(decoder, "image_size", None)
        convolution = nn.Conv2d if self.num_latents is None else nn.Conv1d
        self.post_quant = convolution(
            tokenizer.quantizer.codebook_dim, declared_size(decoder, "in_channels"), 1
        )
        self.freeze(["tokenizer"])
        if not stores_tokenizer:
            self.register_state_dict_post_hook(_leave_out_tokenizer)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_post_hook(_miss_no_tokenizer)  # type: ignore[no-untyped-call]

    @property
    def quantizer(self) -> Quantizer:  # type: ignore[override]  # a property in place of an attribute
        """The quantizer of the frozen tokenizer."""
        return self.tokenizer.quantizer

    @property
    def codebook_size(self) -> int:
        """The number of different indices."""
        return self.tokenizer.codebook_size

    @property
    def index_ranges(self) -> tuple[tuple[int, int], ...]:
        """The values that the indices of a position can have."""
        return self.tokenizer.index_ranges

    def indices_shape(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of the indices of one image with this height and width in pixels."""
        return self.tokenizer.indices_shape(height, width)

    def forward(self, image: Float[Tensor, "batch channels height width"]) -> TokenizerOutput:
        """Reconstructs images in [-1, 1] from their indices; the quantizer learns nothing, so its loss is 0."""
        latent = self.latent(image)
        with torch.no_grad():
            quantize = self.quantizer(latent)
        quantize = replace(quantize, loss=torch.zeros_like(quantize.loss))
        reconstruction = self._decode(quantize.quantized)
        return TokenizerOutput(reconstruction=reconstruction, latent=latent, quantize=quantize)

    @torch.no_grad()
    def latent(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch *position codebook_dim"]:
        """Computes `z` of images in [-1, 1], as the frozen tokenizer does."""
        with without_autocast(image):
            return self.tokenizer.latent(image.to(self.tokenizer.dtype))

    @torch.no_grad()
    def encode_images(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Int[Tensor, "batch *index"]:
        """Maps images in [-1, 1] to the indices of the frozen tokenizer."""
        return self.quantizer.encode(self.latent(image))

    @torch.no_grad()
    def decode(self, indices: Shaped[Tensor, "batch *index"]) -> Float[Tensor, "batch channels height width"]:
        """Maps indices of any integer type to images, clamped to [-1, 1].

        Raises:
            ValueError: If an index is not an integer in [0, codebook_size).
        """
        return self._decode(self.codes(indices)).clamp(-1, 1)

    def codes(self, indices: Shaped[Tensor, "batch *index"]) -> Float[Tensor, "batch *position codebook_dim"]:
        """Maps indices to the code vectors of the frozen tokenizer."""
        return self.tokenizer.codes(indices)

    def bypass(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Decodes the frozen tokenizer's latent of images in [-1, 1], without quantization in between."""
        return self._decode(self.latent(image))

    def _decode(self, quantized: Tensor) -> Tensor:
        reconstruction: Tensor = self.decoder(self.post_quant(quantized.movedim(-1, 1)))
        return reconstruction


def _leave_out_tokenizer(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}tokenizer.")]:
        del state[name]


def _miss_no_tokenizer(module: nn.Module, keys: Any) -> None:
    """Accepts a state dict without the tokenizer's weights, as `state_dict` makes it."""
    assert isinstance(module, TokenizerWithDecoder)
    own = tuple(f"tokenizer.{name}" for name in module.tokenizer.state_dict())
    keys.missing_keys[:] = [name for name in keys.missing_keys if not name.endswith(own)]
