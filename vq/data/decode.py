"""Decodes image files to pixels, for any colour space, bit depth, transparency and rotation.

docs/data.md states the rule for each kind of file. Files are untrusted: only decoders that start no other program are
used, only regular files are read, and the size of an image is checked before it is decoded.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from vq.data import colours, jpeg, numbers
from vq.data.base import DataError, Pixels, UndecodableImage
from vq.data.colours import FORMATS
from vq.files import read_regular
from vq.packages import MissingPackageError

MAX_PIXELS = 2**26
"""The default limit on height times width, 8192 x 8192: decoding takes at most 1.5 GB."""

MAX_CHANNELS = 16
"""The largest number of channels of an image."""

_PILLOW_MAX_PIXELS = 178_956_970  # Pillow raises an error for larger images
_COLOURS, _RGBA = (1, 3, 4), 4  # the numbers of channels that Pillow converts to
_BYTES_PER_CHANNEL = 2  # of an uncompressed file
_OTHER_BYTES = 2**26  # of a file, for its metadata
_TILE_SIDES = (322, 323)  # TIFF tags


def checked_max_pixels(place: str, max_pixels: int) -> int:
    """Checks a limit on height times width, and returns it.

    Args:
        place: The class that takes the limit. The error message starts with it.
        max_pixels: The limit.

    Raises:
        DataError: If it is below 1, or above the limit of Pillow.
    """
    if not 1 <= max_pixels <= _PILLOW_MAX_PIXELS:
        raise DataError(
            f"{place}: expected max_pixels from 1 to {_PILLOW_MAX_PIXELS:,}, got {max_pixels}; the default is "
            f"{MAX_PIXELS:,}"
        )
    return max_pixels


class ImageDecoder:
    """Decodes encoded images to pixels with a declared number of channels and range of values.

    Args:
        channels: 1 for grey, 3 for RGB (transparency is composited on white), 4 for RGBA; any other number up to 16 for
            files with exactly so many channels.
        value_range: The values in the file that become 0 and 255, such as (0, 4095) for 12 bits or (-1024, 3071) for
            CT; the pixels are then float32, and values outside are clamped. None for files of 8 bits, and for grey ones
            of 16 bits, which are scaled to 8.
        max_pixels: The maximum height times width; larger images are not decoded. A file with more than 8 bytes per
            pixel of this number, plus 64 MiB, is not read.
        place: The class that takes these settings. Error messages start with it.

    Raises:
        DataError: If a setting is out of range.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        value_range: Sequence[float | int] | None = None,
        max_pixels: int = MAX_PIXELS,
        place: str = "ImageDecoder",
    ) -> None:
        if not 1 <= channels <= MAX_CHANNELS:
            raise DataError(f"{place}: expected channels from 1 to {MAX_CHANNELS}, got {channels}")
        if value_range is not None and not (len(value_range) == 2 and value_range[0] < value_range[1]):
            raise DataError(
                f"{place}: expected a value_range (lowest, highest) such as (0, 4095), got {value_range!r}"
            )
        self.channels = channels
        self.value_range = None if value_range is None else (float(value_range[0]), float(value_range[1]))
        self.max_pixels = checked_max_pixels(place, max_pixels)

    def read(self, path: str | Path, name: str = "", *, min_side: int | None = None) -> Pixels:
        """Decodes a file, as `decode` does.

        Args:
            path: A regular file, or a link to one.
            name: The name of the image in error messages; by default its path.
            min_side: See `decode`.

        Raises:
            UndecodableImage: If the path is not a regular file, or the file cannot be read or decoded.
        """
        name = name or str(path)
        return self.decode(self._content(path, name), name, min_side=min_side)

    def decode(self, data: bytes, name: str, *, min_side: int | None = None) -> Pixels:
        """Decodes the content of a file to upright pixels in 0..255, in channels-last memory layout.

        The format is detected from the content, not from the file name (ImageNet has a PNG file named .JPEG). A grey
        channel is repeated for RGB, 16 bits are scaled to 8, and of an animation the first frame is used.

        Args:
            data: The content of a file in one of `FORMATS`, or of a `.npy` file.
            name: The name of the image in error messages.
            min_side: A lower resolution is enough, as long as the shorter side has so many pixels.

        Raises:
            UndecodableImage: If the data is not an image of these channels, is truncated or too large, or has values of
                an unknown range.
            MissingPackageError: If the file needs tifffile, which is not installed.
        """
        if not data:
            raise UndecodableImage(name, "the file is empty")
        if self.value_range is None:
            ordinary = jpeg.decode(
                data, channels=self.channels, max_pixels=self.max_pixels, min_side=min_side
            )
            if ordinary is not None:
                return ordinary
        with _explained(name):
            if self._reads_numbers or numbers.is_npy(data):
                return self._to_pixels(self._numbers_of(data))
            return self._decode_eight_bits(data)

    def from_array(self, array: npt.NDArray[Any], name: str) -> Pixels:
        """Maps an array of numbers, (height, width[, channels]) or (channels, height, width), to pixels in 0..255.

        Raises:
            UndecodableImage: If its shape or type does not fit the channels and the range of values.
        """
        with _explained(name):
            return self._to_pixels(array)

    def size(self, path: str | Path, name: str = "") -> tuple[int, int]:
        """Returns the height and width of an image after rotation; an image of 8 bits is not decoded for it.

        Raises:
            UndecodableImage: If the file cannot be read, or is not an image.
        """
        name = name or str(path)
        return self.size_of(self._content(path, name), name)

    def size_of(self, data: bytes, name: str) -> tuple[int, int]:
        """Returns the height and width of an image, as `size` does, from the content of its file.

        Raises:
            UndecodableImage: If it is not an image.
        """
        with _explained(name):
            if self._reads_numbers or numbers.is_npy(data):
                _, height, width = self._to_pixels(self._numbers_of(data)).shape
                return height, width
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return colours.upright_size(image)

    @property
    def _reads_numbers(self) -> bool:
        return self.value_range is not None or self.channels not in _COLOURS

    def _numbers_of(self, data: bytes) -> npt.NDArray[Any]:
        return numbers.numbers_of(data, channels=self.channels, max_pixels=self.max_pixels)

    def _to_pixels(self, array: npt.NDArray[Any]) -> Pixels:
        if array.ndim > 1:
            shorter, longer = sorted(array.shape)[-2:]  # of three axes, the smallest is that of the channels
            numbers.check_size(shorter, longer, self.max_pixels)
        return numbers.to_pixels(array, self.channels, self.value_range)

    def _decode_eight_bits(self, data: bytes) -> Pixels:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, self.max_pixels)
            if self.channels == _RGBA and image.mode == "RGB" and numbers.samples_per_pixel(image) == _RGBA:
                return self._to_pixels(self._numbers_of(data))  # not alpha, such as infrared
            image.load()
            pixels = colours.eight_bits(image, self.channels)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    @property
    def max_bytes(self) -> int:
        """The largest size of a file that is read: more than an uncompressed image of `max_pixels` needs."""
        return _BYTES_PER_CHANNEL * max(_RGBA, self.channels) * self.max_pixels + _OTHER_BYTES

    def _content(self, path: str | Path, name: str) -> bytes:
        try:
            return read_regular(path, most=self.max_bytes)
        except OSError as error:
            raise UndecodableImage(name, f"cannot be read ({error.strerror or error})") from error


