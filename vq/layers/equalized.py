"""Layers with equalized learning rates, and the blur before a stride, as in the networks of StyleGAN."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.ops.numerics.constants import constant

BLUR = (1.0, 3.0, 3.0, 1.0)


class EqualizedConv2d(nn.Module):
    """Convolves with weights that have variance 1 and are scaled in the forward: all layers learn equally fast.

    Height and width are kept (stride 1) or halved (stride 2); before a stride of 2 the features are blurred.

    Source: Karras et al. 2018, https://arxiv.org/abs/1710.10196, section 4.1; the blur: Karras et al. 2019,
        https://arxiv.org/abs/1812.04948, section 2 and Zhang 2019, https://arxiv.org/abs/1904.11486.

    Args:
        in_channels: Number of channels of the input.
        out_channels: Number of channels of the output.
        kernel_size: Size of the kernel, 1 or 3.
        stride: Stride, 1 or 2.
        bias: Whether a bias is added.
    """

    def __init__(
        self, *, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.scale, self.stride = 1 / math.sqrt(in_channels * kernel_size**2), stride

    def forward(self, x: Float[Tensor, "b c_in h w"]) -> Float[Tensor, "b c_out oh ow"]:
        """Returns features with height and width divided by the stride."""
        kernel = self.weight.shape[-1]
        if self.stride == 1:
            return F.conv2d(x, self.weight * self.scale, self.bias, padding=kernel // 2)
        blurred = blur(x, padding=kernel // 2 + 1)
        return F.conv2d(blurred, self.weight * self.scale, self.bias, stride=self.stride)


class EqualizedLinear(nn.Module):
    """Multiplies by weights that have variance 1 and are scaled in the forward, and adds a bias.

    Source: Karras et al. 2018, https://arxiv.org/abs/1710.10196, section 4.1.

    Args:
        in_features: Length of the input vectors.
        out_features: Length of the output vectors.
    """

    def __init__(self, *, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.scale = 1 / math.sqrt(in_features)

    def forward(self, x: Float[Tensor, "b c_in"]) -> Float[Tensor, "b c_out"]:
        """Returns vectors of length `out_features`."""
        return F.linear(x, self.weight * self.scale, self.bias)


def blur(x: Float[Tensor, "b c h w"], *, padding: int, stride: int = 1) -> Float[Tensor, "b c oh ow"]:
    """Smooths every channel in both directions with the binomial kernel 1 3 3 1, normalized to the sum 1.

    Args:
        x: Features.
        padding: Number of zeros added on every side; the result has 2 * padding - 3 more rows and columns.
        stride: Keeps every stride-th row and column of the result.

    Example:
        >>> blur(torch.ones(1, 1, 6, 6), padding=0).flatten()[0].item()
        1.0
    """
    taps = constant(_taps, x.dtype, device=x.device)
    channels = x.shape[1]
    rows = taps.reshape(1, 1, 4, 1).expand(channels, 1, 4, 1)
    columns = taps.reshape(1, 1, 1, 4).expand(channels, 1, 1, 4)
    smoothed = F.conv2d(x, rows, stride=(stride, 1), padding=(padding, 0), groups=channels)
    return F.conv2d(smoothed, columns, stride=(1, stride), padding=(0, padding), groups=channels)


def _taps(dtype: torch.dtype) -> Float[Tensor, "4"]:
    return torch.tensor(BLUR, dtype=dtype) / sum(BLUR)
