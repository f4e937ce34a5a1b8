"""Halving and doubling of a feature map's height and width."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Downsample(nn.Module):
    """Halves height and width with a 3x3 convolution of stride 2.

    Source: Esser et al. 2021, https://arxiv.org/abs/2012.09841, table 7, and the published weights,
        which expect one row and one column of zeros, at the bottom and at the right only.
    Differs from the source: nothing.

    Args:
        channels: Number of channels of the input and of the output.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h//2 w//2"]:
        """Returns features of half the height and width."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles height and width by repeating each position, then smooths with a 3x3 convolution.

    Source: Esser et al. 2021, https://arxiv.org/abs/2012.09841, table 7.
    Differs from the source: nothing.

    Args:
        channels: Number of channels of the input and of the output.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2*h 2*w"]:
        """Returns features of twice the height and width."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
