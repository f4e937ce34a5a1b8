"""Reads images as the numbers that their files hold, and maps a declared range of them to 0..255.

This is for images of more than 8 bits, of floats, and of any number of channels: NumPy's `.npy` files, TIFF files of
any number of channels, grey files of 16 or 32 bits, and arrays in data sets.
"""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vq.data.base import Pixels
from vq.data.colours import FORMATS, SIXTEEN_BITS, upright
from vq.packages import require

ValueRange = tuple[float, float]
_NPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
_EXACT_MODES = (
    "1",
    "L",
    "RGB",
    "RGBA",
    "I",
    "F",
    *SIXTEEN_BITS,
)  # in which Pillow gives the numbers of the file
_PNG_DEPTH = 24  # the byte of a PNG file that holds its bits per channel
_SAMPLES = 277  # a TIFF tag
_GREY, _RGB = 1, 3


def is_npy(data: bytes) -> bool:
    """Whether the content of a file is an array of NumPy."""
    return data.startswith(_NPY)


def is_tiff(data: bytes) -> bool:
    """Whether the content of a file is a TIFF."""
    return data.startswith(_TIFF)


def numbers_of(data: bytes, *, channels: int, max_pixels: int) -> npt.NDArray[Any]:
    """Reads the numbers of an image file, upright: (height, width), or with an axis of channels first or last.

    Args:
        data: The content of a `.npy`, TIFF, PNG, BMP, GIF, WebP or JPEG file.
        channels: The number of channels that are expected. A TIFF with so many grey pages has one channel per page; of
            other TIFFs the first page is read.
        max_pixels: The maximum height times width.

    Raises:
        ValueError: If the image is too large, or Pillow cannot give the exact numbers of such a file.
        MissingPackageError: If it is a TIFF and tifffile is not installed.
    """
    if is_npy(data):
        return np.load(io.BytesIO(data), allow_pickle=False)
    if is_tiff(data):
        return _numbers_of_tiff(data, channels, max_pixels)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        check_size(image.height, image.width, max_pixels)
        reduced = image.format == "PNG" and data[_PNG_DEPTH] == 16 and image.mode not in ("I", *SIXTEEN_BITS)
        if reduced or image.mode not in _EXACT_MODES or image.format == "PPM":
            kind = "16-bit colour PNG" if reduced else f"{image.format} of the mode {image.mode}"
            raise ValueError(
                f"the exact values of a {kind} cannot be read; save the image as TIFF or .npy, or leave out value_range"
            )
        image.load()
        return np.array(upright(image, image))


def to_pixels(array: npt.NDArray[Any], channels: int, value_range: ValueRange | None) -> Pixels:
    """Maps an array of numbers to pixels in 0..255.

    Args:
        array: (height, width), (height, width, channels) or (channels, height, width); if both ends have `channels`
            entries, the last axis is that of the channels. A single channel is repeated if three are wanted.
        channels: The number of channels of the result.
        value_range: The numbers that become 0 and 255; the result is float32 and is clamped. None for uint8 arrays,
            which stay as they are, and for booleans.

    Raises:
        ValueError: If the shape or the type of the array does not fit, or it holds NaN or infinity.
    """
    image = torch.from_numpy(np.ascontiguousarray(_channels_first(array, channels)))
    if value_range is None:
        if image.dtype == torch.bool:
            image = image.to(torch.uint8) * 255
        if image.dtype != torch.uint8:
            raise ValueError(
                f"an image of {array.dtype} has no known range of values; declare the set's "
                f"value_range=(lowest, highest)"
            )
    else:
        lowest, highest = value_range
        image = image.to(torch.float32)
        if not image.isfinite().all():
            raise ValueError("the image holds NaN or infinite values; replace them, or remove the image")
        image = image.sub(lowest).mul_(255 / (highest - lowest)).clamp_(0, 255)
    return image.expand(channels, -1, -1) if image.shape[0] == _GREY else image


def check_size(height: int, width: int, max_pixels: int, what: str = "") -> None:
    """Checks the size of an image, or of its tiles, before it is decoded.

    Raises:
        ValueError: If it has more than `max_pixels` pixels.
    """
    if height * width > max_pixels:
        raise ValueError(
            f"has {what}{height} x {width} pixels, more than max_pixels={max_pixels:,}; remove it, shrink it or raise "
            f"the limit"
        )


def samples_per_pixel(image: Image.Image) -> int:
    """Returns how many channels a TIFF has, of which Pillow may decode fewer; 0 for other files."""
    return int(getattr(image, "tag_v2", {}).get(_SAMPLES, 0))


def _channels_first(array: npt.NDArray[Any], channels: int) -> npt.NDArray[Any]:
    if array.dtype.kind not in "buif":
        raise ValueError(f"expected an image of numbers, got an array of {array.dtype}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64 if array.dtype.itemsize > 2 else np.int32)  # torch reads them
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.ndim == 2:
        array = array[:, :, None]
    allowed = {channels, _GREY} if channels == _RGB else {channels}
    if array.ndim == 3 and 0 not in array.shape:
        if array.shape[2] in allowed:
            return np.moveaxis(array, 2, 0)
        if array.shape[0] in allowed:
            return array
    raise ValueError(
        f"expected {channels} channel(s), got an array of the shape {array.shape}; set the set's channels to what its "
        f"files have"
    )


def _numbers_of_tiff(data: bytes, channels: int, max_pixels: int) -> npt.NDArray[Any]:
    tifffile = require(
        "tifffile", needed_by="a TIFF with a value_range, or of other channels than 1, 3 and 4"
    )
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[0]
        is_stack = page.samplesperpixel == 1 and len(tiff.pages) == channels
        pages = list(tiff.pages) if is_stack else [page]
        for each in pages:
            check_size(int(each.imagelength), int(each.imagewidth), max_pixels)
            check_size(int(each.tilelength or 1), int(each.tilewidth or 1), max_pixels)
        array = np.stack([each.asarray() for each in pages], axis=-1) if is_stack else page.asarray()
        orientation = int(page.tags[274].value) if 274 in page.tags else 1
        array = np.moveaxis(array, 0, -1) if page.axes.startswith("S") else array
        return _turned(array, orientation)


def _turned(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Makes an array (height, width, ...) upright, as `upright` does with an image of Pillow."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array
