"""The encoder and the two decoders of the published TiTok models."""

from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.patches import Patches
from vq.layers.transformer import Transformer, grid_places, start_linear_layers
from vq.networks.sizes import check_counts, declared_size
from vq.registry import DECODERS, ENCODERS

NORM_EPS = 1e-5
"""What the published models add to the variance in every layer norm."""


@ENCODERS.register_module()
class TiTokEncoder(nn.Module):
    """Encodes an image as a few learned tokens that attend to all its patches, as the published TiTok models do.

    The transformer sees the learned tokens, a class token and the patches with learned positions, all normalized. The
    features are its outputs for the learned tokens, projected by a linear layer.

    | size | transformer: width, depth, heads |
    |---|---|
    | S | 512, 8, 8 |
    | B | 768, 12, 12 |
    | L | 1024, 24, 16 |

    Source: Yu et al. 2024, https://arxiv.org/abs/2406.07550, section 3.2, eq. 2; the published weights.
    Differs from the source: keys have no bias, which would cancel in the softmax; vectors that are only used as a
        sum, such as a token and its position, are one vector.

    Args:
        patches: Splits an image into vectors, one per patch. Its `channels` are those of the images.
        transformer: The transformer over learned tokens and patches, without positions. The published models have
            `norm_eps=1e-5`.
        image_size: (height, width) of the images in pixels, or one number for both.
        num_latents: The number of learned tokens, which is the number of features of an image.
        out_channels: The number of channels of the features.
        reshaped: Whether the outputs for the learned tokens, (num_latents, width), are reshaped to (width,
            num_latents) where they should be transposed. The first published models (L-32, B-64, S-128) were trained
            so: each of their features mixes several tokens.

    Raises:
        ValueError: If a number is below 1, the transformer has positions, or `image_size` is not a multiple of the
            patch size.

    Example:
        >>> from vq.layers import PixelPatches
        >>> encoder = TiTokEncoder(
        ...     patches=PixelPatches(size=8),
        ...     transformer=Transformer(width=16, depth=1, num_heads=2),
        ...     image_size=32,
        ...     num_latents=5,
        ...     out_channels=4,
        ... )
        >>> encoder(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 4, 5])
    """

    def __init__(
        self,
        *,
        patches: Patches,
        transformer: Transformer,
        image_size: int | Sequence[int],
        num_latents: int = 32,
        out_channels: int = 12,
        reshaped: bool = False,
    ) -> None:
        super().__init__()
        check_counts("TiTokEncoder", num_latents=num_latents, out_channels=out_channels)
        _check_positions("TiTokEncoder", transformer)
        self.out_channels, self.downsample_factor = out_channels, patches.size
        self.image_channels = patches.channels
        self.num_latents, self.reshaped = num_latents, reshaped
        self.grid = _grid("TiTokEncoder", image_size, patches.size)
        self.patches, self.transformer = patches, transformer
        width = transformer.width
        self.embed = nn.Linear(patches.dim, width)
        self.latents, self.class_token = _vectors(num_latents, width), _vectors(1, width)
        self.places = _vectors(self.grid[0] * self.grid[1], width)
        self.pre_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = nn.Linear(width, out_channels)
        start_linear_layers(nn.ModuleList([self.embed, self.head]))

    def forward(self, image: Float[Tensor, "b channels H W"]) -> Float[Tensor, "b c t"]:
        """Encodes images of `image_size` as `num_latents` features.

        Raises:
            ValueError: If the images have another size.
        """
        if (grid := self.patches.grid_of(image)) != self.grid:
            rows, columns = (side * self.patches.size for side in self.grid)
            raise ValueError(
                f"TiTokEncoder: expected images of {rows}x{columns}, got {image.shape[2]}x{image.shape[3]}; resize "
                "them, or change image_size"
            )
        extra = torch.cat([self.latents, self.class_token]).expand(len(image), -1, -1)
        tokens = self.transformer(
            self.pre_norm(self.embed(self.patches.split(image)) + self.places),
            places=grid_places(grid, image.device),
            grid=grid,
            extra=self.pre_norm(extra),
        )
        latents = tokens[:, : self.num_latents]
        if self.reshaped:
            latents = latents.reshape(len(image), -1, self.num_latents).transpose(1, 2)
        return self.head(latents).transpose(1, 2)


