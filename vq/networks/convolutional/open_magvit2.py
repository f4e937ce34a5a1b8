"""The convolutional encoder and decoder of Open-MAGVIT2, whose decoder norms depend on the statistics of the codes."""

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.norm import group_norm
from vq.layers.resnet import ResnetBlock
from vq.networks.sizes import check_counts, check_divisible
from vq.registry import DECODERS, ENCODERS


@ENCODERS.register_module()
class OpenMAGVIT2Encoder(nn.Module):
    """Encodes an image as a grid of features with residual blocks at decreasing resolutions (Open-MAGVIT2).

    Each multiplier stands for one resolution with `num_blocks` residual blocks, whose convolutions have no biases. A
    convolution of stride 2 halves the height and width after each resolution but the last, which is followed by
    `num_blocks` more blocks. There is no attention. The default arguments are those of the published tokenizers with
    2^18 codes for 256 pixels; the one for 128 pixels has the multipliers (1, 2, 2, 4).

    Source: Luo et al. 2024, https://arxiv.org/abs/2409.04410, and its code, https://github.com/TencentARC/SEED-Voken;
        the tensors have its shapes.
    Differs from the source: the norms have fewer groups below 128 channels (`group_norm`).

    Args:
        base_width: The number of channels for a multiplier of 1.
        multipliers: The width of each resolution in units of `base_width`, from the highest resolution to the
            lowest.
        num_blocks: The number of residual blocks at each resolution, and after the last one.
        out_channels: The number of channels of the features.
        image_channels: The number of channels of the images.

    Raises:
        ValueError: If a number is below 1, or there are no multipliers.

    Example:
        >>> import torch
        >>> encoder = OpenMAGVIT2Encoder(base_width=16, multipliers=(1, 2), num_blocks=1, out_channels=8)
        >>> encoder(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 8, 16, 24])
    """

    def __init__(
        self,
        *,
        base_width: int = 128,
        multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        num_blocks: int = 4,
        out_channels: int = 18,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        place = "OpenMAGVIT2Encoder"
        check_counts(place, base_width=base_width, num_blocks=num_blocks, out_channels=out_channels)
        check_counts(place, multipliers=multipliers, image_channels=image_channels)
        self.image_channels, self.out_channels = image_channels, out_channels
        self.downsample_factor = 2 ** (len(multipliers) - 1)
        widths = [base_width * multiplier for multiplier in multipliers]
        self.stem = nn.Conv2d(image_channels, base_width, 3, padding=1, bias=False)
        self.levels = nn.ModuleList()
        for before, width in zip([base_width, *widths], widths, strict=False):
            is_last = len(self.levels) == len(widths) - 1
            halve = [] if is_last else [nn.Conv2d(width, width, 3, stride=2, padding=1)]
            self.levels.append(nn.Sequential(*_blocks(before, width, num_blocks), *halve))
        self.middle = nn.Sequential(*_blocks(widths[-1], widths[-1], num_blocks))
        self.norm = group_norm(widths[-1])
        self.head = nn.Conv2d(widths[-1], out_channels, 1)

    def forward(self, image: Float[Tensor, "b channels H W"]) -> Float[Tensor, "b c h w"]:
        """Encodes images in [-1, 1]; height and width are divided by `downsample_factor`.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        check_divisible("OpenMAGVIT2Encoder", image, self.downsample_factor)
        x = self.stem(image)
        for level in self.levels:
            x = level(x)
        return self.head(F.silu(self.norm(self.middle(x))))


@DECODERS.register_module()
class OpenMAGVIT2Decoder(nn.Module):
    """Decodes a grid of features to an image with residual blocks at increasing resolutions (Open-MAGVIT2).

    The decoder mirrors `OpenMAGVIT2Encoder` and has as many blocks. It takes the same arguments as the encoder, with
    `multipliers` in the same order. A `StatisticsNorm` before each resolution depends on the mean and the deviation
    of the features over the image. The height and width are doubled by a convolution to four times the channels, which
    become two rows and two columns.

    Source: Luo et al. 2024, https://arxiv.org/abs/2409.04410, and its code, https://github.com/TencentARC/SEED-Voken;
        the tensors have its shapes.
    Differs from the source: the norms have fewer groups below 128 channels (`group_norm`); the channels of the
        convolutions that double the size are in the order of `torch.nn.PixelShuffle`.

    Args:
        base_width: The number of channels for a multiplier of 1.
        multipliers: The width of each resolution in units of `base_width`, from the *highest* resolution to the
            lowest, as for the encoder.
        num_blocks: The number of blocks before the first resolution, and at each resolution.
        in_channels: The number of channels of the features.
        image_channels: The number of channels of the images.

    Raises:
        ValueError: If a number is below 1, or there are no multipliers.

    Example:
        >>> import torch
        >>> decoder = OpenMAGVIT2Decoder(base_width=16, multipliers=(1, 2), num_blocks=1, in_channels=8)
        >>> decoder(torch.zeros(1, 8, 16, 24)).shape
        torch.Size([1, 3, 32, 48])
    """

    def __init__(
        self,
        *,
        base_width: int = 128,
        multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        num_blocks: int = 4,
        in_channels: int = 18,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        place = "OpenMAGVIT2Decoder"
        check_counts(place, base_width=base_width, num_blocks=num_blocks, in_channels=in_channels)
        check_counts(place, multipliers=multipliers, image_channels=image_channels)
        self.in_channels, self.image_channels = in_channels, image_channels
        self.downsample_factor = 2 ** (len(multipliers) - 1)
        widths = [base_width * multiplier for multiplier in reversed(multipliers)]
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.middle = nn.Sequential(*_blocks(widths[0], widths[0], num_blocks))
        self.adaptive, self.levels = nn.ModuleList(), nn.ModuleList()
        for before, width in zip([widths[0], *widths], widths, strict=False):
            is_last = len(self.levels) == len(widths) - 1
            double = [] if is_last else [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2)]
            self.adaptive.append(StatisticsNorm(channels=before, code_channels=in_channels))
            self.levels.append(nn.Sequential(*_blocks(before, width, num_blocks), *double))
        self.norm = group_norm(widths[-1])
        self.head = nn.Conv2d(widths[-1], image_channels, 3, padding=1)

    @property
    def last_layer(self) -> Float[Tensor, "channels c 3 3"]:
        """The weight of the last layer. Adaptive adversarial weights compare gradients with respect to it."""
        return self.head.weight

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b channels H W"]:
        """Decodes features to images in about [-1, 1], not clamped; the size is multiplied by `downsample_factor`.

        Raises:
            ValueError: If there is only one position, over which the features have no deviation.
        """
        x = self.middle(self.stem(features))
        for norm, level in zip(self.adaptive, self.levels, strict=True):
            x = level(norm(x, features))
        return self.head(F.silu(self.norm(x)))


class StatisticsNorm(nn.Module):
    """Normalizes features, then scales and shifts each channel according to the codes of the image.

    A linear layer maps the standard deviations of the channels of the codes, over the positions of the image, to the
    scales; another one maps their means to the shifts.

    Source: `AdaptiveGroupNorm` in https://github.com/TencentARC/SEED-Voken (the variance is the unbiased one, plus
        1e-6); Yu et al. 2023 (MAGVIT-v2), https://arxiv.org/abs/2310.05737.
    Differs from the source: the norm has fewer groups below 128 channels (`group_norm`).

    Args:
        channels: The number of channels of the features.
        code_channels: The number of channels of the codes.
    """

    def __init__(self, *, channels: int, code_channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, affine=False)
        self.scale = nn.Linear(code_channels, channels)
        self.shift = nn.Linear(code_channels, channels)

    def forward(
        self, x: Float[Tensor, "b c h w"], codes: Float[Tensor, "b code_channels h_code w_code"]
    ) -> Float[Tensor, "b c h w"]:
        """Returns features of the same shape.

        Raises:
            ValueError: If there is only one code, which has no deviation.
        """
        if codes.shape[2] * codes.shape[3] == 1:
            raise ValueError(
                "StatisticsNorm: expected codes at two or more positions, over which it takes their deviation, got "
                "one; use larger images"
            )
        deviation = (codes.var(dim=(2, 3)) + self.norm.eps).sqrt()
        scale, shift = self.scale(deviation), self.shift(codes.mean(dim=(2, 3)))
        return scale[..., None, None] * self.norm(x) + shift[..., None, None]


def _blocks(in_channels: int, out_channels: int, count: int) -> Iterator[nn.Module]:
    for index in range(count):
        width = out_channels if index else in_channels
        yield ResnetBlock(in_channels=width, out_channels=out_channels, bias=False)
