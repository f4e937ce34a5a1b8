"""An encoder and decoder whose features are a short sequence of tokens without positions in the image (TiTok)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.patches import Patches
from vq.layers.transformer import Transformer, start_linear_layers
from vq.networks.sizes import check_counts
from vq.networks.transformers.vit import extra_tokens, repeated, tanh_head
from vq.registry import DECODERS, ENCODERS


@ENCODERS.register_module()
class LatentTokensEncoder(nn.Module):
    """Encodes an image as a few learned tokens that attend to all its patches (TiTok, ViT + extra token).

    The transformer sees `num_latents` learned tokens, followed by the patches. The features are its outputs for the
    learned tokens. Their number is the same for any image size.

    Source: Yu et al. 2024, https://arxiv.org/abs/2406.07550, section 3.2, eq. 2.
    Differs from the source: the learned tokens come first and have no separate position embeddings; there is no class
        token.

    Args:
        patches: Splits an image into vectors, one per patch. Its `channels` are those of the images.
        transformer: The transformer over learned tokens and patches.
        num_latents: The number of learned tokens, which is the number of features of an image.
        out_channels: The number of channels of the features.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> from vq.layers import PixelPatches, RotaryPositions
        >>> transformer = Transformer(width=16, depth=1, num_heads=2, positions=RotaryPositions())
        >>> encoder = LatentTokensEncoder(
        ...     patches=PixelPatches(size=8), transformer=transformer, num_latents=5, out_channels=4
        ... )
        >>> encoder(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 4, 5])
    """

    def __init__(
        self, *, patches: Patches, transformer: Transformer, num_latents: int = 32, out_channels: int = 12
    ) -> None:
        super().__init__()
        check_counts("LatentTokensEncoder", num_latents=num_latents, out_channels=out_channels)
        self.out_channels, self.downsample_factor = out_channels, patches.size
        self.image_channels = patches.channels
        self.num_latents = num_latents
        self.patches, self.transformer = patches, transformer
        self.embed = nn.Linear(patches.dim, transformer.width)
        self.latents = extra_tokens("LatentTokensEncoder", num_latents, transformer.width)
        self.head = tanh_head(transformer.width, out_channels)
        start_linear_layers(nn.ModuleList([self.embed, self.head]))

    def forward(self, image: Float[Tensor, "b channels H W"]) -> Float[Tensor, "b c t"]:
        """Encodes images in [-1, 1] as `num_latents` features.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        grid = self.patches.grid_of(image)
        tokens = self.transformer(
            self.embed(self.patches.split(image)),
            places=self.patches.places(grid, image.device),
            grid=grid,
            extra=repeated(self.latents, len(image)),
        )
        return self.head(tokens[:, : self.num_latents]).transpose(1, 2)


@DECODERS.register_module()
class LatentTokensDecoder(nn.Module):
    """Decodes a sequence of features to an image: one mask token per patch attends to the features (TiTok).

    The transformer sees the features, followed by a copy of the learned mask token for each patch. Its outputs for
    the copies are the patches. Because the number of features does not depend on the image size, the decoder is
    made for one size.

    Source: Yu et al. 2024, https://arxiv.org/abs/2406.07550, section 3.2, eq. 3.
    Differs from the source: as `LatentTokensEncoder` does, and the output is pixels, not the tokens of another
        tokenizer.

    Args:
        patches: Joins the vectors of the patches to an image. Its `channels` are those of the images.
        transformer: The transformer over features and mask tokens. It must have positions, or all patches would be
            equal.
        num_latents: The number of features of an image.
        in_channels: The number of channels of the features.
        image_size: (height, width) of the images in pixels, or one number for both.

    Raises:
        ValueError: If a number is below 1, the transformer has no positions, or `image_size` is not a multiple of
            the patch size.
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
        super().__init__()
        check_counts(
            "LatentTokensDecoder", image_size=image_size, num_latents=num_latents, in_channels=in_channels
        )
        height, width = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if transformer.positions is None:
            raise ValueError(
                "LatentTokensDecoder: expected a transformer with positions, got one without, whose patches would all "
                "be equal; set its positions"
            )
        if height % patches.size or width % patches.size:
            raise ValueError(
                f"LatentTokensDecoder: expected an image_size that is a multiple of the patch size {patches.size}, got "
                f"{height}x{width}; change one of them"
            )
        self.image_size = (height, width)
        self.grid = (height // patches.size, width // patches.size)
        self.in_channels, self.downsample_factor = in_channels, patches.size
        self.image_channels = patches.channels
        self.num_latents = num_latents
        self.patches, self.transformer = patches, transformer
        self.embed = nn.Linear(in_channels, transformer.width)
        self.latent_places = extra_tokens("LatentTokensDecoder", num_latents, transformer.width)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(transformer.width), std=0.02))
        self.head = tanh_head(transformer.width, patches.dim)
        start_linear_layers(nn.ModuleList([self.embed, self.head]))

    @property
    def last_layer(self) -> Float[Tensor, "patch_dim width"]:
        """The weight of the last layer. Adaptive adversarial weights compare gradients with respect to it."""
        return self.head[-1].get_parameter("weight")

    def forward(self, features: Float[Tensor, "b c t"]) -> Float[Tensor, "b channels H W"]:
        """Decodes `num_latents` features to images of `image_size` in about [-1, 1], not clamped.

        Raises:
            ValueError: If the number of features is not `num_latents`.
        """
        if features.shape[2] != self.num_latents:
            raise ValueError(
                f"LatentTokensDecoder: expected {self.num_latents} features per image, got {features.shape[2]}; set "
                "num_latents to the encoder's"
            )
        count = self.grid[0] * self.grid[1]
        tokens = self.transformer(
            self.mask_token.expand(len(features), count, -1),
            places=self.patches.places(self.grid, features.device),
            grid=self.grid,
            extra=self.embed(features.transpose(1, 2)) + self.latent_places,
        )
        return self.patches.join(self.head(tokens[:, self.num_latents :]), self.grid)
