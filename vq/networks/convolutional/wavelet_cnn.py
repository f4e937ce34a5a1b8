"""The convolutional encoder and decoder of Cosmos, which work on the wavelet bands of an image."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.attention import SpatialAttention
from vq.layers.haar import haar2, inverse_haar2
from vq.layers.norm import group_norm
from vq.layers.resample import Downsample, Upsample
from vq.layers.resnet import ResnetBlock
from vq.networks.sizes import check_counts, check_divisible
from vq.registry import DECODERS, ENCODERS


@ENCODERS.register_module()
class WaveletCNNEncoder(nn.Module):
    """Encodes the wavelet bands of an image as a grid of features with residual blocks (Cosmos).

    The Haar transform divides height and width by `patch_size`. Each multiplier stands for `num_blocks` residual
    blocks. The first ones are each followed by a convolution that halves height and width, until they are divided by
    `downsample_factor` in all; the others keep them. Two blocks with attention between them follow.

    Source: NVIDIA 2025 (Cosmos), https://arxiv.org/abs/2501.03575; `Encoder` in modules/layers2d.py of
        https://github.com/NVIDIA/Cosmos-Tokenizer. The tensors have the same shapes.
    Differs from the source: the norms have fewer groups below 128 channels (`group_norm`).

    Args:
        base_width: The number of channels for a multiplier of 1, and of the first convolution.
        multipliers: The widths in units of `base_width`, from the image to the features.
        num_blocks: The number of residual blocks for each multiplier.
        patch_size: The factor of the wavelet transform, a power of 2; 1 for none.
        downsample_factor: The factor between the image and the features, `patch_size` times a power of 2.
        out_channels: The number of channels of the features.
        image_channels: The number of channels of the images.

    Raises:
        ValueError: If a number is below 1, or the factors do not fit each other and the number of multipliers.

    Example:
        >>> import torch
        >>> encoder = WaveletCNNEncoder(base_width=16, multipliers=(1, 2), downsample_factor=8, out_channels=6)
        >>> encoder(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 6, 4, 6])
    """

    def __init__(
        self,
        *,
        base_width: int = 128,
        multipliers: Sequence[int] = (2, 4, 4),
        num_blocks: int = 2,
        patch_size: int = 4,
        downsample_factor: int = 16,
        out_channels: int = 256,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_counts("WaveletCNNEncoder", base_width=base_width, num_blocks=num_blocks)
        check_counts("WaveletCNNEncoder", multipliers=multipliers, out_channels=out_channels)
        check_counts("WaveletCNNEncoder", image_channels=image_channels)
        self.image_channels, self.out_channels = image_channels, out_channels
        self.downsample_factor = downsample_factor
        self.depth, halvings = _steps("WaveletCNNEncoder", patch_size, downsample_factor, len(multipliers))
        self.stem = nn.Conv2d(image_channels * patch_size**2, base_width, 3, padding=1)
        self.levels = nn.ModuleList()
        width = base_width
        for level, multiplier in enumerate(multipliers):
            layers: list[nn.Module] = [*_blocks(width, base_width * multiplier, num_blocks)]
            width = base_width * multiplier
            if level < halvings:
                layers.append(Downsample(channels=width))
            self.levels.append(nn.Sequential(*layers))
        self.middle = _middle(width)
        self.norm = group_norm(width)
        self.head = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, image: Float[Tensor, "b channels H W"]) -> Float[Tensor, "b c h w"]:
        """Encodes images in [-1, 1]; height and width are divided by `downsample_factor`.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        check_divisible("WaveletCNNEncoder", image, self.downsample_factor)
        x = self.stem(haar2(image, self.depth))
        for level in self.levels:
            x = level(x)
        return self.head(F.silu(self.norm(self.middle(x))))


