"""The teacher that works without a download: EfficientNet-Lite0, whose weights a pip package carries."""

from itertools import islice

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vq.networks.frozen.efficientnet import EfficientNetLite0
from vq.networks.teachers.base import Teacher, check_image_size
from vq.registry import TEACHERS

_FACTORS = (2, 4, 8, 16, 32)


@TEACHERS.register_module()
class EfficientNetTeacher(Teacher):
    """Computes a feature map of EfficientNet-Lite0, trained to classify ImageNet.

    | downsample_factor | 2 | 4 | 8 | 16 | 32 |
    |---|---|---|---|---|---|
    | channels | 16 | 24 | 40 | 112 | 1280 |

    Source: as of `EfficientNetLite0`.

    Args:
        downsample_factor: The height and width of a patch, in pixels. The features are those of the last layer with
            this resolution; the layers after it are not computed.
        image_size: The height and width, in pixels, to which images are resized (bilinear, antialiased, as
            `EfficientNetLite0` does it); None leaves
            them in their size.

    Raises:
        ValueError: If there is no such layer, or `image_size` is not a multiple of `downsample_factor`.
        FileNotFoundError: If the weight file does not exist. The message says which command creates it.

    Example:
        >>> import torch
        >>> teacher = EfficientNetTeacher()
        >>> teacher(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 4, 6, 112])
    """

    interpolation = "bilinear"

    def __init__(self, *, downsample_factor: int = 16, image_size: int | None = None) -> None:
        super().__init__()
        if downsample_factor not in _FACTORS:
            raise ValueError(
                f"EfficientNetTeacher: expected downsample_factor to be one of {_FACTORS}, got {downsample_factor!r}"
            )
        check_image_size("EfficientNetTeacher", image_size, downsample_factor)
        self.downsample_factor, self.image_size = downsample_factor, image_size
        self.network = EfficientNetLite0()
        self._map = _FACTORS.index(downsample_factor)
        self.channels = self.network.channels[self._map]
        self.eval()

    def features(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b rows columns channels"]:
        """Computes the features of images in [-1, 1] whose sides are multiples of `downsample_factor`."""
        (features,) = islice(self.network.maps(image), self._map, self._map + 1)
        return rearrange(features, "b c h w -> b h w c")
