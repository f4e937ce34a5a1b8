"""Conversion of pixel ranges: 0..255 in files and batches, [-1, 1] in networks, [0, 1] in metrics."""

import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor

_SEPARATOR_WIDTH = 2
_SEPARATOR_VALUE = 128  # grey, unlike the white background of emoji and the black padding of photographs


def to_signed_unit(image: UInt8[Tensor, "*shape"] | Float32[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Maps pixels 0..255, uint8 or float32, to [-1, 1], the range of every network: x / 127.5 - 1.

    Example:
        >>> to_signed_unit(torch.tensor([0, 255], dtype=torch.uint8)).tolist()
        [-1.0, 1.0]
    """
    return (image.to(torch.float32) / 127.5).sub_(1)  # in place, which saves the memory of a batch


def to_uint8(image: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Maps [-1, 1] to the nearest pixel value 0..255: the exact inverse of `to_signed_unit`.

    Values outside the range are clamped. A value halfway between two pixels is rounded to the even one
    (truncation would darken every image by half a level). NaN becomes 0. The arithmetic is in float32.

    Example:
        >>> to_uint8(torch.tensor([-1.5, 0.0, 1.0])).tolist()
        [0, 128, 255]
    """
    pixels = (image.to(torch.float32) + 1) * 127.5
    return pixels.nan_to_num(nan=0.0).clamp(0, 255).round().to(torch.uint8)


def to_unit(image: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Maps [-1, 1] to [0, 1] in the dtype of the tensor, without clamping.

    Example:
        >>> to_unit(torch.tensor([-1.0, 0.0, 1.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    return (image + 1) / 2


def grid(images: UInt8[Tensor, "n 3 h w"], columns: int) -> UInt8[Tensor, "3 height width"]:
    """Arranges images row by row with thin grey lines between them; the last row may be incomplete.

    Args:
        images: At least one image.
        columns: Number of images per row; at least 1.

    Raises:
        ValueError: If there is no image, or `columns` is below 1.

    Example:
        >>> grid(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), columns=3).shape
        torch.Size([3, 18, 28])
    """
    if len(images) == 0 or columns < 1:
        raise ValueError(f"grid: expected at least 1 image and 1 column, got {len(images)} and {columns}")
    count, _, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    step_y, step_x = height + _SEPARATOR_WIDTH, width + _SEPARATOR_WIDTH
    canvas = images.new_full(
        (3, rows * step_y - _SEPARATOR_WIDTH, columns * step_x - _SEPARATOR_WIDTH), _SEPARATOR_VALUE
    )
    for i, image in enumerate(images):
        y, x = i // columns * step_y, i % columns * step_x
        canvas[:, y : y + height, x : x + width] = image
    return canvas


def save_png(image: UInt8[Tensor, "3 h w"], path: str | Path) -> None:
    """Writes an image as a PNG file atomically: readers see the old file or the complete new one.

    Args:
        image: Image on any device.
        path: Path of the file. Missing folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        pixels = np.ascontiguousarray(image.cpu().permute(1, 2, 0).numpy())
        Image.fromarray(pixels).save(temporary, format="PNG")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
