"""Resizing with the kernels of the named evaluation protocols; each kernel gives a different FID."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from PIL import Image
from torch import Tensor


def resize_like_tensorflow_1(
    image: Float32[Tensor, "b c h w"], size: int
) -> Float32[Tensor, "b c {size} {size}"]:
    """Resizes bilinearly as TensorFlow 1.x does: output i is at i * (old / new), without half-pixel centres or blur.

    Neighbouring pixels are mixed as a + (b - a) * t, first along rows, then along columns.

    Args:
        image: Images in any range.
        size: New height and width.

    Example:
        >>> resize_like_tensorflow_1(torch.tensor([[[[0.0, 8.0]]]]), 4)[0, 0, 0].tolist()
        [0.0, 4.0, 8.0, 8.0]
    """
    low, high, weight = _neighbours(image.shape[3], size, image)
    left = image[..., low]
    across = left + (image[..., high] - left) * weight
    low, high, weight = _neighbours(image.shape[2], size, image)
    top = across[:, :, low]
    return top + (across[:, :, high] - top) * weight[:, None]


def resize_like_pillow(
    image: UInt8[Tensor, "b c h w"], size: int, *, rounded: bool
) -> Float32[Tensor, "b c {size} {size}"]:
    """Resizes each channel by itself with Pillow's antialiased bicubic filter; the values stay in 0..255.

    It computes on the CPU, whatever the device.

    Args:
        image: Pixels 0..255.
        size: New height and width.
        rounded: Whether the result is rounded to bytes, as a written file would be; otherwise it is float32.
    """
    mode: Literal["L", "F"] = "L" if rounded else "F"
    planes = image.cpu().numpy().reshape(-1, *image.shape[2:])
    resized = np.empty((len(planes), size, size), dtype=np.float32)
    for index, plane in enumerate(planes):
        pixels = Image.fromarray(plane).convert(mode)
        resized[index] = np.asarray(pixels.resize((size, size), Image.Resampling.BICUBIC))
    result = torch.from_numpy(resized.clip(0, 255)).reshape(*image.shape[:2], size, size)
    return result.to(image.device)


def _neighbours(
    old: int, new: int, like: Float32[Tensor, "..."]
) -> tuple[Int64[Tensor, "{new}"], Int64[Tensor, "{new}"], Float32[Tensor, "{new}"]]:
    """Returns for each output the two input pixels to mix, and the weight of the second."""
    position = torch.arange(new, dtype=torch.float32) * torch.tensor(old / new, dtype=torch.float32)
    low = position.long()
    high, weight = (low + 1).clamp_max(old - 1), position - low
    return low.to(like.device), high.to(like.device), weight.to(like.device)
