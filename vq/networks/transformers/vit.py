"""The vision transformer encoder and decoder of ViT-VQGAN and VQ-KD."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.patches import Patches
from vq.layers.transformer import Transformer, start_linear_layers
from vq.networks.sizes import check_counts
from vq.registry import DECODERS, ENCODERS


@ENCODERS.register_module()
class ViTEncoder(nn.Module):
    """Encodes an image as a grid of features, one per patch, with a vision transformer (ViT-VQGAN).

    The layers are patches, linear, transformer, linear, tanh, linear. `patches` decides whether a patch is given by
    its pixels or its frequencies; `transformer` decides the attention and the positions.

    | setting | patches | transformer | parameters |
    |---|---|---|---|
    | VQ-KD's encoder | 16 px | 768 wide, 12 blocks, 12 heads, learned positions (14, 14), 1 extra token | 86.4 M |
    | ViT-VQGAN small | 8 px | 512 wide, 8 blocks, 8 heads | 25.6 M |

    Source: Yu et al. 2021, https://arxiv.org/abs/2110.04627, section 3.1; Peng et al. 2022 (BEiT v2),
        https://arxiv.org/abs/2208.06366, section 2.1.
    Differs from the source: the keys have no bias, and extra tokens have no position embedding, because they are
        learned anyway. Otherwise the numbers of parameters are those of the published networks.

    Args:
        patches: Splits an image into vectors, one per patch. Its `size` is the downsampling factor, and its `channels`
            those of the images.
        transformer: The transformer over the patches.
        out_channels: The number of channels of the features.
        num_extra_tokens: The number of additional learned tokens, such as a class token. They are dropped from the
            output.

    Raises:
        ValueError: If `out_channels` is below 1 or `num_extra_tokens` is below 0.

    Example:
        >>> from vq.layers import PixelPatches, RotaryPositions
        >>> transformer = Transformer(width=16, depth=1, num_heads=2, positions=RotaryPositions())
        >>> encoder = ViTEncoder(patches=PixelPatches(size=8), transformer=transformer, out_channels=4)
        >>> encoder(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 4, 4, 6])
    """

    def __init__(
        self, *, patches: Patches, transformer: Transformer, out_channels: int = 32, num_extra_tokens: int = 0
    ) -> None:
        super().__init__()
        check_counts("ViTEncoder", out_channels=out_channels)
        self.out_channels, self.downsample_factor = out_channels, patches.size
        self.image_channels = patches.channels
        self.patches, self.transformer = patches, transformer
        self.embed = nn.Linear(patches.dim, transformer.width)
        self.extra = extra_tokens("ViTEncoder", num_extra_tokens, transformer.width)
        self.head = tanh_head(transformer.width, out_channels)
        start_linear_layers(nn.ModuleList([self.embed, self.head]))

    def forward(self, image: Float[Tensor, "b c_in H W"]) -> Float[Tensor, "b c h w"]:
        """Encodes images in [-1, 1] as one feature per patch; height and width are divided by `downsample_factor`.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        rows, columns = grid = self.patches.grid_of(image)
        tokens = self.transformer(
            self.embed(self.patches.split(image)),
            places=self.patches.places(grid, image.device),
            grid=grid,
            extra=repeated(self.extra, len(image)),
        )
        return rearrange(self.head(tokens[:, -rows * columns :]), "b (h w) c -> b c h w", h=rows)


@DECODERS.register_module()
class ViTDecoder(nn.Module):
    """Decodes a grid of features to an image, one patch per feature, with a vision transformer (ViT-VQGAN).

    The decoder mirrors `ViTEncoder`: linear, transformer, linear, tanh, linear, patches. With
    `PixelPatches(size=1, channels=n)` the output is a map of n channels instead of an image (VQ-KD: 768 wide, 1
    block, 512 channels: 8.25 M parameters).

    Source: Yu et al. 2021, https://arxiv.org/abs/2110.04627, section 3.1; Peng et al. 2022 (BEiT v2),
        https://arxiv.org/abs/2208.06366, section 2.1.
    Differs from the source: as `ViTEncoder` does.

    Args:
        patches: Joins the vectors of the patches to an image; of the encoder's class, size and channels.
        transformer: The transformer over the features.
        in_channels: The number of channels of the features.
        num_extra_tokens: The number of additional learned tokens. They are dropped from the output.

    Raises:
        ValueError: If `in_channels` is below 1 or `num_extra_tokens` is below 0.

    Example:
        >>> from vq.layers import PixelPatches, RotaryPositions
        >>> transformer = Transformer(width=16, depth=1, num_heads=2, positions=RotaryPositions())
        >>> decoder = ViTDecoder(patches=PixelPatches(size=8), transformer=transformer, in_channels=4)
        >>> decoder(torch.zeros(1, 4, 4, 6)).shape
        torch.Size([1, 3, 32, 48])
    """

    def __init__(
        self, *, patches: Patches, transformer: Transformer, in_channels: int = 32, num_extra_tokens: int = 0
    ) -> None:
        super().__init__()
        check_counts("ViTDecoder", in_channels=in_channels)
        self.in_channels, self.downsample_factor = in_channels, patches.size
        self.image_channels = patches.channels
        self.patches, self.transformer = patches, transformer
        self.embed = nn.Linear(in_channels, transformer.width)
        self.extra = extra_tokens("ViTDecoder", num_extra_tokens, transformer.width)
        self.head = tanh_head(transformer.width, patches.dim)
        start_linear_layers(nn.ModuleList([self.embed, self.head]))

    @property
    def last_layer(self) -> Float[Tensor, "patch_dim width"]:
        """The weight of the last layer. Adaptive adversarial weights compare gradients with respect to it."""
        return self.head[-1].get_parameter("weight")

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out H W"]:
        """Decodes features to images in about [-1, 1], not clamped; the size is multiplied by `downsample_factor`."""
        rows, columns = grid = (features.shape[2], features.shape[3])
        tokens = self.transformer(
            self.embed(rearrange(features, "b c h w -> b (h w) c")),
            places=self.patches.places(grid, features.device),
            grid=grid,
            extra=repeated(self.extra, len(features)),
        )
        return self.patches.join(self.head(tokens[:, -rows * columns :]), grid)


def tanh_head(width: int, out_channels: int) -> nn.Sequential:
    """Makes the output layers of a network over tokens: linear, tanh, linear.

    Args:
        width: The number of channels of the tokens.
        out_channels: The number of channels of the output.
    """
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, out_channels))


def extra_tokens(place: str, count: int, width: int) -> nn.Parameter | None:
    """Makes a parameter of `count` learned tokens, or returns None if `count` is 0.

    Args:
        place: The class that has the tokens. The error message starts with it.
        count: The number of tokens.
        width: The number of channels of a token.

    Raises:
        ValueError: If `count` is negative.
    """
    if count < 0:
        raise ValueError(
            f"{place}: expected a number of extra tokens of at least 0, got {count}; 0 is for none"
        )
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(count, width), std=0.02)) if count else None


def repeated(tokens: Float[Tensor, "n c"] | None, batch: int) -> Float[Tensor, "{batch} n c"] | None:
    """Expands learned tokens to a batch; None stays None."""
    return None if tokens is None else tokens.expand(batch, -1, -1)
