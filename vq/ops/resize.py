"""Resizing as the named evaluation protocols do it; each kernel gives another FID."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor


def resize_like_tensorflow_1(
    image: Float32[Tensor, "b c h w"], size: int
) -> Float32[Tensor, "b c {size} {size}"]:
    """Bilinear without half-pixel centres, as TensorFlow 1.x: output i looks at i * (old / new), unblurred.

    Neighbouring pixels are mixed as a + (b - a) * t, first along rows, then along columns.

    Args:
        image: In any range.
        size: The new height and width.

    Example:
        >>> resize_like_tensorflow_1(torch.tensor([[[[0.0, 8.0]]]]), 4)[0, 0, 0].tolist()
        [0.0, 4.0, 8.0, 8.0]
    """
    low, high, part = _neighbours(image.shape[3], size, image)
    left = image[..., low]
    across = left + (image[..., high] - left) * part
    low, high, part = _neighbours(image.shape[2], size, image)
    top = across[:, :, low]
    return top + (across[:, :, high] - top) * part[:, None]


def resize_like_pillow(
    image: UInt8[Tensor, "b c h w"], size: int, *, rounded: bool
) -> Float32[Tensor, "b c {size} {size}"]:
    """Pillow's bicubic with antialiasing, each channel alone; the values stay in 0..255.

    It computes on the CPU whatever the device.

    Args:
        image: Pixels.
        size: The new height and width.
        rounded: Whether the result is rounded to bytes, as a written file would be; else it is float32.
    """
    mode: Literal["L", "F"] = "L" if rounded else "F"
    planes = image.cpu().numpy().reshape(-1, *image.shape[2:])
    resized = np.empty((len(planes), size, size), dtype=np.float32)
    for index, plane in enumerate(planes):
        pixels = Image.fromarray(plane).convert(mode)
        resized[index] = np.asarray(pixels.resize((size, size), Image.Resampling.BICUBIC))
    result = torch.from_numpy(resized.clip(0, 255)).reshape(*image.shape[:2], size, size)
    return result.to(image.device)


def _neighbours(old: int, new: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    place = torch.arange(new, dtype=torch.float32) * torch.tensor(old / new, dtype=torch.float32)
    low = place.long()
    return tuple(x.to(like.device) for x in (low, (low + 1).clamp_max(old - 1), place - low))  # type: ignore[return-value]
