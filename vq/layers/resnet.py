"""Residual blocks of the convolutional networks."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.norm import group_norm


class ResnetBlock(nn.Module):
    """Adds to the features the output of two normalized 3x3 convolutions; height and width are kept.

    norm, SiLU, conv, norm, SiLU, conv. If the number of channels changes, a 1x1 convolution maps the input to the
    sum.

    Source: Esser et al. 2021, https://arxiv.org/abs/2012.09841, table 7 (residual block).
    Differs from the source: no dropout (the published runs set it to 0).

    Args:
        in_channels: Number of channels of the input.
        out_channels: Number of channels of the output; None is that of the input.
        bias: Whether the convolutions have biases, as in VQGAN; those of Open-MAGVIT2 have none.
    """

    def __init__(self, *, in_channels: int, out_channels: int | None = None, bias: bool = True) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
        self.norm2 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        )

    def forward(self, x: Float[Tensor, "b c_in h w"]) -> Float[Tensor, "b c_out h w"]:
        """Returns features of the same height and width."""
        # Without gradients, the activation takes the memory of the norm's output: a new tensor costs 7 % of an encoder.
        in_place = not torch.is_grad_enabled()
        y = self.conv1(F.silu(self.norm1(x), inplace=in_place))
        y = self.conv2(F.silu(self.norm2(y), inplace=in_place))
        return self.shortcut(x) + y


class PlainResidualBlock(nn.Module):
    """Adds to the features the output of two 3x3 convolutions, without normalization.

    SiLU, conv, SiLU, conv; height and width are kept.

    Source: van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, section 4.1.
    Differs from the source: SiLU instead of ReLU, and a second 3x3 convolution where the source has a 1x1 one.

    Args:
        channels: Number of channels of the input and of the output.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Returns features of the same shape."""
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))
