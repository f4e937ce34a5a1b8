"""The convolutional encoder and decoder of Emu3 for single images; every norm of the decoder depends on the codes."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.norm import group_norm
from vq.layers.resample import Upsample
from vq.networks.convolutional.cnn import CNNEncoder
from vq.networks.sizes import check_counts, check_divisible
from vq.registry import DECODERS, ENCODERS


@ENCODERS.register_module()
class Emu3Encoder(nn.Module):
    """Encodes an image as a grid of features with the encoder of VQGAN and convolutions over time (Emu3).

    Emu3 tokenizes four frames of a video at once, and an image as four equal frames. Its convolutions over time see
    these frames and the zeros before them, so for an image each of them is a convolution over height and width:

    1. `spread` halves the four frames: the first result is that of two frames of zeros and two of the image, and the
       second that of four frames of the image.
    2. `merge` makes these two results one frame.
    3. The convolutions of `blocks` and `head` see this frame after zeros.

    Source: Wang et al. 2024, https://arxiv.org/abs/2409.18869, and its code, https://github.com/baaivision/Emu3.
    Differs from the source: it takes images only. The batch norms have fixed statistics, as in the source's eval mode,
        and are scales and shifts of the channels. The group norms have fewer groups below 128 channels (`group_norm`).

    Args:
        base_width: The number of channels for a multiplier of 1.
        multipliers: The width of each resolution in units of `base_width`, from the highest resolution to the
            lowest.
        num_blocks: The number of residual blocks at each resolution, and after the convolutions over time.
        out_channels: The number of channels of the features, and of the convolutions over time.
        image_channels: The number of channels of the images.

    Raises:
        ValueError: If a number is below 1, or there are no multipliers.

    Example:
        >>> import torch
        >>> encoder = Emu3Encoder(base_width=16, multipliers=(1, 2), num_blocks=1, out_channels=8)
        >>> encoder(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 8, 16, 24])
    """

    def __init__(
        self,
        *,
        base_width: int = 256,
        multipliers: Sequence[int] = (1, 2, 2, 4),
        num_blocks: int = 2,
        out_channels: int = 4,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_counts("Emu3Encoder", base_width=base_width, num_blocks=num_blocks, out_channels=out_channels)
        check_counts("Emu3Encoder", multipliers=multipliers, image_channels=image_channels)
        self.network = CNNEncoder(
            base_width=base_width,
            multipliers=multipliers,
            num_blocks=num_blocks,
            out_channels=out_channels,
            image_channels=image_channels,
        )
        self.image_channels, self.out_channels = image_channels, out_channels
        self.downsample_factor = self.network.downsample_factor
        self.spread = nn.Conv2d(out_channels, 2 * out_channels, 3, padding=1)
        self.merge = nn.Conv2d(2 * out_channels, out_channels, 3, padding=1)
        self.blocks = nn.Sequential(*(FrameBlock(channels=out_channels) for _ in range(num_blocks)))
        self.head = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, image: Float[Tensor, "b channels H W"]) -> Float[Tensor, "b c h w"]:
        """Encodes images in [-1, 1]; height and width are divided by `downsample_factor`.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        check_divisible("Emu3Encoder", image, self.downsample_factor)
        frames = F.silu(self.spread(self.network(image)))
        return self.head(self.blocks(F.silu(self.merge(frames))))


