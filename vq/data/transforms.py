"""Image transforms: pixels in 0..255 in and out, uint8 or float32, with randomness from a given generator."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from vq.data.base import DataError, Pixels
from vq.data.decode import MAX_PIXELS
from vq.registry import TRANSFORMS


class ImageTooLargeError(DataError):
    """An image that a transform would make too large. A loader counts it as undecodable."""


class Transform(ABC):
    """Transforms an image. All random numbers come from the given generator.

    Attributes:
        min_side: If the transform first of all resizes every image to a shorter side of so many pixels, this number;
            else None. A loader that starts with such a transform may decode large images at a lower resolution.
    """

    min_side: int | None = None

    @abstractmethod
    def __call__(self, image: Pixels, generator: torch.Generator) -> Pixels:
        """Transforms one image.

        Args:
            image: An image with pixels in 0..255, which is not modified.
            generator: The CPU generator of this sample.
        """


@TRANSFORMS.register_module()
class Resize(Transform):
    """Resizes an image so that its shorter side has `size` pixels; the aspect ratio is kept.

    The interpolation is antialiased bicubic on uint8, about twice as fast as Pillow's. On photographs it differs from
    Pillow's by at most 2 levels, and by more than 1 level in 4 of a million pixels.

    Args:
        size: The length of the shorter side in pixels, at least 1.

    Raises:
        DataError: If `size` is below 1.
        ImageTooLargeError: When called, if the result would have more than 2^26 pixels: a line of 20,000 x 1
            pixels would take 3.9 GB at a size of 256. A loader counts such an image as undecodable.
    """

    def __init__(self, *, size: int) -> None:
        self.size = self.min_side = checked_size("Resize", size)

    def __call__(self, image: Pixels, generator: torch.Generator) -> Pixels:
        """Resizes one image; nothing is random."""
        height, width = image.shape[1:]
        if min(height, width) == self.size:
            return image
        check_resizing("Resize", height, width, self.size)
        return bicubic(image, [self.size])


@TRANSFORMS.register_module()
class CenterCrop(Transform):
    """Crops a square from the centre of an image.

    Args:
        size: The length of a side in pixels, at least 1.

    Raises:
        DataError: If `size` is below 1; when called, if the image is smaller than the square.
    """

    def __init__(self, *, size: int) -> None:
        self.size = checked_size("CenterCrop", size)

    def __call__(self, image: Pixels, generator: torch.Generator) -> Pixels:
        """Crops one image; nothing is random."""
        spare_y, spare_x = _spare("CenterCrop", image, self.size)
        return _cut(image, spare_y // 2, spare_x // 2, self.size, self.size)


@TRANSFORMS.register_module()
class RandomCrop(Transform):
    """Crops a square from an image at a uniformly random position.

    Args:
        size: The length of a side in pixels, at least 1.

    Raises:
        DataError: If `size` is below 1; when called, if the image is smaller than the square.
    """

    def __init__(self, *, size: int) -> None:
        self.size = checked_size("RandomCrop", size)

    def __call__(self, image: Pixels, generator: torch.Generator) -> Pixels:
        """Crops one image."""
        spare_y, spare_x = _spare("RandomCrop", image, self.size)
        return _cut(image, draw(spare_y + 1, generator), draw(spare_x + 1, generator), self.size, self.size)


@TRANSFORMS.register_module()
class RandomHorizontalFlip(Transform):
    """Flips an image horizontally with a given probability.

    Args:
        p: The probability, in [0, 1].

    Raises:
        DataError: If `p` is outside [0, 1].
    """

    def __init__(self, *, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise DataError(f"RandomHorizontalFlip: expected a probability p in [0, 1], got {p}")
        self.p = p

    def __call__(self, image: Pixels, generator: torch.Generator) -> Pixels:
        """Flips one image, or returns it unchanged."""
        return image.flip(-1) if _uniform(0.0, 1.0, generator) < self.p else image


@TRANSFORMS.register_module()
class RandomResizedCrop(Transform):
    """Crops a rectangle of random area and aspect ratio from an image and resizes it to a square.

    Source: Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, section 6.
    Differs from the source: nothing. If none of ten random rectangles fits into the image, the largest central
        rectangle with an allowed aspect ratio is used, as in torchvision.

    Args:
        size: The length of a side of the result in pixels, at least 1.
        scale: The smallest and largest area, as fractions of the area of the image, in (0, 1].
        ratio: The smallest and largest width / height; it is uniformly distributed on a logarithmic scale.

    Raises:
        DataError: If `size` is below 1, or if `scale` or `ratio` is not an increasing pair of positive numbers.
    """

    def __init__(
        self, *, size: int, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)
    ) -> None:
        self.size = checked_size("RandomResizedCrop", size)
        if not 0 < scale[0] <= scale[1] <= 1:
            raise DataError(f"RandomResizedCrop: expected 0 < scale[0] <= scale[1] <= 1, got scale={scale}")
        if not 0 < ratio[0] <= ratio[1]:
            raise DataError(f"RandomResizedCrop: expected 0 < ratio[0] <= ratio[1], got ratio={ratio}")
        self.scale = scale
        self.ratio = ratio

    def __call__(self, image: Pixels, generator: torch.Generator) -> Pixels:
        """Crops and resizes one image."""
        return bicubic(_cut(image, *self._rectangle(image, generator)), [self.size, self.size])

    def _rectangle(self, image: Pixels, generator: torch.Generator) -> tuple[int, int, int, int]:
        _, height, width = image.shape
        for _ in range(10):
            area = height * width * _uniform(self.scale[0], self.scale[1], generator)
            aspect = math.exp(_uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), generator))
            h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < h <= height and 0 < w <= width:
                return draw(height - h + 1, generator), draw(width - w + 1, generator), h, w
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        h, w = min(height, max(1, round(width / aspect))), min(width, max(1, round(height * aspect)))
        return (height - h) // 2, (width - w) // 2, h, w


@TRANSFORMS.register_module()
class Augmentation(Transform):
    """Crops an image to a square of `size` pixels with one of four usual amounts of augmentation.

    * `"none"`: `Resize` and `CenterCrop`; nothing is random. This is for evaluation.
    * `"weak"`: `Resize`, `RandomCrop` and `RandomHorizontalFlip`.
    * `"strong"`: `RandomResizedCrop` of at least 80 % of the area, and `RandomHorizontalFlip`.
    * `"default"`: `RandomResizedCrop` of at least 8 % of the area, and `RandomHorizontalFlip`, which is common for
      classifiers. It changes more than `"strong"`, in spite of the names, which are kept from existing recipes.

    Args:
        kind: One of the four names.
        size: The length of a side in pixels, at least 1.

    Raises:
        DataError: If there is no such kind, or `size` is below 1.
    """

    def __init__(self, *, kind: str = "default", size: int) -> None:
        steps: dict[str, tuple[Transform, ...]] = {
            "none": (Resize(size=size), CenterCrop(size=size)),
            "weak": (Resize(size=size), RandomCrop(size=size), RandomHorizontalFlip()),
            "strong": (RandomResizedCrop(size=size, scale=(0.8, 1.0)), RandomHorizontalFlip()),
            "default": (RandomResizedCrop(size=size, scale=(0.08, 1.0)), RandomHorizontalFlip()),
        }
        if kind not in steps:
            raise DataError(f"Augmentation: expected kind {', '.join(map(repr, steps))}, got {kind!r}")
        self.kind, self.steps = kind, steps[kind]
        self.min_side = self.steps[0].min_side

    def __call__(self, image: Pixels, generator: torch.Generator) -> Pixels:
        """Crops one image."""
        for step in self.steps:
            image = step(image, generator)
        return image


def check_resizing(place: str, height: int, width: int, size: int) -> None:
    """Checks that an image whose shorter side is resized to `size` pixels does not become too large.

    Raises:
        ImageTooLargeError: If it would have more than 2^26 pixels.
    """
    longer = size * max(height, width) // min(height, width)
    if size * longer > MAX_PIXELS:
        raise ImageTooLargeError(
            f"{place}: an image of {height}x{width} would become {size} pixels on the shorter side and "
            f"{longer:,} on the longer, more than {MAX_PIXELS:,} in all; crop it first, or remove it"
        )


def checked_size(place: str, size: Any) -> int:
    """Returns a length in pixels.

    Raises:
        DataError: If it is not a whole number of at least 1.
    """
    if not isinstance(size, int) or size < 1:
        raise DataError(f"{place}: expected a size of at least 1 pixel, got {size!r}")
    return size


def _spare(place: str, image: Pixels, size: int) -> tuple[int, int]:
    _, height, width = image.shape
    if height < size or width < size:
        raise DataError(
            f"{place}: expected an image of at least {size}x{size}, got {height}x{width}; "
            f"put Resize(size={size}) before it"
        )
    return height - size, width - size


def _cut(image: Pixels, y: int, x: int, height: int, width: int) -> Pixels:
    return image[:, y : y + height, x : x + width]


def bicubic(image: Pixels, size: list[int]) -> Pixels:
    """Resizes an image to a height and width, with antialiasing."""
    # Importing torchvision takes as long as importing torch, and most programs resize nothing.
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    resized = functional.resize(image, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return (
        resized.clamp_(0, 255) if resized.is_floating_point() else resized
    )  # bicubic weights may be negative


def draw(below: int, generator: torch.Generator) -> int:
    """Draws a whole number from 0 to `below` - 1."""
    return int(torch.randint(below, (), generator=generator, device="cpu"))


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, device="cpu"))
