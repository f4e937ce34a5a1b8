"""A light convolutional encoder and decoder that do most of their work at the lowest resolution."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.norm import group_norm
from vq.layers.resnet import PlainResidualBlock
from vq.networks.sizes import check_counts, check_divisible
from vq.registry import DECODERS, ENCODERS


@ENCODERS.register_module()
class StridedCNNEncoder(nn.Module):
    """Encodes an image as a grid of features with one strided convolution per halving of the size (VQ-VAE).

    A 4x4 convolution of stride 2 for each width is followed by residual blocks at the lowest resolution. The
    features have `widths[-1]` channels. At 64 px and a factor of 8, a training step costs a seventh of that of a
    `CNNEncoder` and `CNNDecoder` with the same number of parameters, so this is the network for a CPU.

    Source: van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, section 4.1.
    Differs from the source: each resolution has its own width; SiLU replaces ReLU; all convolutions of the
        residual blocks are 3x3; a group norm precedes the output; there is no 1x1 convolution after it, because the
        tokenizer has one.

    Args:
        widths: The number of channels after each halving, from the highest resolution to the lowest. The
            downsampling factor is 2 ** len(widths).
        num_blocks: The number of residual blocks at the lowest resolution.
        image_channels: The number of channels of the images.

    Raises:
        ValueError: If a number is below 1, or there are no widths.

    Example:
        >>> import torch
        >>> encoder = StridedCNNEncoder(widths=(8, 16), num_blocks=1)
        >>> encoder(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 16, 8, 12])
    """

    def __init__(
        self, *, widths: Sequence[int] = (32, 64, 128), num_blocks: int = 1, image_channels: int = 3
    ) -> None:
        super().__init__()
        check_counts("StridedCNNEncoder", widths=widths, num_blocks=num_blocks, image_channels=image_channels)
        self.image_channels = image_channels
        self.out_channels = widths[-1]
        self.downsample_factor = 2 ** len(widths)
        self.downsamples = nn.ModuleList(
            nn.Conv2d(channels, width, 4, stride=2, padding=1)
            for channels, width in zip((image_channels, *widths[:-1]), widths, strict=True)
        )
        self.blocks = nn.Sequential(*(PlainResidualBlock(channels=widths[-1]) for _ in range(num_blocks)))
        self.norm = group_norm(widths[-1])

    def forward(self, image: Float[Tensor, "b channels H W"]) -> Float[Tensor, "b c h w"]:
        """Encodes images in [-1, 1]; height and width are divided by `downsample_factor`.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        check_divisible("StridedCNNEncoder", image, self.downsample_factor)
        x = image
        for number, downsample in enumerate(self.downsamples):
            x = downsample(F.silu(x) if number else x)
        return F.silu(self.norm(self.blocks(x)))


@DECODERS.register_module()
class StridedCNNDecoder(nn.Module):
    """Decodes a grid of features to an image with one transposed convolution per doubling of the size (VQ-VAE).

    The decoder mirrors `StridedCNNEncoder` and takes `widths` in the same order.

    Source: van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, section 4.1.
    Differs from the source: as `StridedCNNEncoder` does.

    Args:
        widths: The number of channels before each doubling, from the *highest* resolution to the lowest, as for the
            encoder. The factor is 2 ** len(widths).
        num_blocks: The number of residual blocks at the lowest resolution.
        image_channels: The number of channels of the images.

    Raises:
        ValueError: If a number is below 1, or there are no widths.

    Example:
        >>> import torch
        >>> decoder = StridedCNNDecoder(widths=(8, 16), num_blocks=1)
        >>> decoder(torch.zeros(1, 16, 8, 12)).shape
        torch.Size([1, 3, 32, 48])
    """

    def __init__(
        self, *, widths: Sequence[int] = (32, 64, 128), num_blocks: int = 1, image_channels: int = 3
    ) -> None:
        super().__init__()
        check_counts("StridedCNNDecoder", widths=widths, num_blocks=num_blocks, image_channels=image_channels)
        self.image_channels = image_channels
        self.in_channels = widths[-1]
        self.downsample_factor = 2 ** len(widths)
        self.blocks = nn.Sequential(*(PlainResidualBlock(channels=widths[-1]) for _ in range(num_blocks)))
        self.norm = group_norm(widths[-1])
        channels = list(reversed((image_channels, *widths)))
        self.upsamples = nn.ModuleList(
            nn.ConvTranspose2d(width, next_width, 4, stride=2, padding=1)
            for width, next_width in pairwise(channels)
        )

    @property
    def last_layer(self) -> Float[Tensor, "c channels 4 4"]:
        """The weight of the last layer. Adaptive adversarial weights compare gradients with respect to it."""
        return self.upsamples[-1].get_parameter("weight")

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b channels H W"]:
        """Decodes features to images in about [-1, 1], not clamped; the size is multiplied by `downsample_factor`."""
        x = self.norm(self.blocks(features))
        for upsample in self.upsamples:
            x = upsample(F.silu(x))
        return x