@DECODERS.register_module()
class Emu3Decoder(nn.Module):
    """Decodes a grid of codes to an image with the decoder of VQGAN, whose norms depend on the codes (Emu3, MoVQ).

    It has as many blocks and attention layers as `CNNDecoder`, with a `SpatialNorm` in place of each norm. The source
    decodes four frames and takes the first one as the image, for which its convolutions over time see a single frame
    after zeros and are convolutions over height and width.

    Source: Wang et al. 2024, https://arxiv.org/abs/2409.18869, and its code, https://github.com/baaivision/Emu3;
        Zheng et al. 2022 (MoVQ), https://arxiv.org/abs/2209.09002.
    Differs from the source: as `Emu3Encoder` does.

    Args:
        base_width: The number of channels for a multiplier of 1.
        multipliers: The width of each resolution in units of `base_width`, from the *highest* resolution to the
            lowest, as for the encoder.
        num_blocks: The number of residual blocks at each resolution of the encoder; the decoder has one more.
        in_channels: The number of channels of the codes.
        image_channels: The number of channels of the images.

    Raises:
        ValueError: If a number is below 1, or there are no multipliers.

    Example:
        >>> import torch
        >>> decoder = Emu3Decoder(base_width=16, multipliers=(1, 2), num_blocks=1, in_channels=8)
        >>> decoder(torch.zeros(1, 8, 16, 24)).shape
        torch.Size([1, 3, 32, 48])
    """

    def __init__(
        self,
        *,
        base_width: int = 256,
        multipliers: Sequence[int] = (1, 2, 2, 4),
        num_blocks: int = 2,
        in_channels: int = 4,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_counts("Emu3Decoder", base_width=base_width, num_blocks=num_blocks, in_channels=in_channels)
        check_counts("Emu3Decoder", multipliers=multipliers, image_channels=image_channels)
        self.in_channels, self.image_channels = in_channels, image_channels
        self.downsample_factor = 2 ** (len(multipliers) - 1)
        self.project = nn.Conv2d(in_channels, in_channels, 1)
        self.blocks = nn.Sequential(*(FrameBlock(channels=in_channels) for _ in range(num_blocks)))
        self.frame = nn.ModuleList(nn.Conv2d(in_channels, in_channels, 3, padding=1) for _ in range(2))
        widths = [base_width * multiplier for multiplier in reversed(multipliers)]
        width = widths[0]
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        codes = {"code_channels": in_channels}
        self.middle = nn.ModuleList(_layers(width, width, 1, attention=True, **codes))
        self.middle.append(ConditionedBlock(in_channels=width, out_channels=width, **codes))
        self.levels = nn.ModuleList()
        for next_width in widths:
            is_first, is_last = not self.levels, len(self.levels) == len(widths) - 1
            layers = _layers(width, next_width, num_blocks + 1, attention=is_first, **codes)
            width = next_width
            self.levels.append(nn.ModuleList([*layers, *([] if is_last else [Upsample(channels=width)])]))
        self.norm = SpatialNorm(channels=width, code_channels=in_channels)
        self.head = nn.Conv2d(width, image_channels, 3, padding=1)

    @property
    def last_layer(self) -> Float[Tensor, "channels c 3 3"]:
        """The weight of the last layer. Adaptive adversarial weights compare gradients with respect to it."""
        return self.head.weight

    def forward(self, codes: Float[Tensor, "b c h w"]) -> Float[Tensor, "b channels H W"]:
        """Decodes codes to images in about [-1, 1], not clamped; the size is multiplied by `downsample_factor`."""
        both = self.blocks(torch.cat([self.project(codes), codes]))
        for conv in self.frame:
            both = F.silu(conv(both))
        features, codes = both.chunk(2)
        x = self.stem(features)
        for level in (self.middle, *self.levels):
            for layer in level:
                x = layer(x) if isinstance(layer, Upsample) else layer(x, codes)
        return self.head(F.silu(self.norm(x, codes)))


class FrameBlock(nn.Module):
    """Adds to the features of one frame the output of two 3x3 convolutions, each after a scale and shift per channel.

    Source: `Emu3VisionVQResnetTemporalBlock` in https://github.com/baaivision/Emu3, for a single frame.
    Differs from the source: as `Emu3Encoder` does.

    Args:
        channels: The number of channels of the input and of the output.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.scale1 = nn.Conv2d(channels, channels, 1, groups=channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale2 = nn.Conv2d(channels, channels, 1, groups=channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Returns features of the same shape."""
        y = self.conv1(F.silu(self.scale1(x)))
        return x + self.conv2(F.silu(self.scale2(y)))


class SpatialNorm(nn.Module):
    """Normalizes features, then scales and shifts them at each position according to the code there.

    Source: Zheng et al. 2022 (MoVQ), https://arxiv.org/abs/2209.09002 (spatially conditional normalization).
    Differs from the source: the norm has fewer groups below 128 channels (`group_norm`).

    Args:
        channels: The number of channels of the features.
        code_channels: The number of channels of the codes.
    """

    def __init__(self, *, channels: int, code_channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.scale = nn.Conv2d(code_channels, channels, 1)
        self.shift = nn.Conv2d(code_channels, channels, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], codes: Float[Tensor, "b code_channels h_code w_code"]
    ) -> Float[Tensor, "b c h w"]:
        """Returns features of the same shape; the codes are repeated to their height and width."""
        size = (x.shape[2], x.shape[3])
        # Repeating the results gives the same as repeating the codes, with fewer products.
        scale, shift = (F.interpolate(layer(codes), size=size) for layer in (self.scale, self.shift))
        return torch.addcmul(shift, self.norm(x), scale)


class ConditionedBlock(nn.Module):
    """A `ResnetBlock` with a `SpatialNorm` in place of each norm.

    Args:
        in_channels: The number of channels of the input.
        out_channels: The number of channels of the output.
        code_channels: The number of channels of the codes.
    """

    def __init__(self, *, in_channels: int, out_channels: int, code_channels: int) -> None:
        super().__init__()
        self.norm1 = SpatialNorm(channels=in_channels, code_channels=code_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = SpatialNorm(channels=out_channels, code_channels=code_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = (
            nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(
        self, x: Float[Tensor, "b c_in h w"], codes: Float[Tensor, "b code_channels h_code w_code"]
    ) -> Float[Tensor, "b c_out h w"]:
        """Returns features of the same height and width."""
        y = self.conv1(F.silu(self.norm1(x, codes)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(y, codes)))


class ConditionedAttention(nn.Module):
    """A `SpatialAttention` with a `SpatialNorm` in place of the norm.

    Args:
        channels: The number of channels of the input and of the output.
        code_channels: The number of channels of the codes.
    """

    def __init__(self, *, channels: int, code_channels: int) -> None:
        super().__init__()
        self.norm = SpatialNorm(channels=channels, code_channels=code_channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], codes: Float[Tensor, "b code_channels h_code w_code"]
    ) -> Float[Tensor, "b c h w"]:
        """Returns features of the same shape."""
        normed = self.norm(x, codes)
        query, key, value = (
            rearrange(layer(normed), "b c h w -> b 1 (h w) c") for layer in (self.query, self.key, self.value)
        )
        found = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(rearrange(found, "b 1 (h w) c -> b c h w", h=x.shape[2]))


def _layers(
    in_channels: int, out_channels: int, count: int, *, code_channels: int, attention: bool
) -> Iterator[nn.Module]:
    for index in range(count):
        width = out_channels if index else in_channels
        yield ConditionedBlock(in_channels=width, out_channels=out_channels, code_channels=code_channels)
        if attention:
            yield ConditionedAttention(channels=out_channels, code_channels=code_channels)
