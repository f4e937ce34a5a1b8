"""A light convolutional encoder and decoder that do most of their work at the lowest resolution."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.norm import group_norm
from vq.networks.sizes import check_counts, check_divisible
from vq.registry import DECODERS, ENCODERS


class PlainResidualBlock(nn.Module):
    """Adds to the features what two 3x3 convolutions make of them, without any normalization.

    SiLU, conv, SiLU, conv; the size stays.

    Source: van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, section 4.1.
    Differs from the source: SiLU for ReLU, and a second 3x3 convolution where the source has a 1x1 one.

    Args:
        channels: Channels of the input and of the output.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Features to features of the same shape."""
        out: Tensor = x + self.conv2(F.silu(self.conv1(F.silu(x))))
        return out


@ENCODERS.register_module()
class StridedCNNEncoder(nn.Module):
    """Shrinks an image to a grid of features with one strided convolution a halving (VQ-VAE).

    A 4x4 convolution of stride 2 for each width, then residual blocks on the small grid. At 64 px
    and factor 8 a training step costs a seventh of a `CNNEncoder` and `CNNDecoder` of as many
    parameters: the choice for a CPU.

    Source: van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, section 4.1.
    Differs from the source: a width for each resolution, SiLU for ReLU, 3x3 convolutions throughout the
        residual blocks, and one group norm before the output.

    Args:
        widths: Channels after each halving, the largest resolution first; the factor is 2 ** len(widths).
        num_blocks: Residual blocks at the lowest resolution.
        out_channels: Channels of the features.

    Raises:
        ValueError: If a number is below 1, or there are no widths.

    Example:
        >>> import torch
        >>> encoder = StridedCNNEncoder(widths=(8, 16), num_blocks=1, out_channels=4)
        >>> encoder(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 4, 8, 12])
    """

    def __init__(
        self, *, widths: Sequence[int] = (32, 64, 128), num_blocks: int = 1, out_channels: int = 128
    ) -> None:
        super().__init__()
        check_counts("StridedCNNEncoder", widths=widths, num_blocks=num_blocks, out_channels=out_channels)
        self.out_channels = out_channels
        self.downsample_factor = 2 ** len(widths)
        self.downsamples = nn.ModuleList(
            nn.Conv2d(channels, width, 4, stride=2, padding=1)
            for channels, width in zip((3, *widths[:-1]), widths, strict=True)
        )
        self.blocks = nn.Sequential(*(PlainResidualBlock(channels=widths[-1]) for _ in range(num_blocks)))
        self.norm = group_norm(widths[-1])
        self.head = nn.Conv2d(widths[-1], out_channels, 1)

    def forward(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """Images in [-1, 1] to features of 1 / `downsample_factor` the height and width.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        check_divisible("StridedCNNEncoder", image, self.downsample_factor)
        x = image
        for number, downsample in enumerate(self.downsamples):
            x = downsample(F.silu(x) if number else x)
        features: Tensor = self.head(F.silu(self.norm(self.blocks(x))))
        return features


@DECODERS.register_module()
class StridedCNNDecoder(nn.Module):
    """Paints an image from a grid of features with one transposed convolution a doubling (VQ-VAE).

    The mirror image of `StridedCNNEncoder`; `widths` stand in the encoder's order.

    Source: van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, section 4.1.
    Differs from the source: see `StridedCNNEncoder`.

    Args:
        widths: Channels before each doubling, the largest resolution *first*; the factor is 2 ** len(widths).
        num_blocks: Residual blocks at the lowest resolution.
        in_channels: Channels of the features.

    Raises:
        ValueError: If a number is below 1, or there are no widths.

    Example:
        >>> import torch
        >>> decoder = StridedCNNDecoder(widths=(8, 16), num_blocks=1, in_channels=4)
        >>> decoder(torch.zeros(1, 4, 8, 12)).shape
        torch.Size([1, 3, 32, 48])
    """

    def __init__(
        self, *, widths: Sequence[int] = (32, 64, 128), num_blocks: int = 2, in_channels: int = 128
    ) -> None:
        super().__init__()
        check_counts("StridedCNNDecoder", widths=widths, num_blocks=num_blocks, in_channels=in_channels)
        self.in_channels = in_channels
        self.downsample_factor = 2 ** len(widths)
        self.stem = nn.Conv2d(in_channels, widths[-1], 3, padding=1)
        self.blocks = nn.Sequential(*(PlainResidualBlock(channels=widths[-1]) for _ in range(num_blocks)))
        self.norm = group_norm(widths[-1])
        channels = list(reversed((3, *widths)))
        self.upsamples = nn.ModuleList(
            nn.ConvTranspose2d(width, next_width, 4, stride=2, padding=1)
            for width, next_width in pairwise(channels)
        )

    @property
    def last_layer(self) -> Tensor:
        """The parameter that paints the pixels; an adaptive adversarial weight compares gradients there."""
        weight: Tensor = self.upsamples[-1].get_parameter("weight")
        return weight

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Features to images of `downsample_factor` times their size, about [-1, 1] but not clamped."""
        x = self.norm(self.blocks(self.stem(features)))
        for upsample in self.upsamples:
            x = upsample(F.silu(x))
        return x