def read_image(path: str | Path, name: str = "", *, max_pixels: int = MAX_PIXELS) -> UInt8[Tensor, "3 h w"]:
    """Decodes a file to RGB pixels in 0..255, as `decode_image` does.

    Args:
        path: A regular file, or a link to one.
        name: The name of the image in error messages; by default its path.
        max_pixels: The maximum height times width. A file with more than 8 bytes per pixel of this number, plus 64 MiB,
            is not read.

    Raises:
        UndecodableImage: If the path is not a regular file, or the file cannot be read or decoded.
    """
    return ImageDecoder(max_pixels=max_pixels, place="read_image").read(path, name)


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> UInt8[Tensor, "3 h w"]:
    """Decodes the content of a file to RGB pixels in 0..255, with transparency composited on white.

    Args:
        data: The content of a file in one of `FORMATS`.
        name: The name of the image in error messages.
        max_pixels: The maximum height times width; larger images are not decoded.

    Returns:
        Pixels in channels-last memory layout, as `ImageDecoder.decode` returns them.

    Raises:
        UndecodableImage: If the data is empty, truncated, not an image, too large, or of values whose range is unknown.
    """
    return ImageDecoder(max_pixels=max_pixels, place="decode_image").decode(data, name)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Raises what a decoder raises as an `UndecodableImage`.

    For malicious bytes Pillow raises nearly any exception (OSError, SyntaxError, IndexError, struct.error, MemoryError,
    ...). All of them mean that the image cannot be decoded.
    """
    try:
        yield
    except (UndecodableImage, MissingPackageError):
        raise
    except UnidentifiedImageError as error:
        reason = f"UnidentifiedImageError: expected one of {', '.join(FORMATS)}, found none of them"
        raise UndecodableImage(name, reason) from error
    except Exception as error:
        raise UndecodableImage(name, f"{type(error).__name__}: {error}") from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    tags = getattr(image, "tag_v2", {})
    tile_width, tile_height = (
        int(tags.get(tag, 1)) for tag in _TILE_SIDES
    )  # a tile can be larger than its image
    numbers.check_size(image.height, image.width, max_pixels)
    numbers.check_size(tile_height, tile_width, max_pixels, what="tiles of ")
