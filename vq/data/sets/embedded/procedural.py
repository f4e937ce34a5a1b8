"""Images that are drawn when they are read."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from vq.data.base import DataError, ImageDataset
from vq.ops.keyed import generator
from vq.registry import DATASETS

_SHAPES = ("disc", "square", "triangle", "ring")


@DATASETS.register_module()
class ProceduralDataset(ImageDataset):
    """Draws one coloured shape on a colour gradient: any number of images for tests, without a file.

    Image `index` is a pure function of (seed, index), whatever `num_images` is.

    Args:
        num_images: At least 1.
        image_size: Length of a side in pixels, at least 8.
        seed: Selects the sequence of images.

    Raises:
        DataError: If `num_images` or `image_size` is too small.

    Example:
        >>> ProceduralDataset(num_images=8, image_size=16).read(3).shape
        torch.Size([3, 16, 16])
    """

    def __init__(self, *, num_images: int, image_size: int = 32, seed: int = 0) -> None:
        if num_images < 1 or image_size < 8:
            raise DataError(
                "ProceduralDataset: expected num_images of at least 1 and image_size of at least 8, "
                f"got {num_images} and {image_size}"
            )
        self.num_images = num_images
        self.image_size = image_size
        self.seed = seed

    def __len__(self) -> int:
        """The number of images."""
        return self.num_images

    def read(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """Draws image `index`, pixels 0..255."""
        self._check_index(index)
        draws = torch.rand(14, generator=generator("procedural", self.seed, index), device="cpu").tolist()
        y, x = torch.meshgrid(
            *2 * [(torch.arange(self.image_size, device="cpu") + 0.5) / self.image_size], indexing="ij"
        )
        angle = 2 * math.pi * draws[0]
        slope = ((x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle) + 0.75) / 1.5  # in [0, 1]
        near, far, ink = (torch.tensor(draws[i : i + 3], device="cpu")[:, None, None] for i in (1, 4, 7))
        background = near + (far - near) * slope
        dx, dy, radius = x - (0.3 + 0.4 * draws[10]), y - (0.3 + 0.4 * draws[11]), 0.12 + 0.16 * draws[12]
        coverage = (
            0.5 - _signed_distance(_SHAPES[self.label(index)], dx, dy, radius) * self.image_size
        ).clamp(0, 1)
        image = background + (ink - background) * coverage
        return (image * 255).round().to(torch.uint8)

    def key(self, index: int) -> str:
        """The seed and the index, such as `0/17`."""
        self._check_index(index)
        return f"{self.seed}/{index}"

    def label(self, index: int) -> int:
        """The number of the shape; the shapes take turns."""
        return index % len(_SHAPES)

    @property
    def class_names(self) -> Sequence[str]:
        """The shapes."""
        return _SHAPES

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.num_images:
            raise IndexError(f"ProceduralDataset: expected an index below {self.num_images}, got {index}")


def _signed_distance(
    shape: str, dx: Float32[Tensor, "h w"], dy: Float32[Tensor, "h w"], radius: float
) -> Float32[Tensor, "h w"]:
    """Distance to the shape's edge (of a corner: to its sides), negative inside; lengths in image sides."""
    if shape == "disc":
        return torch.hypot(dx, dy) - radius
    if shape == "ring":
        return (torch.hypot(dx, dy) - 0.75 * radius).abs() - 0.25 * radius
    if shape == "square":
        return torch.maximum(dx.abs(), dy.abs()) - 0.9 * radius
    sides = [dx * math.cos(a) + dy * math.sin(a) for a in (math.pi / 2, math.pi * 7 / 6, math.pi * 11 / 6)]
    return torch.stack(sides).amax(0) - 0.6 * radius