@DECODERS.register_module()
class WaveletCNNDecoder(nn.Module):
    """Decodes a grid of features to the wavelet bands of an image, and these to the image (Cosmos).

    The decoder mirrors `WaveletCNNEncoder` and has one more block for each multiplier. Height and width are
    doubled after the *last* multipliers, which the features pass first. The arguments that are not explained here are
    those of the encoder, with `multipliers` in the same order, from the *image* to the features.

    Source: NVIDIA 2025 (Cosmos), https://arxiv.org/abs/2501.03575; `Decoder` in modules/layers2d.py.
    Differs from the source: as `WaveletCNNEncoder` does.

    Args:
        in_channels: The number of channels of the features.
        num_blocks: The number of residual blocks of the encoder for each multiplier; the decoder has one more.

    Raises:
        ValueError: As for `WaveletCNNEncoder`.

    Example:
        >>> import torch
        >>> decoder = WaveletCNNDecoder(base_width=16, multipliers=(1, 2), downsample_factor=8, in_channels=6)
        >>> decoder(torch.zeros(1, 6, 4, 6)).shape
        torch.Size([1, 3, 32, 48])
    """

    def __init__(
        self,
        *,
        base_width: int = 128,
        multipliers: Sequence[int] = (2, 4, 4),
        num_blocks: int = 2,
        patch_size: int = 4,
        downsample_factor: int = 16,
        in_channels: int = 256,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_counts("WaveletCNNDecoder", base_width=base_width, num_blocks=num_blocks)
        check_counts("WaveletCNNDecoder", multipliers=multipliers, in_channels=in_channels)
        check_counts("WaveletCNNDecoder", image_channels=image_channels)
        self.image_channels, self.in_channels = image_channels, in_channels
        self.downsample_factor = downsample_factor
        self.depth, doublings = _steps("WaveletCNNDecoder", patch_size, downsample_factor, len(multipliers))
        width = base_width * multipliers[-1]
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.middle = _middle(width)
        self.levels = nn.ModuleList()
        for level, multiplier in enumerate(reversed(multipliers)):
            layers: list[nn.Module] = [*_blocks(width, base_width * multiplier, num_blocks + 1)]
            width = base_width * multiplier
            if level < doublings:
                layers.append(Upsample(channels=width))
            self.levels.append(nn.Sequential(*layers))
        self.norm = group_norm(width)
        self.head = nn.Conv2d(width, image_channels * patch_size**2, 3, padding=1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b channels H W"]:
        """Decodes features to images in about [-1, 1], not clamped; the size is multiplied by `downsample_factor`."""
        x = self.middle(self.stem(features))
        for level in self.levels:
            x = level(x)
        return inverse_haar2(self.head(F.silu(self.norm(x))), self.depth)


def _blocks(in_channels: int, out_channels: int, count: int) -> list[ResnetBlock]:
    first = ResnetBlock(in_channels=in_channels, out_channels=out_channels)
    return [first, *(ResnetBlock(in_channels=out_channels) for _ in range(count - 1))]


def _middle(channels: int) -> nn.Sequential:
    return nn.Sequential(
        ResnetBlock(in_channels=channels),
        SpatialAttention(channels=channels),
        ResnetBlock(in_channels=channels),
    )


def _steps(place: str, patch_size: int, downsample_factor: int, num_levels: int) -> tuple[int, int]:
    """How often the wavelet transform halves an image, and how often convolutions do."""
    check_counts(place, patch_size=patch_size, downsample_factor=downsample_factor)
    depth, total = int(math.log2(patch_size)), int(math.log2(downsample_factor))
    fits = 2**depth == patch_size and 2**total == downsample_factor
    if not fits or not 0 <= total - depth <= num_levels:
        raise ValueError(
            f"{place}: expected patch_size and downsample_factor to be powers of 2, and downsample_factor to be "
            f"patch_size times at most 2 ** {num_levels}, the number of multipliers, got {patch_size} and "
            f"{downsample_factor}"
        )
    return depth, total - depth
