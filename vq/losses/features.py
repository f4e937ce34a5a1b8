"""Losses between features of a frozen network: between pyramids, or between predicted and actual features."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vq.losses.base import Loss
from vq.losses.perceptual import RANGE_SLACK
from vq.networks.frozen.features import frozen_pyramid
from vq.ops.directions import unit
from vq.ops.images import checked_rgb, rgb_view
from vq.ops.numerics.precision import at_least_float32
from vq.registry import LOSSES


@LOSSES.register_module()
class FeatureLoss(Loss):
    """Compares the feature pyramids of reconstructions and images in a frozen network.

    At each depth the features of a position are normalized to length 1, subtracted, squared and summed over the
    channels; the loss is the mean over positions and depths (0..4). It is LPIPS without the learned weights of the
    channels. The image's features are computed once, without a gradient. The network is in no state dict. The
    arithmetic is in float32, also inside autocast, or in float64 if the images are.

    Source: Zhang et al. 2018, https://arxiv.org/abs/1801.03924, eq. 1 with all weights 1.
    Differs from the source: the mean over the depths, not the sum.

    Args:
        network: A `FeaturePyramid`, such as `EfficientNetLite0`, which this class freezes.
        rgb: The channels of the images that the network sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        TypeError: If the network is not a feature pyramid.
        ValueError: If `rgb` is invalid.
    """

    def __init__(self, *, network: nn.Module, rgb: Sequence[int] | None = None) -> None:
        super().__init__()
        self.rgb = checked_rgb("FeatureLoss", rgb)
        self._network = frozen_pyramid("FeatureLoss", network)
        self._is_range_checked = False

    def forward(
        self, reconstruction: Float[Tensor, "b channels h w"], image: Float[Tensor, "b channels h w"]
    ) -> Float[Tensor, ""]:
        """Computes the mean distance of reconstructions and images in [-1, 1].

        Raises:
            ValueError: If the first batch of images exceeds [-1, 1].
            ChannelsError: If the images do not have the channels of `rgb`, or not 3 without it.
        """
        reconstruction, image = (rgb_view("FeatureLoss", x, self.rgb) for x in (reconstruction, image))
        if not self._is_range_checked and not torch.compiler.is_compiling():
            _check_range(image)
            self._is_range_checked = True
        dtype = torch.promote_types(reconstruction.dtype, torch.float32)
        network = self._network[0]
        cast("nn.Module", network).to(image.device, dtype)
        with torch.autocast(image.device.type, enabled=False):
            with torch.no_grad():
                wanted = network.pyramid(image.to(dtype))
            found = network.pyramid(reconstruction.to(dtype))
            distances = [
                (unit(a, dim=1) - unit(b, dim=1)).square().sum(dim=1).mean()
                for a, b in zip(found, wanted, strict=True)
            ]
            return torch.stack(distances).mean()


@LOSSES.register_module()
class CosineFeatureLoss(Loss):
    """Compares predicted features with those of a frozen teacher: 1 - cosine, averaged over positions (0..2).

    Source: Peng et al. 2022 (BEiT v2, VQ-KD), https://arxiv.org/abs/2208.06366, eq. 2.
    Differs from the source: nothing.
    """

    def forward(
        self, reconstruction: Float[Tensor, "b c h w"], image: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, ""]:
        """Computes the mean distance of the directions of predicted features and of the teacher's.

        Args:
            reconstruction: Predicted features.
            image: Features of the teacher, which get no gradient.
        """
        predicted, wanted = (unit(at_least_float32(x), dim=1) for x in (reconstruction, image.detach()))
        return (1 - (predicted * wanted).sum(dim=1)).mean()


def _check_range(image: Float[Tensor, "b 3 h w"]) -> None:
    low, high = (extreme.item() for extreme in torch.aminmax(image))
    if not (low >= -1 - RANGE_SLACK and high <= 1 + RANGE_SLACK):
        raise ValueError(
            f"FeatureLoss: expected images in [-1, 1], got values from {low:.3g} to {high:.3g}; scale them, for "
            "example from bytes with x / 127.5 - 1"
        )
