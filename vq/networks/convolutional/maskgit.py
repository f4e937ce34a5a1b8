"""The convolutional encoder and decoder of MaskGIT, which decode TiTok's codes too, and which MaskBit modifies."""

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.norm import group_norm
from vq.layers.resample import Downsample, Upsample
from vq.networks.sizes import check_counts, check_divisible
from vq.registry import DECODERS, ENCODERS


class MaskGITBlock(nn.Module):
    """Applies two normalized 3x3 convolutions, and adds the result to the features, or to a projection of itself.

    norm, SiLU, conv, norm, SiLU, conv, all without biases. If the number of channels stays the same, the block is
    residual. If it changes, the input does not reach the sum: the published networks add to the result its own 1x1
    convolution. Their weights were trained in this way.

    Source: the module of https://github.com/google-research/maskgit.
    Differs from the source: the norms have fewer groups below 128 channels (`group_norm`).

    Args:
        in_channels: The number of channels of the input.
        out_channels: The number of channels of the output.
    """

    def __init__(self, *, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = (
            None if in_channels == out_channels else nn.Conv2d(out_channels, out_channels, 1, bias=False)
        )

    def forward(self, x: Float[Tensor, "b c_in h w"]) -> Float[Tensor, "b c_out h w"]:
        """Returns features of the same height and width."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (x if self.shortcut is None else self.shortcut(y))


@ENCODERS.register_module()
class MaskGITEncoder(nn.Module):
    """Encodes an image as a grid of features with residual blocks and average pooling (MaskGIT's VQGAN).

    Each multiplier stands for one resolution with `num_blocks` blocks. The height and width are halved by averaging
    after each resolution but the last, which is followed by `num_blocks` more blocks. There is no attention.

    The published tokenizer has the default arguments and takes images in [0, 1]. MaskBit and VQGAN+ have `strided`
    convolutions in place of the averaging.

    Source: Chang et al. 2022, https://arxiv.org/abs/2202.04200; the tensors have the shapes of the
        weights that https://github.com/bytedance/1d-tokenizer publishes. `strided`: `ConvEncoder` of
        https://github.com/markweberdev/maskbit.
    Differs from the source: the norms have fewer groups below 128 channels (`group_norm`).

    Args:
        base_width: The number of channels for a multiplier of 1.
        multipliers: The width of each resolution in units of `base_width`, from the highest resolution to the
            lowest.
        num_blocks: The number of blocks at each resolution, and after the last one.
        out_channels: The number of channels of the features.
        image_channels: The number of channels of the images.
        strided: Whether convolutions with stride 2 halve the height and width, instead of averaging.

    Raises:
        ValueError: If a number is below 1, or there are no multipliers.

    Example:
        >>> import torch
        >>> encoder = MaskGITEncoder(base_width=16, multipliers=(1, 2), num_blocks=1, out_channels=8)
        >>> encoder(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 8, 16, 24])
    """

    def __init__(
        self,
        *,
        base_width: int = 128,
        multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        num_blocks: int = 2,
        out_channels: int = 256,
        image_channels: int = 3,
        strided: bool = False,
    ) -> None:
        super().__init__()
        check_counts(
            "MaskGITEncoder", base_width=base_width, num_blocks=num_blocks, out_channels=out_channels
        )
        check_counts("MaskGITEncoder", multipliers=multipliers, image_channels=image_channels)
        self.image_channels, self.out_channels = image_channels, out_channels
        self.downsample_factor = 2 ** (len(multipliers) - 1)
        widths = [base_width * multiplier for multiplier in multipliers]
        self.stem = nn.Conv2d(image_channels, base_width, 3, padding=1, bias=False)
        self.levels = nn.ModuleList()
        for before, width in zip([base_width, *widths], widths, strict=False):
            is_last = len(self.levels) == len(widths) - 1
            halve = [] if is_last else [Downsample(channels=width) if strided else nn.AvgPool2d(2)]
            self.levels.append(nn.Sequential(*_blocks(before, width, num_blocks), *halve))
        self.middle = nn.Sequential(*_blocks(widths[-1], widths[-1], num_blocks))
        self.norm = group_norm(widths[-1])
        self.head = nn.Conv2d(widths[-1], out_channels, 1)

    def forward(self, image: Float[Tensor, "b channels H W"]) -> Float[Tensor, "b c h w"]:
        """Encodes images; height and width are divided by `downsample_factor`.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        check_divisible("MaskGITEncoder", image, self.downsample_factor)
        x = self.stem(image)
        for level in self.levels:
            x = level(x)
        return self.head(F.silu(self.norm(self.middle(x))))


@DECODERS.register_module()
class MaskGITDecoder(nn.Module):
    """Decodes a grid of features to an image with residual blocks at increasing resolutions (MaskGIT's VQGAN).

    The decoder mirrors `MaskGITEncoder` and has as many blocks. It takes the same arguments as the encoder, with
    `multipliers` in the same order. The published tokenizer has the default arguments and gives images in [0, 1].

    Source: Chang et al. 2022, https://arxiv.org/abs/2202.04200; the tensors have the shapes of the
        weights that https://github.com/bytedance/1d-tokenizer publishes.
    Differs from the source: as `MaskGITEncoder` does.

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
        >>> decoder = MaskGITDecoder(base_width=16, multipliers=(1, 2), num_blocks=1, in_channels=8)
        >>> decoder(torch.zeros(1, 8, 16, 24)).shape
        torch.Size([1, 3, 32, 48])
    """

    def __init__(
        self,
        *,
        base_width: int = 128,
        multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        num_blocks: int = 2,
        in_channels: int = 256,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_counts("MaskGITDecoder", base_width=base_width, num_blocks=num_blocks, in_channels=in_channels)
        check_counts("MaskGITDecoder", multipliers=multipliers, image_channels=image_channels)
        self.in_channels, self.image_channels = in_channels, image_channels
        self.downsample_factor = 2 ** (len(multipliers) - 1)
        widths = [base_width * multiplier for multiplier in reversed(multipliers)]
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.middle = nn.Sequential(*_blocks(widths[0], widths[0], num_blocks))
        self.levels = nn.ModuleList()
        for before, width in zip([widths[0], *widths], widths, strict=False):
            is_last = len(self.levels) == len(widths) - 1
            double = [] if is_last else [Upsample(channels=width)]
            self.levels.append(nn.Sequential(*_blocks(before, width, num_blocks), *double))
        self.norm = group_norm(widths[-1])
        self.head = nn.Conv2d(widths[-1], image_channels, 3, padding=1)

    @property
    def last_layer(self) -> Float[Tensor, "channels c 3 3"]:
        """The weight of the last layer. Adaptive adversarial weights compare gradients with respect to it."""
        return self.head.weight

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b channels H W"]:
        """Decodes features to images, not clamped; the height and width are multiplied by `downsample_factor`."""
        x = self.middle(self.stem(features))
        for level in self.levels:
            x = level(x)
        return self.head(F.silu(self.norm(x)))


def _blocks(in_channels: int, out_channels: int, count: int) -> Iterator[nn.Module]:
    for index in range(count):
        yield MaskGITBlock(in_channels=out_channels if index else in_channels, out_channels=out_channels)
