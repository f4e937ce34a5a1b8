"""The convolutional encoder and decoder of VQGAN and LlamaGen."""

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.attention import SpatialAttention
from vq.layers.norm import group_norm
from vq.layers.resample import Downsample, Upsample
from vq.layers.resnet import ResnetBlock
from vq.networks.sizes import check_counts, check_divisible
from vq.registry import DECODERS, ENCODERS


@ENCODERS.register_module()
class CNNEncoder(nn.Module):
    """Encodes an image as a grid of features with residual blocks at decreasing resolutions (VQGAN).

    Each multiplier stands for one resolution with `num_blocks` residual blocks. The height and width are halved
    after each resolution but the last, which is followed by two more blocks. The downsampling factor is
    2 ** (len(multipliers) - 1):

    | factor | multipliers | published as |
    |---|---|---|
    | 4 | (1, 2, 4) | |
    | 8 | (1, 2, 2, 4) | LlamaGen VQ-8 |
    | 16 | (1, 1, 2, 2, 4) | VQGAN f16, LlamaGen VQ-16: 29.3 M parameters |
    | 32 | (1, 1, 2, 2, 4, 4) | |

    Source: Esser et al. 2021, https://arxiv.org/abs/2012.09841, table 7; the tensors have the shapes of
        the published weights of VQGAN and LlamaGen.
    Differs from the source: the norms have fewer groups below 128 channels (`group_norm`); the resolutions with
        attention are given by their place in `multipliers`, not by a size in pixels.

    Args:
        base_width: The number of channels for a multiplier of 1.
        multipliers: The width of each resolution in units of `base_width`, from the highest resolution to the
            lowest.
        num_blocks: The number of residual blocks at each resolution.
        attention: Whether attention follows each block at the lowest resolution; or the resolutions at which it does,
            as places in `multipliers`: `(1,)` for the second one, `()` for none.
        middle_attention: Whether there is attention between the last two blocks; None if there is some elsewhere.
        out_channels: The number of channels of the features.
        image_channels: The number of channels of the images.

    Raises:
        ValueError: If a number is below 1, there are no multipliers, or a resolution with attention does not exist.

    Example:
        >>> import torch
        >>> encoder = CNNEncoder(base_width=16, multipliers=(1, 2), num_blocks=1, out_channels=8)
        >>> encoder(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 8, 16, 24])
    """

    def __init__(
        self,
        *,
        base_width: int = 128,
        multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        num_blocks: int = 2,
        attention: bool | Sequence[int] = True,
        middle_attention: bool | None = None,
        out_channels: int = 256,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_counts("CNNEncoder", base_width=base_width, num_blocks=num_blocks, out_channels=out_channels)
        check_counts("CNNEncoder", multipliers=multipliers, image_channels=image_channels)
        self.image_channels, self.out_channels = image_channels, out_channels
        self.downsample_factor = 2 ** (len(multipliers) - 1)
        widths = [base_width * multiplier for multiplier in multipliers]
        attended = _attended("CNNEncoder", attention, len(widths))
        self.stem = nn.Conv2d(image_channels, widths[0], 3, padding=1)
        self.levels = nn.ModuleList()
        width = widths[0]
        for next_width in widths:
            level = len(self.levels)
            is_last = level == len(widths) - 1
            layers = list(_blocks(width, next_width, num_blocks, attention=level in attended))
            width = next_width
            self.levels.append(nn.Sequential(*layers, *([] if is_last else [Downsample(channels=width)])))
        self.middle = _middle(
            width, attention=bool(attended) if middle_attention is None else middle_attention
        )
        self.norm = group_norm(width)
        self.head = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, image: Float[Tensor, "b channels H W"]) -> Float[Tensor, "b c h w"]:
        """Encodes images in [-1, 1]; height and width are divided by `downsample_factor`.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        check_divisible("CNNEncoder", image, self.downsample_factor)
        x = self.stem(image)
        for level in self.levels:
            x = level(x)
        return self.head(F.silu(self.norm(self.middle(x))))


@DECODERS.register_module()
class CNNDecoder(nn.Module):
    """Decodes a grid of features to an image with residual blocks at increasing resolutions (VQGAN).

    The decoder mirrors `CNNEncoder` and has one more block at each resolution, as published (42.4 M
    parameters with the default arguments). It takes the same arguments as the encoder, with `multipliers` in the
    same order.

    Source: Esser et al. 2021, https://arxiv.org/abs/2012.09841, table 7; the tensors have the shapes of
        the published weights of VQGAN and LlamaGen.
    Differs from the source: as `CNNEncoder` does.

    Args:
        base_width: The number of channels for a multiplier of 1.
        multipliers: The width of each resolution in units of `base_width`, from the *highest* resolution to the
            lowest, as for the encoder.
        num_blocks: The number of residual blocks at each resolution of the encoder; the decoder has one more.
        attention: Whether attention follows each block at the lowest resolution; or the resolutions at which it does,
            as places in `multipliers`, as for the encoder.
        middle_attention: Whether there is attention between the first two blocks; None if there is some elsewhere.
        in_channels: The number of channels of the features.
        image_channels: The number of channels of the images.

    Raises:
        ValueError: If a number is below 1, there are no multipliers, or a resolution with attention does not exist.

    Example:
        >>> import torch
        >>> decoder = CNNDecoder(base_width=16, multipliers=(1, 2), num_blocks=1, in_channels=8)
        >>> decoder(torch.zeros(1, 8, 16, 24)).shape
        torch.Size([1, 3, 32, 48])
    """

    def __init__(
        self,
        *,
        base_width: int = 128,
        multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        num_blocks: int = 2,
        attention: bool | Sequence[int] = True,
        middle_attention: bool | None = None,
        in_channels: int = 256,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_counts("CNNDecoder", base_width=base_width, num_blocks=num_blocks, in_channels=in_channels)
        check_counts("CNNDecoder", multipliers=multipliers, image_channels=image_channels)
        self.in_channels, self.image_channels = in_channels, image_channels
        self.downsample_factor = 2 ** (len(multipliers) - 1)
        widths = [base_width * multiplier for multiplier in reversed(multipliers)]
        width = widths[0]
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        attended = _attended("CNNDecoder", attention, len(widths))
        self.middle = _middle(
            width, attention=bool(attended) if middle_attention is None else middle_attention
        )
        self.levels = nn.ModuleList()
        for next_width in widths:
            level = len(widths) - 1 - len(self.levels)  # its place in `multipliers`
            is_last = level == 0
            layers = list(_blocks(width, next_width, num_blocks + 1, attention=level in attended))
            width = next_width
            self.levels.append(nn.Sequential(*layers, *([] if is_last else [Upsample(channels=width)])))
        self.norm = group_norm(width)
        self.head = nn.Conv2d(width, image_channels, 3, padding=1)

    @property
    def last_layer(self) -> Float[Tensor, "channels c 3 3"]:
        """The weight of the last layer. Adaptive adversarial weights compare gradients with respect to it."""
        return self.head.weight

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b channels H W"]:
        """Decodes features to images in about [-1, 1], not clamped; the size is multiplied by `downsample_factor`."""
        x = self.middle(self.stem(features))
        for level in self.levels:
            x = level(x)
        return self.head(F.silu(self.norm(x)))


def _blocks(in_channels: int, out_channels: int, count: int, *, attention: bool) -> Iterator[nn.Module]:
    for index in range(count):
        yield ResnetBlock(in_channels=out_channels if index else in_channels, out_channels=out_channels)
        if attention:
            yield SpatialAttention(channels=out_channels)


def _middle(channels: int, *, attention: bool) -> nn.Sequential:
    between = [SpatialAttention(channels=channels)] if attention else []
    return nn.Sequential(ResnetBlock(in_channels=channels), *between, ResnetBlock(in_channels=channels))


def _attended(place: str, attention: bool | Sequence[int], count: int) -> set[int]:
    """The resolutions with attention, of which there are `count`."""
    if isinstance(attention, bool):
        return {count - 1} if attention else set()
    if wrong := [level for level in attention if not 0 <= level < count]:
        raise ValueError(
            f"{place}: expected attention to be places in multipliers, from 0 to {count - 1}, got {wrong[0]}; give "
            "True for the lowest resolution"
        )
    return set(attention)
