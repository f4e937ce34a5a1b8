"""The plain convolutional encoder and decoder of VQ-VAE."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.networks.sizes import check_counts, check_divisible
from vq.registry import DECODERS, ENCODERS


@ENCODERS.register_module()
class VQVAEEncoder(nn.Module):
    """Encodes an image with 4x4 convolutions of stride 2, followed by residual blocks (VQ-VAE).

    All layers have the same width. The activations are ReLUs, and there is no normalization. With `num_blocks=0`
    this is the plain strided CNN of the FSQ and LFQ comparisons at 128 px (three convolutions of 512 channels).
    `StridedCNNEncoder` is smaller and learns faster.

    Source: van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, section 4.1.
    Differs from the source: the output passes through a ReLU; there is no 1x1 convolution after it, because the
        tokenizer has one.

    Args:
        width: The number of channels of all layers.
        num_halvings: The number of convolutions of stride 2. The downsampling factor is 2 ** num_halvings.
        num_blocks: The number of residual blocks.
        block_width: The number of channels inside a residual block; `width` if None.
        in_channels: The number of channels of the input: 3 for images.

    Raises:
        ValueError: If a number is below 1, or `num_blocks` below 0.

    Example:
        >>> import torch
        >>> encoder = VQVAEEncoder(width=8)
        >>> encoder(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 8, 8, 12])
    """

    def __init__(
        self,
        *,
        width: int = 256,
        num_halvings: int = 2,
        num_blocks: int = 2,
        block_width: int | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        block_width = width if block_width is None else block_width
        _check("VQVAEEncoder", num_blocks, width=width, num_halvings=num_halvings, block_width=block_width)
        check_counts("VQVAEEncoder", in_channels=in_channels)
        self.in_channels, self.out_channels = in_channels, width
        self.downsample_factor = 2**num_halvings
        self.halvings = nn.ModuleList(
            nn.Conv2d(width if number else in_channels, width, 4, stride=2, padding=1)
            for number in range(num_halvings)
        )
        self.blocks = nn.Sequential(*(_Block(width, block_width) for _ in range(num_blocks)))

    def forward(self, image: Float[Tensor, "b c_in H W"]) -> Float[Tensor, "b c h w"]:
        """Encodes images in [-1, 1]; height and width are divided by `downsample_factor`.

        Raises:
            ValueError: If the height or width is not a multiple of `downsample_factor`.
        """
        check_divisible("VQVAEEncoder", image, self.downsample_factor)
        x = image
        for number, halving in enumerate(self.halvings):
            x = halving(F.relu(x) if number else x)
        return F.relu(self.blocks(x))


@DECODERS.register_module()
class VQVAEDecoder(nn.Module):
    """Decodes features to an image with residual blocks, followed by transposed 4x4 convolutions of stride 2 (VQ-VAE).

    The decoder mirrors `VQVAEEncoder`.

    Source: van den Oord et al. 2017, https://arxiv.org/abs/1711.00937, section 4.1.
    Differs from the source: as `VQVAEEncoder` does.

    Args:
        width: The number of channels of all layers.
        num_halvings: The number of transposed convolutions. The factor is 2 ** num_halvings.
        num_blocks: The number of residual blocks.
        block_width: The number of channels inside a residual block; `width` if None.
        in_channels: The number of channels of the features; `width` if None. If it is not `width`, a 3x3
            convolution maps the features to `width` channels.
        out_channels: The number of channels of the output: 3 for images.

    Raises:
        ValueError: If a number is below 1, or `num_blocks` below 0.

    Example:
        >>> import torch
        >>> decoder = VQVAEDecoder(width=8)
        >>> decoder(torch.zeros(1, 8, 8, 12)).shape
        torch.Size([1, 3, 32, 48])
    """

    def __init__(
        self,
        *,
        width: int = 256,
        num_halvings: int = 2,
        num_blocks: int = 2,
        block_width: int | None = None,
        in_channels: int | None = None,
        out_channels: int = 3,
    ) -> None:
        super().__init__()
        block_width = width if block_width is None else block_width
        in_channels = width if in_channels is None else in_channels
        _check("VQVAEDecoder", num_blocks, width=width, num_halvings=num_halvings, block_width=block_width)
        check_counts("VQVAEDecoder", in_channels=in_channels, out_channels=out_channels)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.downsample_factor = 2**num_halvings
        self.stem = nn.Identity() if in_channels == width else nn.Conv2d(in_channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(_Block(width, block_width) for _ in range(num_blocks)))
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(
                width, out_channels if number == num_halvings - 1 else width, 4, stride=2, padding=1
            )
            for number in range(num_halvings)
        )

    @property
    def last_layer(self) -> Float[Tensor, "c c_out 4 4"]:
        """The weight of the last layer. Adaptive adversarial weights compare gradients with respect to it."""
        return self.doublings[-1].get_parameter("weight")

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out H W"]:
        """Decodes features to images in about [-1, 1], not clamped; the size is multiplied by `downsample_factor`."""
        x = self.blocks(self.stem(features))
        for doubling in self.doublings:
            x = doubling(F.relu(x))
        return x


class _Block(nn.Module):
    """A residual block: ReLU, 3x3 convolution, ReLU, 1x1 convolution, and a skip connection."""

    def __init__(self, width: int, block_width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, block_width, 3, padding=1)
        self.conv2 = nn.Conv2d(block_width, width, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


def _check(place: str, num_blocks: int, **counts: int) -> None:
    check_counts(place, **counts)
    if num_blocks < 0:
        raise ValueError(f"{place}: expected num_blocks of at least 0, got {num_blocks}")
