"""Losses between pixels."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vq.losses.base import Loss
from vq.ops.numerics.precision import at_least_float32
from vq.registry import LOSSES

MEANS = ("values", "images")


class PixelLoss(Loss):
    """Averages the difference of images, value by value or image by image.

    Args:
        mean_over: `values` for the mean over all channels of all pixels; `images` for the sum over those of an image,
            averaged over images, as in a likelihood. The second is the first times the number of values of an image.

    Raises:
        ValueError: If there is no such mean.
    """

    def __init__(self, *, mean_over: str = "values") -> None:
        super().__init__()
        if mean_over not in MEANS:
            raise ValueError(
                f"{type(self).__name__}: expected mean_over to be one of {list(MEANS)}, got {mean_over!r}; 'values' is "
                f"usual"
            )
        self.mean_over = mean_over

    def _scaled(self, mean: Float[Tensor, ""], image: Float[Tensor, "b channels h w"]) -> Float[Tensor, ""]:
        return mean if self.mean_over == "values" else mean * image[0].numel()


@LOSSES.register_module()
class L1Loss(PixelLoss):
    """Averages the absolute differences of images in [-1, 1], which are 0..2 for each channel of a pixel.

    It is twice the value that a metric on pixels in [0, 1] gives for the same images.

    Args:
        mean_over: `values` for the mean over all channels of all pixels; `images` for the sum over those of an image,
            averaged over images.

    Raises:
        ValueError: If there is no such mean.

    Example:
        >>> import torch
        >>> L1Loss()(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)).item()
        0.5
    """

    def forward(
        self, reconstruction: Float[Tensor, "b channels h w"], image: Float[Tensor, "b channels h w"]
    ) -> Float[Tensor, ""]:
        """Computes the mean absolute difference of reconstructions and images in [-1, 1], in float32 at least."""
        mean = F.l1_loss(at_least_float32(reconstruction), at_least_float32(image))
        return self._scaled(mean, image)


@LOSSES.register_module()
class MSELoss(PixelLoss):
    """Averages the squared differences of images in [-1, 1], which are 0..4 for each channel of a pixel.

    It is four times the value that a metric on pixels in [0, 1] gives for the same images.

    Args:
        mean_over: `values` for the mean over all channels of all pixels; `images` for the sum over those of an image,
            averaged over images.

    Raises:
        ValueError: If there is no such mean.

    Example:
        >>> import torch
        >>> MSELoss()(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)).item()
        0.25
        >>> MSELoss(mean_over="images")(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)).item()
        3.0
    """

    def forward(
        self, reconstruction: Float[Tensor, "b channels h w"], image: Float[Tensor, "b channels h w"]
    ) -> Float[Tensor, ""]:
        """Computes the mean squared difference of reconstructions and images in [-1, 1], in float32 at least."""
        mean = F.mse_loss(at_least_float32(reconstruction), at_least_float32(image))
        return self._scaled(mean, image)
