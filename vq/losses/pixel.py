"""Losses between pixels."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vq.losses.base import Loss
from vq.ops.numerics.precision import at_least_float32
from vq.registry import LOSSES


@LOSSES.register_module()
class L1Loss(Loss):
    """Averages the absolute differences of all channels of all pixels of images in [-1, 1] (0..2).

    It is twice the value that a metric on pixels in [0, 1] gives for the same images.

    Example:
        >>> import torch
        >>> L1Loss()(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)).item()
        0.5
    """

    def forward(
        self, reconstruction: Float[Tensor, "b channels h w"], image: Float[Tensor, "b channels h w"]
    ) -> Float[Tensor, ""]:
        """Computes the mean absolute difference of reconstructions and images in [-1, 1], in float32 at least."""
        return F.l1_loss(at_least_float32(reconstruction), at_least_float32(image))


@LOSSES.register_module()
class MSELoss(Loss):
    """Averages the squared differences of all channels of all pixels of images in [-1, 1] (0..4).

    It is four times the value that a metric on pixels in [0, 1] gives for the same images.

    Example:
        >>> import torch
        >>> MSELoss()(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)).item()
        0.25
    """

    def forward(
        self, reconstruction: Float[Tensor, "b channels h w"], image: Float[Tensor, "b channels h w"]
    ) -> Float[Tensor, ""]:
        """Computes the mean squared difference of reconstructions and images in [-1, 1], in float32 at least."""
        return F.mse_loss(at_least_float32(reconstruction), at_least_float32(image))
