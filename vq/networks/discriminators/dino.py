"""The discriminator of StyleGAN-T, which judges the features of a frozen network."""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from vq.layers.norm import group_norm
from vq.networks.frozen.features import frozen_pyramid
from vq.networks.sizes import check_counts
from vq.ops.images import checked_rgb, rgb_view
from vq.registry import DISCRIMINATORS

SLOPE = 0.2
VIRTUAL_BATCH = 8


@DISCRIMINATORS.register_module()
class DINODiscriminator(nn.Module):
    """Computes a real-or-fake logit for each position of a frozen network's feature maps (StyleGAN-T).

    Each map is flattened in raster order to a sequence and goes through its own small head: a 1x1 convolution, a
    residual block with a wide convolution, and a 1x1 convolution to a single logit, all with spectral norm. Only
    the heads are trained and saved: 1.5 M parameters for each map of DINO's ViT-S. The frozen network runs in the
    caller's precision, the heads in float32. Positive logits mean real.

    Source: Sauer et al. 2023, https://arxiv.org/abs/2301.09515, section 3.2.
    Differs from the source: there is no text condition; the feature network is an argument, and the class token of
        `TimmViTFeatures` is not used; the logits of smaller maps are repeated, so that all maps have equal weight.

    Args:
        network: A `FeaturePyramid`, such as `TimmViTFeatures` (DINO) or `EfficientNetLite0`. It is frozen in place.
        width: The number of channels of the heads.
        kernel_size: The kernel size of the wide convolution in positions; odd. Its padding is circular.
        norm: `batch` for statistics over virtual batches of up to 8 images, as published, or `group` for
            statistics of each image alone. Neither keeps running statistics, so train and eval mode are the same.
        rgb: The channels of the images that the network sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        TypeError: If the network is not a `FeaturePyramid`.
        ValueError: If a number is below 1, `kernel_size` is even, the norm is unknown, or `rgb` is invalid.

    Example:
        >>> from vq.networks import EfficientNetLite0
        >>> discriminator = DINODiscriminator(network=EfficientNetLite0(size=64), width=8)
        >>> discriminator(torch.zeros(2, 3, 32, 32)).shape  # 5 maps, 32x32 to 2x2; each counts as 1024 logits
        torch.Size([2, 5120])
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        width: int = 384,
        kernel_size: int = 9,
        norm: str = "batch",
        rgb: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_counts("DINODiscriminator", width=width, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(
                f"DINODiscriminator: expected an odd kernel_size, got {kernel_size}; take {kernel_size + 1}"
            )
        if norm not in ("batch", "group"):
            raise ValueError(
                f"DINODiscriminator: expected norm to be 'batch' or 'group', got {norm!r}; choose one of them"
            )
        self.rgb = checked_rgb("DINODiscriminator", rgb)
        self._network = frozen_pyramid("DINODiscriminator", network)
        self.min_positions = kernel_size // 2
        self.heads = nn.ModuleList(
            _Head(in_channels=channels, width=width, kernel_size=kernel_size, norm=norm)
            for channels in self._network[0].channels
        )

    def forward(self, image: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b logits"]:
        """Computes the logits of images in [-1, 1]; each map gives as many as the largest map has positions.

        Raises:
            ValueError: If a map has fewer than `kernel_size // 2` positions.
            ChannelsError: If the images do not have the channels of `rgb`, or not 3 without it.
        """
        maps = self._network[0].pyramid(rgb_view("DINODiscriminator", image, self.rgb))
        smallest = min(features[0, 0].numel() for features in maps)
        if smallest < self.min_positions:
            raise ValueError(
                f"DINODiscriminator: expected maps of at least {self.min_positions} positions, got one of {smallest}; "
                "use a larger size in the feature network, or a smaller kernel_size"
            )
        # Spectral norm combines its float32 vectors with products that autocast would compute in bfloat16.
        with torch.autocast(image.device.type, enabled=False):
            dtype = next(self.heads.parameters()).dtype
            found = [
                head(features.to(dtype).flatten(2)) for head, features in zip(self.heads, maps, strict=True)
            ]
        most = max(logits.shape[1] for logits in found)
        return torch.cat([_repeated(logits, most) for logits in found], dim=1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DINODiscriminator":
        # `.to()` must also move the frozen network, which is outside the module tree.
        cast("Any", self._network[0])._apply(fn)
        cast("Any", super())._apply(fn, recurse)
        return self


class _Head(nn.Module):
    """Computes a logit for each position of a sequence of features."""

    def __init__(self, *, in_channels: int, width: int, kernel_size: int, norm: str) -> None:
        super().__init__()
        self.entry = _Block(in_channels=in_channels, out_channels=width, kernel_size=1, norm=norm)
        self.block = _Block(in_channels=width, out_channels=width, kernel_size=kernel_size, norm=norm)
        self.out = spectral_norm(nn.Conv1d(width, 1, 1))

    def forward(self, x: Float[Tensor, "b c l"]) -> Float[Tensor, "b l"]:
        x = self.entry(x)
        return self.out((x + self.block(x)) / math.sqrt(2))[:, 0]


class _Block(nn.Module):
    """A circular convolution, a norm and a leaky ReLU."""

    def __init__(self, *, in_channels: int, out_channels: int, kernel_size: int, norm: str) -> None:
        super().__init__()
        self.convolution = spectral_norm(
            nn.Conv1d(
                in_channels, out_channels, kernel_size, padding=kernel_size // 2, padding_mode="circular"
            )
        )
        self.norm = _VirtualBatchNorm(out_channels) if norm == "batch" else group_norm(out_channels)

    def forward(self, x: Float[Tensor, "b c_in l"]) -> Float[Tensor, "b c_out l"]:
        return F.leaky_relu(self.norm(self.convolution(x)), SLOPE)


class _VirtualBatchNorm(nn.Module):
    """Batch normalization over groups of up to 8 images, without running statistics."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "b c l"]) -> Float[Tensor, "b c l"]:
        size = next((n for n in range(min(VIRTUAL_BATCH, len(x)), 0, -1) if len(x) % n == 0), 1)
        groups = x.reshape(len(x) // size, size, *x.shape[1:])
        variance, mean = torch.var_mean(groups, dim=(1, 3), correction=0, keepdim=True)
        normalized = ((groups - mean) * torch.rsqrt(variance + 1e-5)).flatten(0, 1)
        return normalized * self.weight[:, None] + self.bias[:, None]


def _repeated(logits: Float[Tensor, "b l"], count: int) -> Float[Tensor, "b {count}"]:
    """Repeats logits to the given number, each about equally often."""
    if logits.shape[1] == count:
        return logits
    return F.interpolate(logits[:, None], size=count, mode="nearest")[:, 0]
