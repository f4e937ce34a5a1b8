"""What happens to an image between its file and the batch: pixels in, pixels out, randomness from outside."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from vq.data.base import DataError
from vq.data.decode import MAX_PIXELS
from vq.registry import TRANSFORMS


class ImageTooLargeError(DataError):
    """An image that a transform would make too large; a loader counts it as one that cannot be decoded."""


class Transform(ABC):
    """Changes one image; every random choice is drawn from the generator it is handed."""

    @abstractmethod
    def __call__(
        self, image: UInt8[Tensor, "3 height width"], generator: torch.Generator
    ) -> UInt8[Tensor, "3 new_height new_width"]:
        """Changes one image.

        Args:
            image: Pixels 0..255; never written into.
            generator: A CPU generator that belongs to this sample alone.
        """


@TRANSFORMS.register_module()
class Resize(Transform):
    """Scales an image until its shorter side has `size` pixels; its proportions stay.

    Antialiased bicubic on uint8, about twice as fast as Pillow's: on photographs at most 2 levels from it,
    more than 1 in 4 pixels of a million.

    Args:
        size: Length of the shorter side in pixels, at least 1.

    Raises:
        ValueError: If `size` is below 1.
        ImageTooLargeError: When called, if the result would have more than 2^26 pixels: a line of 20,000 x 1
            pixels would take 3.9 GB at a size of 256. A loader counts such an image as undecodable.
    """

    def __init__(self, *, size: int) -> None:
        self.size = _checked_size("Resize", size)

    def __call__(
        self, image: UInt8[Tensor, "3 height width"], generator: torch.Generator
    ) -> UInt8[Tensor, "3 new_height new_width"]:
        """Scales one image; nothing is random."""
        height, width = image.shape[1:]
        shorter, longer = sorted((height, width))
        if shorter == self.size:
            return image
        new_longer = self.size * longer // shorter
        if self.size * new_longer > MAX_PIXELS:
            raise ImageTooLargeError(
                f"Resize: an image of {height}x{width} would become {self.size} pixels on the shorter side and "
                f"{new_longer:,} on the longer, more than {MAX_PIXELS:,} in all; crop it before, or remove it"
            )
        return _bicubic(image, [self.size])


@TRANSFORMS.register_module()
class CenterCrop(Transform):
    """Cuts a square out of the middle of an image.

    Args:
        size: Length of a side in pixels, at least 1.

    Raises:
        ValueError: If `size` is below 1; when called, if the image is smaller than the square.
    """

    def __init__(self, *, size: int) -> None:
        self.size = _checked_size("CenterCrop", size)

    def __call__(
        self, image: UInt8[Tensor, "3 height width"], generator: torch.Generator
    ) -> UInt8[Tensor, "3 new_height new_width"]:
        """Cuts one image; nothing is random."""
        spare_y, spare_x = _spare("CenterCrop", image, self.size)
        return _cut(image, spare_y // 2, spare_x // 2, self.size, self.size)


@TRANSFORMS.register_module()
class RandomCrop(Transform):
    """Cuts a square out of an image, every position equally likely.

    Args:
        size: Length of a side in pixels, at least 1.

    Raises:
        ValueError: If `size` is below 1; when called, if the image is smaller than the square.
    """

    def __init__(self, *, size: int) -> None:
        self.size = _checked_size("RandomCrop", size)

    def __call__(
        self, image: UInt8[Tensor, "3 height width"], generator: torch.Generator
    ) -> UInt8[Tensor, "3 new_height new_width"]:
        """Cuts one image."""
        spare_y, spare_x = _spare("RandomCrop", image, self.size)
        return _cut(image, _draw(spare_y + 1, generator), _draw(spare_x + 1, generator), self.size, self.size)


@TRANSFORMS.register_module()
class RandomHorizontalFlip(Transform):
    """Mirrors an image, left for right, with a given probability.

    Args:
        p: The probability, in [0, 1].

    Raises:
        ValueError: If `p` is outside [0, 1].
    """

    def __init__(self, *, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise DataError(f"RandomHorizontalFlip: expected a probability p in [0, 1], got {p}")
        self.p = p

    def __call__(
        self, image: UInt8[Tensor, "3 height width"], generator: torch.Generator
    ) -> UInt8[Tensor, "3 new_height new_width"]:
        """Mirrors one image, or leaves it."""
        return image.flip(-1) if _uniform(0.0, 1.0, generator) < self.p else image


@TRANSFORMS.register_module()
class RandomResizedCrop(Transform):
    """Cuts a rectangle of random area and proportions out of an image and scales it to a square.

    Source: Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, section 6.
    Differs from the source: nothing; where ten draws do not fit into the image, the largest central
    rectangle of allowed proportions is taken, as torchvision does.

    Args:
        size: Length of a side of the result in pixels, at least 1.
        scale: Smallest and largest area, as shares of the image's, in (0, 1].
        ratio: Smallest and largest width / height, drawn evenly on a logarithmic scale.

    Raises:
        ValueError: If `size` is below 1, or if `scale` or `ratio` are not rising and positive.
    """

    def __init__(
        self, *, size: int, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)
    ) -> None:
        self.size = _checked_size("RandomResizedCrop", size)
        if not 0 < scale[0] <= scale[1] <= 1:
            raise DataError(f"RandomResizedCrop: expected 0 < scale[0] <= scale[1] <= 1, got scale={scale}")
        if not 0 < ratio[0] <= ratio[1]:
            raise DataError(f"RandomResizedCrop: expected 0 < ratio[0] <= ratio[1], got ratio={ratio}")
        self.scale = scale
        self.ratio = ratio

    def __call__(
        self, image: UInt8[Tensor, "3 height width"], generator: torch.Generator
    ) -> UInt8[Tensor, "3 new_height new_width"]:
        """Cuts and scales one image."""
        return _bicubic(_cut(image, *self._rectangle(image, generator)), [self.size, self.size])

    def _rectangle(
        self, image: UInt8[Tensor, "3 height width"], generator: torch.Generator
    ) -> tuple[int, int, int, int]:
        _, height, width = image.shape
        for _ in range(10):
            area = height * width * _uniform(self.scale[0], self.scale[1], generator)
            aspect = math.exp(_uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), generator))
            h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < h <= height and 0 < w <= width:
                return _draw(height - h + 1, generator), _draw(width - w + 1, generator), h, w
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        h, w = min(height, max(1, round(width / aspect))), min(width, max(1, round(height * aspect)))
        return (height - h) // 2, (width - w) // 2, h, w


def _checked_size(place: str, size: Any) -> int:
    if not isinstance(size, int) or size < 1:
        raise DataError(f"{place}: expected a size of at least 1 pixel, got {size!r}")
    return size


def _spare(place: str, image: UInt8[Tensor, "3 height width"], size: int) -> tuple[int, int]:
    _, height, width = image.shape
    if height < size or width < size:
        raise DataError(
            f"{place}: expected an image of at least {size}x{size}, got {height}x{width}; "
            f"put Resize(size={size}) before it"
        )
    return height - size, width - size


def _cut(
    image: UInt8[Tensor, "3 height width"], y: int, x: int, height: int, width: int
) -> UInt8[Tensor, "3 new_height new_width"]:
    return image[:, y : y + height, x : x + width]


def _bicubic(
    image: UInt8[Tensor, "3 height width"], size: list[int]
) -> UInt8[Tensor, "3 new_height new_width"]:
    resized: Tensor = functional.resize(image, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return resized


def _draw(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=generator, device="cpu"))


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, device="cpu"))
