"""An encoder and decoder whose features are a short sequence of tokens without a place in the image (TiTok)."""

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
    """Lets a few learned tokens look at all patches of an image, and keeps only them (TiTok, ViT + extra token).

    The sequence is `num_latents` learned tokens, then the patches; what the blocks make of the former are
    the features. Any image size; the number of latents stays.

    Source: Yu et al. 2024, https://arxiv.org/abs/2406.07550, section 3.2, eq. 2.
    Differs from the source: the learned tokens stand first and are their own positions; no class token.

    Args:
        patches: Cuts the image into vectors.
        transformer: Mixes the tokens.
        num_latents: Features of an image.
        out_channels: Channels of the features.

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
        self.num_latents = num_latents
        self.patches, self.transformer = patches, transformer
        self.embed = nn.Linear(patches.dim, transformer.width)
        self.latents = extra_tokens("LatentTokensEncoder", num_latents, transformer.width)
        self.head = tanh_head(transformer.width, out_channels)
        start_linear_layers(nn.ModuleList([self.embed, self.head]))

    def forward(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c t"]:
        """Images in [-1, 1] to the features of `num_latents` tokens.

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
        features: Tensor = self.head(tokens[:, : self.num_latents])
        return features.transpose(1, 2)


@DECODERS.register_module()
class LatentTokensDecoder(nn.Module):
    """Lets copies of one learned token, told apart by their places, look at the latents, and paints them (TiTok).

    The mirror image of `LatentTokensEncoder`: the sequence is the latents, then a copy of the mask token
    for each patch; what the blocks make of the copies are the patches. A sequence does not say how large the
    image was, so the decoder is made for one size.

    Source: Yu et al. 2024, https://arxiv.org/abs/2406.07550, section 3.2, eq. 3.
    Differs from the source: see `LatentTokensEncoder`; paints pixels, not the tokens of another tokenizer.

    Args:
        patches: Puts the image together.
        transformer: Mixes the tokens; needs positions, or all patches would look the same.
        num_latents: Features of an image.
        in_channels: Channels of the features.
        image_size: Height and width of the images, or both as one number.

    Raises:
        ValueError: If a number is below 1, the transformer has no positions, or the size of the patches does
            not divide that of the images.
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
                "LatentTokensDecoder: expected a transformer with positions, got one without; all patches "
                "would be equal"
            )
        if height % patches.size or width % patches.size:
            raise ValueError(
                f"LatentTokensDecoder: expected an image_size that {patches.size} (the patches' size) divides, got "
                f"{height}x{width}"
            )
        self.image_size = (height, width)
        self.grid = (height // patches.size, width // patches.size)
        self.in_channels, self.downsample_factor = in_channels, patches.size
        self.num_latents = num_latents
        self.patches, self.transformer = patches, transformer
        self.embed = nn.Linear(in_channels, transformer.width)
        self.latent_places = extra_tokens("LatentTokensDecoder", num_latents, transformer.width)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(transformer.width), std=0.02))
        self.head = tanh_head(transformer.width, patches.dim)
        start_linear_layers(nn.ModuleList([self.embed, self.head]))

    @property
    def last_layer(self) -> Tensor:
        """The parameter that paints the pixels; an adaptive adversarial weight compares gradients there."""
        return self.head[-1].get_parameter("weight")

    def forward(self, features: Float[Tensor, "b c t"]) -> Float[Tensor, "b 3 H W"]:
        """The features of `num_latents` tokens to images of `image_size`, about [-1, 1] but not clamped.

        Raises:
            ValueError: If there are more or fewer features.
        """
        if features.shape[2] != self.num_latents:
            raise ValueError(
                f"LatentTokensDecoder: expected {self.num_latents} features an image, got {features.shape[2]}"
            )
        count = self.grid[0] * self.grid[1]
        tokens = self.transformer(
            self.mask_token.expand(len(features), count, -1),
            places=self.patches.places(self.grid, features.device),
            grid=self.grid,
            extra=self.embed(features.transpose(1, 2)) + self.latent_places,
        )
        return self.patches.join(self.head(tokens[:, self.num_latents :]), self.grid)