class _QueriesDecoder(nn.Module):
    """Maps a sequence of features to a grid of vectors: one learned query per patch attends to the features.

    Args:
        transformer: The transformer over features and queries, without positions.
        image_size: (height, width) of the images in pixels, or one number for both.
        patch_size: The height and width in pixels of the part of the image that a query stands for.
        num_latents: The number of features of an image.
        in_channels: The number of channels of the features.
    """

    def __init__(
        self,
        *,
        transformer: Transformer,
        image_size: int | Sequence[int],
        patch_size: int,
        num_latents: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        place = type(self).__name__
        check_counts(place, num_latents=num_latents, in_channels=in_channels)
        _check_positions(place, transformer)
        rows, columns = self.grid = _grid(place, image_size, patch_size)
        self.image_size = (rows * patch_size, columns * patch_size)
        self.in_channels, self.num_latents, self.downsample_factor = in_channels, num_latents, patch_size
        self.transformer = transformer
        self.embed = nn.Linear(in_channels, transformer.width)
        self.latent_places = _vectors(num_latents, transformer.width)
        self.class_token = _vectors(1, transformer.width)
        self.queries = _vectors(rows * columns, transformer.width)
        self.pre_norm = nn.LayerNorm(transformer.width, eps=NORM_EPS)
        start_linear_layers(nn.ModuleList([self.embed]))

    def attended(self, features: Float[Tensor, "b c t"]) -> Float[Tensor, "b n width"]:
        """Returns the outputs of the transformer for the queries, row by row.

        Raises:
            ValueError: If the number of features is not `num_latents`.
        """
        batch, _, count = features.shape
        if count != self.num_latents:
            raise ValueError(
                f"{type(self).__name__}: expected {self.num_latents} features per image, got {count}; set num_latents "
                "to the encoder's"
            )
        latents = self.embed(features.transpose(1, 2)) + self.latent_places
        tokens: Tensor = self.transformer(
            self.pre_norm(self.queries).expand(batch, -1, -1),
            places=grid_places(self.grid, features.device),
            grid=self.grid,
            extra=self.pre_norm(torch.cat([self.class_token.expand(batch, -1, -1), latents], dim=1)),
        )
        return tokens[:, self.num_latents + 1 :]


@DECODERS.register_module()
class TiTokDecoder(_QueriesDecoder):
    """Decodes a sequence of features to an image: one query per patch attends to the features (single-stage TiTok).

    The transformer sees a class token, the features and the queries, all normalized. A linear layer maps its outputs
    for the queries to pixels, and a 3x3 convolution smooths the image.

    Source: Yu et al. 2024, https://arxiv.org/abs/2406.07550, section 3.2, eq. 3; Kim et al. 2025,
        https://arxiv.org/abs/2501.07730, section 3.1 (single stage); the published weights.
    Differs from the source: as `TiTokEncoder` does.

    Args:
        patches: Joins the vectors of the patches to an image. Its `channels` are those of the images.
        transformer: The transformer over features and queries, without positions.
        image_size: (height, width) of the images in pixels, or one number for both.
        num_latents: The number of features of an image.
        in_channels: The number of channels of the features.

    Raises:
        ValueError: If a number is below 1, the transformer has positions, or `image_size` is not a multiple of the
            patch size.
    """

    def __init__(
        self,
        *,
        patches: Patches,
        transformer: Transformer,
        image_size: int | Sequence[int],
        num_latents: int = 32,
        in_channels: int = 12,
    ) -> None:
        super().__init__(
            transformer=transformer,
            image_size=image_size,
            patch_size=patches.size,
            num_latents=num_latents,
            in_channels=in_channels,
        )
        self.image_channels = patches.channels
        self.patches = patches
        self.head = nn.Linear(transformer.width, patches.dim)
        self.smooth = nn.Conv2d(patches.channels, patches.channels, 3, padding=1)
        start_linear_layers(nn.ModuleList([self.head]))

    @property
    def last_layer(self) -> Float[Tensor, "channels channels 3 3"]:
        """The weight of the last layer. Adaptive adversarial weights compare gradients with respect to it."""
        return self.smooth.weight

    def forward(self, features: Float[Tensor, "b c t"]) -> Float[Tensor, "b channels H W"]:
        """Decodes `num_latents` features to images of `image_size`, not clamped.

        Raises:
            ValueError: If the number of features is not `num_latents`.
        """
        return self.smooth(self.patches.join(self.head(self.attended(features)), self.grid))


@DECODERS.register_module()
class TiTokCodeDecoder(_QueriesDecoder):
    """Decodes a sequence of features to a mixture of another tokenizer's codes, and this to an image (two-stage TiTok).

    The transformer sees what that of `TiTokDecoder` sees. Linear, tanh and linear layers map its outputs for the
    queries to one score per code of the other tokenizer. The mean of the codes, weighted by the softmax of the scores,
    is the input of that tokenizer's decoder.

    Source: Yu et al. 2024, https://arxiv.org/abs/2406.07550, sections 3.2 and 3.3 (two-stage training with proxy
        codes); the published weights, whose proxy codes are those of MaskGIT's VQGAN.
    Differs from the source: as `TiTokEncoder` does.

    Args:
        decoder: The decoder of the other tokenizer. Its `in_channels` are those of the codes.
        transformer: The transformer over features and queries, without positions.
        image_size: (height, width) of the images in pixels, or one number for both.
        num_codes: The number of codes of the other tokenizer.
        num_latents: The number of features of an image.
        in_channels: The number of channels of the features.

    Raises:
        ValueError: If a number is below 1, the transformer has positions, or `image_size` is not a multiple of the
            factor of `decoder`.
    """

    def __init__(
        self,
        *,
        decoder: nn.Module,
        transformer: Transformer,
        image_size: int | Sequence[int],
        num_codes: int = 1024,
        num_latents: int = 32,
        in_channels: int = 12,
    ) -> None:
        check_counts("TiTokCodeDecoder", num_codes=num_codes)
        super().__init__(
            transformer=transformer,
            image_size=image_size,
            patch_size=declared_size(decoder, "downsample_factor"),
            num_latents=num_latents,
            in_channels=in_channels,
        )
        self.image_channels = declared_size(decoder, "image_channels")
        width = transformer.width
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, num_codes))
        self.codes = nn.Parameter(torch.randn(num_codes, declared_size(decoder, "in_channels")))
        self.decoder = decoder
        start_linear_layers(self.head)

    @property
    def last_layer(self) -> Float[Tensor, "*shape"]:
        """The weight of the last layer. Adaptive adversarial weights compare gradients with respect to it."""
        return cast("Tensor", self.decoder.last_layer)

    def forward(self, features: Float[Tensor, "b c t"]) -> Float[Tensor, "b channels H W"]:
        """Decodes `num_latents` features to images of `image_size`, not clamped.

        Raises:
            ValueError: If the number of features is not `num_latents`.
        """
        mixed = self.head(self.attended(features)).softmax(-1) @ self.codes
        image: Tensor = self.decoder(rearrange(mixed, "b (h w) c -> b c h w", h=self.grid[0]))
        return image


def _grid(place: str, image_size: int | Sequence[int], patch_size: int) -> tuple[int, int]:
    """The number of rows and columns of the patches of images."""
    check_counts(place, image_size=image_size)
    height, width = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"{place}: expected an image_size that is a multiple of the patch size {patch_size}, got {height}x{width}; "
            "change one of them"
        )
    return height // patch_size, width // patch_size


def _check_positions(place: str, transformer: Transformer) -> None:
    if transformer.positions is not None:
        raise ValueError(
            f"{place}: expected a transformer without positions, got {type(transformer.positions).__name__}; the "
            "network has learned positions of its own"
        )


def _vectors(count: int, width: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(count, width) / width**0.5)
