"""Inverted bottlenecks: residual blocks with a depthwise convolution in more channels (ViTamin)."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Normalizes the channels of each position of a feature map to mean 0 and variance 1.

    Args:
        channels: Number of channels of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Returns features of the same shape."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class InvertedBottleneck(nn.Module):
    """Adds to the features the output of a depthwise convolution between two 1x1 convolutions.

    Norm, 1x1 convolution to four times the output's channels, GELU, depthwise 3x3 convolution, GELU, 1x1 convolution.
    A block that halves has a stride of 2 in the depthwise convolution, one that doubles repeats each position and
    smooths with a 3x3 convolution before it.

    Source: Chen et al. 2024 (ViTamin), https://arxiv.org/abs/2404.02132; `MbConvLNBlock` and, for the block
        that doubles, `InvMbConvLNBlock` in models/vitamin.py of https://github.com/FoundationVision/UniTok.

    Args:
        in_channels: Number of channels of the input.
        out_channels: Number of channels of the output.
        change: What happens to height and width: `"halve"`, `"double"`, or None, which needs equal channels.
    """

    def __init__(
        self, *, in_channels: int, out_channels: int, change: Literal["halve", "double"] | None = None
    ) -> None:
        super().__init__()
        hidden = 4 * out_channels
        self.norm = ChannelNorm(in_channels)
        self.expand = nn.Conv2d(in_channels, hidden, 1)
        self.enlarge = doubled(hidden, hidden) if change == "double" else nn.Identity()
        self.depthwise = nn.Conv2d(
            hidden, hidden, 3, stride=2 if change == "halve" else 1, padding=1, groups=hidden
        )
        self.reduce = nn.Conv2d(hidden, out_channels, 1)
        self.shortcut: nn.Module = nn.Identity()
        if change == "double":
            self.shortcut = doubled(in_channels, out_channels)
        elif change == "halve":
            pool = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
            widen = [] if in_channels == out_channels else [nn.Conv2d(in_channels, out_channels, 1)]
            self.shortcut = nn.Sequential(pool, *widen)

    def forward(self, x: Float[Tensor, "b c_in h w"]) -> Float[Tensor, "b c_out h2 w2"]:
        """Returns features of the same height and width, of half, or of twice."""
        y = self.enlarge(F.gelu(self.expand(self.norm(x))))
        return self.shortcut(x) + self.reduce(F.gelu(self.depthwise(y)))


def doubled(in_channels: int, out_channels: int) -> nn.Sequential:
    """Returns layers that double height and width by repeating each position, then smooth with a 3x3 convolution."""
    return nn.Sequential(
        nn.Upsample(scale_factor=2.0, mode="nearest"), nn.Conv2d(in_channels, out_channels, 3, padding=1)
    )
