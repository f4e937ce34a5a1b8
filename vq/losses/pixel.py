"""Losses between pixels."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vq.losses.base import Loss
from vq.ops.numerics.precision import at_least_float32
from vq.registry import LOSSES


@LOSSES.register_module()
class L1Loss(Loss):
    """Averages the absolute difference of all pixels, on images in [-1, 1] (0..2).

    Twice the number that a metric on [0, 1] pixels gives for the same pictures.

    Example:
        >>> import torch
        >>> L1Loss()(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)).item()
        0.5
    """

    def forward(
        self, reconstruction: Float[Tensor, "b 3 h w"], image: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, ""]:
        """Reconstructions and images in [-1, 1] to their mean absolute difference, in float32."""
        return F.l1_loss(at_least_float32(reconstruction), at_least_float32(image))


@LOSSES.register_module()
class MSELoss(Loss):
    """Averages the squared difference of all pixels, on images in [-1, 1] (0..4).

    Four times the number that a metric on [0, 1] pixels gives for the same pictures.

    Example:
        >>> import torch
        >>> MSELoss()(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)).item()
        0.25
    """

    def forward(
        self, reconstruction: Float[Tensor, "b 3 h w"], image: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, ""]:
        """Reconstructions and images in [-1, 1] to their mean squared difference, in float32."""
        return F.mse_loss(at_least_float32(reconstruction), at_least_float32(image))
