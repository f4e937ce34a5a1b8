"""The base class of teachers, which compute one feature vector per patch of an image with frozen weights."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vq.networks.frozen.base import FrozenWeights
from vq.networks.sizes import check_divisible
from vq.ops.numerics.precision import at_least_float32


class Teacher(FrozenWeights, ABC):
    """Computes one feature vector per patch of an image with frozen weights.

    The weights are in no state dict, receive no gradient, and stay in eval mode under `.train()`. Parts that take a
    `teacher` have it as an ordinary submodule, so that `.to(device)` moves it.

    Attributes:
        channels: The number of channels of a feature vector.
        downsample_factor: The height and width of a patch, in pixels of the image that the network sees.
        image_size: The height and width, in pixels, to which images are resized first. With None they keep their
            size, which has to be a multiple of `downsample_factor`.
        interpolation: How images are resized, always with antialiasing: `bicubic` or `bilinear`.
    """

    channels: int
    downsample_factor: int
    image_size: int | None = None
    interpolation: str = "bicubic"

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b rows columns channels"]:
        """Computes the features of images in [-1, 1].

        The weights are float32. Inside `torch.autocast` the network computes in its type, such as bfloat16, like any
        other module; the features are float32 in every case, or float64 if the network was converted to it. They have
        no gradient, and may be the target of a loss.

        Raises:
            ValueError: If `image_size` is None and the height or width is not a multiple of `downsample_factor`.
        """
        if self.image_size is not None:
            image = self.resized(image, (self.image_size, self.image_size))
        check_divisible(type(self).__name__, image, self.downsample_factor)
        return at_least_float32(self.features(image))

    @abstractmethod
    def features(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b rows columns channels"]:
        """Computes the features of images in [-1, 1] whose sides are multiples of `downsample_factor`."""

    def resized(
        self, image: Float[Tensor, "b 3 H W"], size: tuple[int, int]
    ) -> Float[Tensor, "b 3 {size[0]} {size[1]}"]:
        """Resizes images in [-1, 1] as the network expects it; images of this size are returned unchanged."""
        if tuple(image.shape[2:]) == size:
            return image
        found = F.interpolate(at_least_float32(image), size=size, mode=self.interpolation, antialias=True)
        return found.clamp(-1, 1)  # the bicubic kernel overshoots at edges; no image file holds such pixels

    def train(self, mode: bool = True) -> "Teacher":
        """Leaves the network in eval mode, and returns it."""
        return super().train(mode=False)


def check_image_size(place: str, image_size: int | None, factor: int) -> None:
    """Checks that `image_size` is None or a multiple of the patch size `factor`.

    Args:
        place: The class that takes the size. The error message starts with it.
        image_size: The height and width to which images are resized.
        factor: The height and width of a patch.

    Raises:
        ValueError: If it is neither.
    """
    if image_size is not None and (image_size < factor or image_size % factor):
        raise ValueError(
            f"{place}: expected image_size to be a multiple of the patch size {factor}, got {image_size}; take "
            f"{max(1, image_size // factor) * factor}"
        )
