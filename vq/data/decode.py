"""Decodes image files to pixels, for any colour space, bit depth, transparency and rotation.

docs/data.md states the rule for each kind of file. Files are untrusted: only decoders that start no other program are
used, only regular files are read, and the size of an image is checked before it is decoded.
"""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from vq.data.base import DataError, Pixels, UndecodableImage
from vq.files import read_regular

Image.init()  # older Pillows have no AVIF
FORMATS = tuple(
    kind for kind in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM") if kind in Image.OPEN
)
"""The supported formats, detected from the content. Pillow has more, but its EPS decoder would start Ghostscript."""

MAX_PIXELS = 2**26
"""The default limit on height times width, 8192 x 8192: decoding takes at most 1.5 GB."""

MAX_CHANNELS = 16
"""The largest number of channels of an image."""

_PILLOW_MAX_PIXELS = 178_956_970  # Pillow raises an error for larger images
_BYTES_PER_PIXEL = 8  # of an uncompressed file: four channels of 16 bits
_OTHER_BYTES = 2**26  # of a file, for its metadata
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_SCALED = ((np.arange(2**16) + 128) // 257).astype(np.uint8)  # 0..65535 to the nearest of 0..255
_TURNS = {  # EXIF orientation -> the transposition that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FIRST_ON_ITS_SIDE = 5  # orientations from here on exchange height and width
_ORIENTATION, _BITS, _PHOTOMETRIC, _TILE_SIDES = 0x0112, 258, 262, (322, 323)  # EXIF and TIFF tags


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
        value_range: tuple[float, float] | None = None,
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
        return self.decode(self._content(Path(path), name), name, min_side=min_side)

    def decode(self, data: bytes, name: str, *, min_side: int | None = None) -> Pixels:
        """Decodes the content of a file to upright pixels in 0..255.

        Args:
            data: The content of a file in one of `FORMATS`.
            name: The name of the image in error messages.
            min_side: A lower resolution is enough, as long as the shorter side has so many pixels.

        Raises:
            UndecodableImage: If the data is not an image of these channels, is damaged or too large, or has values of
                an unknown range.
        """
        if self.channels != 3 or self.value_range is not None:
            raise NotImplementedError  # being written
        return decode_image(data, name, max_pixels=self.max_pixels)

    def size(self, path: str | Path, name: str = "") -> tuple[int, int]:
        """Returns the height and width of an image after rotation; only the header is decoded.

        Raises:
            UndecodableImage: If the file cannot be read, or is not an image.
        """
        name = name or str(path)
        try:
            with Image.open(io.BytesIO(self._content(Path(path), name)), formats=FORMATS) as image:
                turned = image.getexif().get(_ORIENTATION, 1) >= _FIRST_ON_ITS_SIDE
                return image.size if turned else (image.height, image.width)
        except Exception as error:
            raise UndecodableImage(name, f"{type(error).__name__}: {error}") from error

    def _content(self, path: Path, name: str) -> bytes:
        try:
            return read_regular(path, most=_BYTES_PER_PIXEL * self.max_pixels + _OTHER_BYTES)
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
    """Decodes an encoded image to RGB pixels in 0..255, upright, with transparency composited on white.

    The format is detected from the content, not from the file name (ImageNet has a PNG file named .JPEG). A grey
    channel is repeated, 16 bits are scaled to 8, and of an animation the first frame is used.

    torchvision decodes JPEGs a quarter faster, but its decoders are deprecated since 0.29, drop transparency and do not
    convert CMYK, so Pillow decodes all formats.

    Args:
        data: The content of a file in one of `FORMATS`.
        name: The name of the image in error messages.
        max_pixels: The maximum height times width; larger images are not decoded.

    Returns:
        A view of pixels in channels-last memory layout, as Pillow returns them. Resizing reads that layout, and a copy
        would take a fifth of the decoding time.

    Raises:
        UndecodableImage: If the data is empty, truncated, not an image, too large, or of values whose range is unknown.
    """
    if not data:
        raise UndecodableImage(name, "the file is empty")
    # For malicious bytes Pillow raises nearly any exception (OSError, SyntaxError, IndexError, struct.error,
    # MemoryError, ...). All of them mean that the image cannot be decoded.
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, max_pixels)
            image.load()
            pixels = np.array(_upright(_to_rgb(image), image))
    except UnidentifiedImageError as error:
        reason = f"UnidentifiedImageError: expected one of {', '.join(FORMATS)}, found none of them"
        raise UndecodableImage(name, reason) from error
    except Exception as error:
        raise UndecodableImage(name, f"{type(error).__name__}: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    tags = getattr(image, "tag_v2", {})
    tile = [int(tags.get(tag, 1)) for tag in _TILE_SIDES]  # a tile can be larger than its image
    if max(width * height, tile[0] * tile[1]) > max_pixels:
        what = (
            f"{height} x {width} pixels" if width * height > max_pixels else f"tiles of {tile[1]} x {tile[0]}"
        )
        raise ValueError(
            f"has {what}, more than max_pixels={max_pixels:,}; remove it, shrink it or raise the limit"
        )


def _upright(pixels: Image.Image, source: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(source.getexif().get(_ORIENTATION, 1))
    except Exception:  # unreadable EXIF is ignored
        turn = None
    return pixels if turn is None else pixels.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode in _SIXTEEN_BITS or (mode == "I" and image.format in ("PNG", "PPM")):  # values are 0..65535
        return Image.fromarray(_sixteen_to_eight_bits(image)).convert("RGB")
    if mode == "F" or mode.startswith("I"):
        numbers = "floats" if mode == "F" else "integers of 32 bits, or with a sign,"
        raise ValueError(f"an image of {numbers} has no known range of values; save it with 8 or 16 bits")
    if mode == "LAB":
        raise ValueError("colours in LAB depend on a profile; save the image in RGB")
    if mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _sixteen_to_eight_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Scales 0..65535 to 0..255; `convert` of Pillow would clip all values above 255."""
    values = np.asarray(image)
    table, tags = _SCALED, getattr(image, "tag_v2", {})
    if tuple(tags.get(_BITS, ())) == (12,):
        table = ((np.arange(2**16) * 510 + 4095) // 8190).clip(max=255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow inverts for 8 bits only
        table = 255 - table
    # In pieces, because an index array takes eight bytes per pixel.
    pieces = np.array_split(values, max(1, values.size >> 20))
    scaled = np.concatenate([table[piece] for piece in pieces])
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[values == transparent] = 255
    return scaled
