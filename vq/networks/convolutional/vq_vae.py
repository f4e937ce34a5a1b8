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
        image_channels: The number of channels of the images.
        in_channels: The number of channels of the features, if the network encodes features instead of images, as the
            top encoder of a `TwoLevelTokenizer` does.

    Raises:
        ValueError: If a number is below 1, or `num_blocks` below 0, or the channels of images and of features are both
            given.

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
        image_channels: int = 3,
        in_channels: int | None = None,
    ) -> None:
        super().__init__()
        block_width = width if block_width is None else block_width
        _check("VQVAEEncoder", num_blocks, width=width, num_halvings=num_halvings, block_width=block_width)
        in_channels = _channels("VQVAEEncoder", "in_channels", in_channels, image_channels)
        self.in_channels, self.out_channels, self.image_channels = in_channels, width, in_channels
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
        image_channels: The number of channels of the images.
        out_channels: The number of channels of the features, if the network decodes to features instead of images, as
            the top decoder of a `TwoLevelTokenizer` does.

    Raises:
        ValueError: If a number is below 1, or `num_blocks` below 0, or the channels of images and of features are both
            given.

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
        image_channels: int = 3,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        block_width = width if block_width is None else block_width
        in_channels = width if in_channels is None else in_channels
        _check("VQVAEDecoder", num_blocks, width=width, num_halvings=num_halvings, block_width=block_width)
        check_counts("VQVAEDecoder", in_channels=in_channels)
        out_channels = _channels("VQVAEDecoder", "out_channels", out_channels, image_channels)
        self.in_channels, self.out_channels, self.image_channels = in_channels, out_channels, out_channels
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


def _channels(place: str, name: str, features: int | None, image: int) -> int:
    """The number of channels of the side of the images: those of features if they are given, else of images."""
    check_counts(place, image_channels=image, **({} if features is None else {name: features}))
    if features is not None and image not in (3, features):
        raise ValueError(
            f"{place}: expected either image_channels or {name}, got {image} and {features}; leave out {name} for "
            f"images, or image_channels for features"
        )
    return image if features is None else features


def _check(place: str, num_blocks: int, **counts: int) -> None:
    check_counts(place, **counts)
    if num_blocks < 0:
        raise ValueError(f"{place}: expected num_blocks of at least 0, got {num_blocks}")
