"""Halving and doubling of a feature map's height and width."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.equalized import blur


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


class BlurPool(nn.Module):
    """Halves height and width: smooths with the binomial kernel 1 3 3 1, then keeps every second row and column.

    The kernel is fixed. Without it, a shift of the image by one pixel changes which values are kept (aliasing).

    Source: Zhang 2019, https://arxiv.org/abs/1904.11486, section 3.2, with the kernel of four values; the padding is
        that of the author's code.
    Differs from the source: nothing.

    Example:
        >>> import torch
        >>> BlurPool()(torch.zeros(1, 2, 8, 7)).shape
        torch.Size([1, 2, 4, 4])
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c oh ow"]:
        """Returns features of half the height and width, rounded up; both are at least 3 before."""
        for dim in (-2, -1):
            # As F.pad with mode="reflect", whose backward pass on a GPU sums in no fixed order.
            first, last = x.narrow(dim, 1, 1), x.narrow(dim, x.shape[dim] - 3, 2).flip(dim)
            x = torch.cat([first, x, last], dim=dim)
        return blur(x, padding=0, stride=2)


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
