"""A transformer over patches as encoder and decoder (ViT-VQGAN, VQ-KD)."""

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
    """Cuts an image into patches, lets them look at each other, and gives a vector for each (ViT-VQGAN).

    patches, linear, transformer, linear, tanh, linear. `patches` decides what a patch is: pixels, or
    frequencies; `transformer` how tokens look at each other and how they know their places.

    | setting | patches | transformer | parameters |
    |---|---|---|---|
    | VQ-KD's encoder | 16 px | 768 wide, 12 blocks, 12 heads, learned positions (14, 14), 1 extra token | 86.4 M |
    | ViT-VQGAN small | 8 px | 512 wide, 8 blocks, 8 heads | 25.6 M |

    Source: Yu et al. 2021, https://arxiv.org/abs/2110.04627, section 3.1; Peng et al. 2022 (BEiT v2),
        https://arxiv.org/abs/2208.06366, section 2.1.
    Differs from the source: keys without bias, and the extra token without a position of its own (it is
        learned anyway); the size of the published networks but for that.

    Args:
        patches: Cuts the image into vectors; its `size` is the factor.
        transformer: Mixes the tokens.
        out_channels: Channels of the features.
        num_extra_tokens: Learned tokens beside the patches, dropped at the end, such as a class token.

    Raises:
        ValueError: If a number is wrong.

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
        self.patches, self.transformer = patches, transformer
        self.embed = nn.Linear(patches.dim, transformer.width)
        self.extra = extra_tokens("ViTEncoder", num_extra_tokens, transformer.width)
        self.head = tanh_head(transformer.width, out_channels)
        start_linear_layers(nn.ModuleList([self.embed, self.head]))

    def forward(self, image: Float[Tensor, "b c_in H W"]) -> Float[Tensor, "b c h w"]:
        """Images in [-1, 1] to features of 1 / `downsample_factor` the height and width, in the patches' order.

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
        features = self.head(tokens[:, -rows * columns :])
        maps: Tensor = rearrange(features, "b (h w) c -> b c h w", h=rows)
        return maps


@DECODERS.register_module()
class ViTDecoder(nn.Module):
    """Lets the features of patches look at each other, and paints each patch from its vector (ViT-VQGAN).

    The mirror image of `ViTEncoder`: linear, transformer, linear, tanh, linear, patches. With
    `PixelPatches(size=1, channels=n)` it gives a map of n features instead of an image (VQ-KD: 768 wide, 1
    block, 512 features: 8.25 M parameters).

    Source: see `ViTEncoder`.
    Differs from the source: see `ViTEncoder`.

    Args:
        patches: Puts the image together; the encoder's kind and size.
        transformer: Mixes the tokens.
        in_channels: Channels of the features.
        num_extra_tokens: Learned tokens beside the patches, dropped at the end.

    Raises:
        ValueError: If a number is wrong.

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
        self.patches, self.transformer = patches, transformer
        self.embed = nn.Linear(in_channels, transformer.width)
        self.extra = extra_tokens("ViTDecoder", num_extra_tokens, transformer.width)
        self.head = tanh_head(transformer.width, patches.dim)
        start_linear_layers(nn.ModuleList([self.embed, self.head]))

    @property
    def last_layer(self) -> Tensor:
        """The parameter that paints the pixels; an adaptive adversarial weight compares gradients there."""
        return self.head[-1].get_parameter("weight")

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out H W"]:
        """Features to images of `downsample_factor` times their size, about [-1, 1] but not clamped."""
        rows, columns = grid = (features.shape[2], features.shape[3])
        tokens = self.transformer(
            self.embed(rearrange(features, "b c h w -> b (h w) c")),
            places=self.patches.places(grid, features.device),
            grid=grid,
            extra=repeated(self.extra, len(features)),
        )
        return self.patches.join(self.head(tokens[:, -rows * columns :]), grid)


def tanh_head(width: int, out_channels: int) -> nn.Sequential:
    """Two linear layers with a tanh between them, from tokens to what leaves the network."""
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, out_channels))


def extra_tokens(place: str, count: int, width: int) -> nn.Parameter | None:
    """`count` learned tokens; None for none.

    Raises:
        ValueError: If `count` is negative.
    """
    if count < 0:
        raise ValueError(f"{place}: expected a number of extra tokens of at least 0, got {count}")
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(count, width), std=0.02)) if count else None


def repeated(tokens: Float[Tensor, "n c"] | None, batch: int) -> Float[Tensor, "{batch} n c"] | None:
    """The same tokens for each image of a batch."""
    return None if tokens is None else tokens.expand(batch, -1, -1)
