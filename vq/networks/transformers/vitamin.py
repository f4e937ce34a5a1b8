"""The encoder and decoder of UniTok: ViTamin, convolutions and a transformer, and its mirror image."""

from collections.abc import Sequence

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.bottleneck import ChannelNorm, InvertedBottleneck, doubled
from vq.layers.gated import AttentionProjection, GatedBlock
from vq.networks.sizes import check_counts, check_divisible
from vq.registry import DECODERS, ENCODERS


@ENCODERS.register_module()
class ViTaminEncoder(nn.Module):
    """Encodes an image as a grid of features with convolutions, then a transformer without positions (UniTok).

    A stem halves height and width. So do the first blocks of each level of inverted bottlenecks, and the convolution
    that makes tokens of them: the downsampling factor is 2 ** (len(widths) + 2). After the transformer, the tokens are
    projected to the channels of the codes by attention.

    Source: Chen et al. 2024 (ViTamin), https://arxiv.org/abs/2404.02132; Ma et al. 2025 (UniTok),
        https://arxiv.org/abs/2502.20321; models/vitamin.py and models/unitok.py of
        https://github.com/FoundationVision/UniTok. The defaults are those of the published UniTok.
    Differs from the source: keys have no bias, which would cancel in the softmax.

    Args:
        widths: The numbers of channels of the levels of convolutions, from the highest resolution to the lowest.
        depths: The numbers of blocks of these levels.
        width: The number of channels of the tokens.
        depth: The number of transformer blocks.
        num_heads: The number of heads of their attention; a divisor of `width`.
        out_channels: The number of channels of the features; a divisor or a multiple of `width`.
        image_channels: The number of channels of the images.

    Raises:
        ValueError: If a number is below 1, `widths` and `depths` have different lengths, or `num_heads` does not divide
            `width`.

    Example:
        >>> import torch
        >>> encoder = ViTaminEncoder(widths=(8, 8), depths=(1, 1), width=16, depth=1, num_heads=2, out_channels=4)
        >>> encoder(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 4, 2, 3])
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (160, 320),
        depths: Sequence[int] = (2, 4),
        width: int = 1024,
        depth: int = 31,
        num_heads: int = 16,
        out_channels: int = 64,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_counts("ViTaminEncoder", depth=depth, image_channels=image_channels)
        _check_sizes("ViTaminEncoder", widths=widths, depths=depths, width=width, num_heads=num_heads)
        self.image_channels, self.out_channels = image_channels, out_channels
        self.downsample_factor = 2 ** (len(widths) + 2)
        self.stem = nn.Sequential(
            nn.Conv2d(image_channels, widths[0], 3, stride=2, padding=1),
            ChannelNorm(widths[0]),
            nn.GELU(),
            nn.Conv2d(widths[0], widths[0], 3, padding=1),
        )
        self.levels = nn.ModuleList()
        before = widths[0]
        for channels, count in zip(widths, depths, strict=True):
            first = InvertedBottleneck(in_channels=before, out_channels=channels, change="halve")
            self.levels.append(nn.Sequential(first, *_blocks(channels, count - 1)))
            before = channels
        self.pool = nn.Sequential(ChannelNorm(before), nn.Conv2d(before, width, 3, stride=2, padding=1))
        self.blocks = nn.Sequential(*_tokens(width, depth, num_heads))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = AttentionProjection(in_channels=width, out_channels=out_channels)

    def forward(self, image: Float[Tensor, "b channels H W"]) -> Float[Tensor, "b c h w"]:
        """Encodes images in [-1, 1]; height and width are divided by `downsample_factor`.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        check_divisible("ViTaminEncoder", image, self.downsample_factor)
        x = self.stem(image)
        for level in self.levels:
            x = level(x)
        grid = self.pool(x)
        tokens = self.norm(self.blocks(rearrange(grid, "b c h w -> b (h w) c")))
        return rearrange(self.head(tokens), "b (h w) c -> b c h w", h=grid.shape[2])


@DECODERS.register_module()
class ViTaminDecoder(nn.Module):
    """Decodes a grid of features to an image with a transformer without positions, then convolutions (UniTok).

    The decoder mirrors `ViTaminEncoder`. The arguments that are not explained here are those of the encoder, with
    `widths` and `depths` in the same order, from the *highest* resolution to the lowest.

    Source: Ma et al. 2025 (UniTok), https://arxiv.org/abs/2502.20321; `ViTaminDecoder` in models/vitamin.py.
    Differs from the source: as `ViTaminEncoder` does.

    Args:
        in_channels: The number of channels of the features; a divisor or a multiple of `width`.

    Raises:
        ValueError: As for `ViTaminEncoder`.

    Example:
        >>> import torch
        >>> decoder = ViTaminDecoder(widths=(8, 8), depths=(1, 1), width=16, depth=1, num_heads=2, in_channels=4)
        >>> decoder(torch.zeros(1, 4, 2, 3)).shape
        torch.Size([1, 3, 32, 48])
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (160, 320),
        depths: Sequence[int] = (2, 4),
        width: int = 1024,
        depth: int = 31,
        num_heads: int = 16,
        in_channels: int = 64,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_counts("ViTaminDecoder", depth=depth, image_channels=image_channels)
        _check_sizes("ViTaminDecoder", widths=widths, depths=depths, width=width, num_heads=num_heads)
        self.image_channels, self.in_channels = image_channels, in_channels
        self.downsample_factor = 2 ** (len(widths) + 2)
        self.stem = AttentionProjection(in_channels=in_channels, out_channels=width)
        self.blocks = nn.Sequential(*_tokens(width, depth, num_heads))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        before = widths[-1]
        self.enlarge = doubled(width, before)
        self.levels = nn.ModuleList()
        for channels, count in zip(reversed(widths), reversed(depths), strict=True):
            first = InvertedBottleneck(in_channels=before, out_channels=channels, change="double")
            self.levels.append(nn.Sequential(first, *_blocks(channels, count - 1)))
            before = channels
        self.head = nn.Sequential(
            *doubled(before, before),
            ChannelNorm(before),
            nn.GELU(),
            nn.Conv2d(before, image_channels, 3, padding=1),
        )

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b channels H W"]:
        """Decodes features to images in about [-1, 1], not clamped; the size is multiplied by `downsample_factor`."""
        tokens = self.norm(self.blocks(self.stem(rearrange(features, "b c h w -> b (h w) c"))))
        x = self.enlarge(rearrange(tokens, "b (h w) c -> b c h w", h=features.shape[2]))
        for level in self.levels:
            x = level(x)
        return self.head(x)


def _blocks(channels: int, count: int) -> list[InvertedBottleneck]:
    return [InvertedBottleneck(in_channels=channels, out_channels=channels) for _ in range(count)]


def _tokens(width: int, depth: int, num_heads: int) -> list[GatedBlock]:
    return [GatedBlock(width=width, num_heads=num_heads, hidden=2 * width) for _ in range(depth)]


def _check_sizes(
    place: str, *, widths: Sequence[int], depths: Sequence[int], width: int, num_heads: int
) -> None:
    check_counts(place, widths=widths, depths=depths, width=width, num_heads=num_heads)
    if len(widths) != len(depths) or width % num_heads:
        raise ValueError(
            f"{place}: expected a depth for each of the widths, and num_heads to divide width, got {list(widths)}, "
            f"{list(depths)}, {num_heads} heads and {width} channels"
        )
