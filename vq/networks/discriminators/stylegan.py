"""The discriminator of StyleGAN2."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.equalized import EqualizedConv2d, EqualizedLinear
from vq.networks.sizes import check_counts
from vq.ops.numerics.precision import at_least_float32
from vq.registry import DISCRIMINATORS

GROUP = 4
LAST_SIZE = 4


@DISCRIMINATORS.register_module()
class StyleGAN2Discriminator(nn.Module):
    """Computes one real-or-fake logit per image (StyleGAN2).

    Residual blocks halve the resolution down to 4 x 4. There, the standard deviation over groups of up to 4 images
    is appended as a channel. There are 28.9 M parameters at 256 px. Positive logits mean real. Train it with an
    `R1Penalty`.

    Source: Karras et al. 2020, https://arxiv.org/abs/1912.04958, section 4.1 and figure 7c; for the width of each
        resolution and the standard deviation of a group, Karras et al. 2018, https://arxiv.org/abs/1710.10196,
        section 3.
    Differs from the source: if the batch size is not a multiple of 4, the groups are smaller; there is no compiled
        extension.

    Args:
        image_size: The height and width of the images; a power of 2 of at least 8.
        max_width: The number of channels at low resolutions; at 64 px and more it is 64 * max_width / size.
        image_channels: The number of channels of the images.

    Raises:
        ValueError: If `image_size` is not a power of 2 or is below 8, or another number is below 1.

    Example:
        >>> StyleGAN2Discriminator(image_size=16, max_width=8)(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 1])
    """

    def __init__(self, *, image_size: int, max_width: int = 512, image_channels: int = 3) -> None:
        super().__init__()
        check_counts("StyleGAN2Discriminator", image_size=image_size, max_width=max_width)
        check_counts("StyleGAN2Discriminator", image_channels=image_channels)
        if image_size < 2 * LAST_SIZE or image_size & (image_size - 1):
            raise ValueError(
                f"StyleGAN2Discriminator: expected image_size to be a power of 2 of at least {2 * LAST_SIZE}, got "
                f"{image_size}; resize the images, or use PatchDiscriminator"
            )
        self.image_size, self.image_channels = image_size, image_channels
        sizes = [image_size >> level for level in range(int(math.log2(image_size // LAST_SIZE)) + 1)]
        widths = [max(1, min(max_width, 64 * max_width // size)) for size in sizes]
        self.stem = EqualizedConv2d(in_channels=image_channels, out_channels=widths[0], kernel_size=1)
        self.blocks = nn.Sequential(
            *(_Block(in_channels=width, out_channels=next_width) for width, next_width in pairwise(widths))
        )
        width = widths[-1]
        self.last = EqualizedConv2d(in_channels=width + 1, out_channels=width, kernel_size=3)
        self.hidden = EqualizedLinear(in_features=width * LAST_SIZE**2, out_features=width)
        self.head = EqualizedLinear(in_features=width, out_features=1)

    def forward(self, image: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b 1"]:
        """Computes one logit for each image in [-1, 1].

        Raises:
            ValueError: If the height or width is not `image_size`.
        """
        if tuple(image.shape[-2:]) != (self.image_size, self.image_size):
            raise ValueError(
                f"StyleGAN2Discriminator: expected images of {self.image_size}x{self.image_size}, got "
                f"{image.shape[-2]}x{image.shape[-1]}; set image_size to theirs"
            )
        x = self.blocks(_activate(self.stem(image)))
        x = torch.cat([x, _deviation(x)], dim=1)
        x = _activate(self.last(x)).flatten(1)
        return self.head(_activate(self.hidden(x)))


class _Block(nn.Module):
    """A residual block of two convolutions, the second of stride 2; the sum is scaled to keep the variance."""

    def __init__(self, *, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = EqualizedConv2d(in_channels=in_channels, out_channels=in_channels, kernel_size=3)
        self.conv2 = EqualizedConv2d(
            in_channels=in_channels, out_channels=out_channels, kernel_size=3, stride=2
        )
        self.shortcut = EqualizedConv2d(
            in_channels=in_channels, out_channels=out_channels, kernel_size=1, stride=2, bias=False
        )

    def forward(self, x: Float[Tensor, "b c_in h w"]) -> Float[Tensor, "b c_out oh ow"]:
        y = _activate(self.conv2(_activate(self.conv1(x))))
        return (y + self.shortcut(x)) / math.sqrt(2)


def _activate(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Applies a leaky ReLU, scaled to keep the second moment."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def _deviation(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """Computes the mean standard deviation over the images of each group, as a constant channel."""
    batch, _, height, width = x.shape
    size = next(n for n in range(min(GROUP, batch), 0, -1) if batch % n == 0)
    groups = at_least_float32(x).reshape(size, batch // size, *x.shape[1:])
    variance = (groups - groups.mean(dim=0)).square().mean(dim=0)
    deviation = (variance + 1e-8).sqrt().mean(dim=(1, 2, 3)).to(x.dtype)
    return deviation.repeat(size).reshape(batch, 1, 1, 1).expand(batch, 1, height, width)
