"""The perceptual loss LPIPS."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vq.losses.base import Loss
from vq.networks.frozen.lpips import LPIPSNetwork, LPIPSTrunk
from vq.ops.images import checked_rgb, rgb_view
from vq.registry import LOSSES

RANGE_SLACK = 0.05
"""Tolerance by which images may exceed [-1, 1]: resizing with a sharp filter overshoots a little."""


@LOSSES.register_module()
class LPIPSLoss(Loss):
    """Compares reconstructions with images through the features of a frozen network (LPIPS v0.1).

    The weights never change, are always in evaluation mode, and are in no state dict. The features of the images are
    computed without a gradient. Inside autocast the features are computed in its type, and compared in float32; in
    bfloat16 this moves the loss by less than 0.001.

    Source: Zhang et al. 2018, https://arxiv.org/abs/1801.03924, eq. 1.
    Differs from the source: see `LPIPSNetwork`.

    Args:
        network: `alex` (fast; use it on a CPU) or `vgg` (with which VQGAN and LlamaGen train).
        rgb: The channels of the images that the network sees as red, green and blue, such as (0, 0, 0) for grey images;
            None for images of 3 channels.

    Raises:
        ValueError: If the network is unknown, or `rgb` is invalid.
        FileNotFoundError: If its weights are missing; the message names the command that provides them.
    """

    uses_autocast: ClassVar[bool] = True

    def __init__(self, *, network: LPIPSTrunk = "vgg", rgb: Sequence[int] | None = None) -> None:
        super().__init__()
        self.rgb = checked_rgb("LPIPSLoss", rgb)
        self.network = LPIPSNetwork(trunk=network)
        self._is_range_checked = False

    def forward(
        self, reconstruction: Float[Tensor, "b channels h w"], image: Float[Tensor, "b channels h w"]
    ) -> Float[Tensor, ""]:
        """Computes the mean distance, about 0..1, of reconstructions and images in [-1, 1].

        Raises:
            ValueError: If the first batch of images exceeds [-1, 1], or the images are too small.
            ChannelsError: If the images do not have the channels of `rgb`, or not 3 without it.
        """
        reconstruction, image = (rgb_view("LPIPSLoss", x, self.rgb) for x in (reconstruction, image))
        if not self._is_range_checked and not torch.compiler.is_compiling():
            self._check_range(image)
        return self.network(reconstruction, image, in_autocast=True).mean()

    def _check_range(self, image: Float[Tensor, "b 3 h w"]) -> None:
        # Reading the extremes waits for the GPU, so only the first batch is checked.
        low, high = (extreme.item() for extreme in torch.aminmax(image))
        if not (low >= -1 - RANGE_SLACK and high <= 1 + RANGE_SLACK):
            raise ValueError(
                f"LPIPSLoss: expected images in [-1, 1], got values from {low:.3g} to {high:.3g}; "
                "scale them, for example from bytes with x / 127.5 - 1"
            )
        self._is_range_checked = True
