"""The crops of ADM, which LlamaGen, DiT and the published FID statistics of ImageNet use, to the same pixels."""

import math

import numpy as np
import torch
from PIL import Image

from vq.data.base import DataError, Pixels
from vq.data.transforms import Transform, check_resizing, checked_size, draw
from vq.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ADMCenterCrop(Transform):
    """Shrinks an image by halves, resizes it so that its shorter side has `size` pixels, and crops the central square.

    While the shorter side is at least twice `size`, each 2x2 block is averaged; then Pillow's bicubic interpolation
    follows. For uint8 RGB images the result has exactly the pixels of the source.

    Source: Dhariwal and Nichol 2021, https://arxiv.org/abs/2105.05233, `center_crop_arr` in their code; it is also the
        crop of LlamaGen and DiT.
    Differs from the source: each channel is resized by itself, so that any number of channels can be cropped.

    Args:
        size: The length of a side of the result in pixels, at least 1.

    Raises:
        DataError: If `size` is below 1.
        ImageTooLargeError: When called, if the resized image would have more than 2^26 pixels.
    """

    def __init__(self, *, size: int) -> None:
        self.size = checked_size("ADMCenterCrop", size)

    def __call__(self, image: Pixels, generator: torch.Generator) -> Pixels:
        """Crops one image; nothing is random."""
        shrunk = _shrunk("ADMCenterCrop", image, self.size)
        _, height, width = shrunk.shape
        return _square(shrunk, (height - self.size) // 2, (width - self.size) // 2, self.size)


@TRANSFORMS.register_module()
class ADMRandomCrop(Transform):
    """Crops a random square that covers a fraction of the shorter side, shrunk as `ADMCenterCrop` does.

    The shorter side is resized to a random whole number from size / max_fraction to size / min_fraction pixels, and a
    square of `size` pixels is cropped at a random position.

    Source: Dhariwal and Nichol 2021, https://arxiv.org/abs/2105.05233, `random_crop_arr` in their code; LlamaGen
        trains its tokenizers with it.
    Differs from the source: the random numbers come from the sample's generator.

    Args:
        size: The length of a side of the result in pixels, at least 1.
        min_fraction: The smallest fraction of the shorter side, above 0.
        max_fraction: The largest fraction of the shorter side, up to 1.

    Raises:
        DataError: If `size` is below 1, or the fractions are not increasing within (0, 1].
        ImageTooLargeError: When called, if the resized image would have more than 2^26 pixels.
    """

    def __init__(self, *, size: int, min_fraction: float = 0.8, max_fraction: float = 1.0) -> None:
        if not 0 < min_fraction <= max_fraction <= 1:
            raise DataError(
                f"ADMRandomCrop: expected 0 < min_fraction <= max_fraction <= 1, got {min_fraction} and {max_fraction}"
            )
        self.size = checked_size("ADMRandomCrop", size)
        self.sides = range(math.ceil(size / max_fraction), math.ceil(size / min_fraction) + 1)

    def __call__(self, image: Pixels, generator: torch.Generator) -> Pixels:
        """Crops one image."""
        side = self.sides[draw(len(self.sides), generator)]
        shrunk = _shrunk("ADMRandomCrop", image, side)
        _, height, width = shrunk.shape
        y, x = draw(height - self.size + 1, generator), draw(width - self.size + 1, generator)
        return _square(shrunk, y, x, self.size)


def _shrunk(place: str, image: Pixels, size: int) -> Pixels:
    """Resizes an image so that its shorter side has `size` pixels, by halves as long as possible."""
    _, height, width = image.shape
    check_resizing(place, height, width, size)
    channels = [Image.fromarray(channel) for channel in np.ascontiguousarray(image.numpy())]
    while min(height, width) >= 2 * size:
        height, width = height // 2, width // 2
        channels = [channel.resize((width, height), Image.Resampling.BOX) for channel in channels]
    scale = size / min(height, width)
    height, width = round(height * scale), round(width * scale)
    channels = [channel.resize((width, height), Image.Resampling.BICUBIC) for channel in channels]
    shrunk = torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]))
    return shrunk.clamp_(0, 255) if shrunk.is_floating_point() else shrunk


def _square(image: Pixels, y: int, x: int, size: int) -> Pixels:
    return image[:, y : y + size, x : x + size]
