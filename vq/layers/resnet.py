"""The residual blocks of the convolutional networks."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.norm import group_norm


class ResnetBlock(nn.Module):
    """Adds to the features what two normalized 3x3 convolutions make of them; the size stays.

    norm, SiLU, conv, norm, SiLU, conv; where the number of channels changes, a 1x1 convolution
    carries the input over to the sum.

    Source: Esser et al. 2021, https://arxiv.org/abs/2012.09841, table 7 (residual block).
    Differs from the source: no dropout (the published runs set it to 0).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; the input's if None.
    """

    def __init__(self, *, in_channels: int, out_channels: int | None = None) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = (
            nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: Float[Tensor, "b c_in h w"]) -> Float[Tensor, "b c_out h w"]:
        """Features to features of the same height and width."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        out: Tensor = self.shortcut(x) + y
        return out


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
