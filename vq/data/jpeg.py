"""Decodes ordinary JPEG files with simplejpeg, and leaves all others to Pillow.

Both call libjpeg-turbo, so the pixels are the same. simplejpeg writes them where they are used, while Pillow stores
four bytes per pixel and copies them twice: it takes 1.3 to 1.8 times as long. `benchmarks/data.py` measures both and
these:

* PyTurboJPEG is about as fast, but the user has to install the library libjpeg-turbo.
* torchvision's `decode_jpeg` takes 1.04 to 1.2 times as long and is deprecated. It does not report warnings of the
  library, and cannot decode at a lower resolution.
* OpenCV takes 1.05 to 1.15 times as long, because its pixels are in the order blue, green, red. It does not report
  warnings either.
* Pillow-SIMD decodes as Pillow does. Only its resizing is faster, as fast as the resizing of tensors used here.

simplejpeg's strict mode raises an error at the first warning of the library. Pillow then decides whether such a file is
damaged, as it does for all files whose header is unusual, so that both accept and reject the same files.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import simplejpeg
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vq.data import colours

_START = b"\xff\xd8"
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive; others are arithmetic or lossless
_TABLES = (0xC4, 0xDB, 0xDD, 0xFE)  # Huffman and quantization tables, restart interval; comments
_SCAN, _FIRST_APPLICATION, _APPLICATION_1, _LAST_APPLICATION = 0xDA, 0xE0, 0xE1, 0xEF
_SHORTEST = {b"JFIF": 14, b"Adob": 12, b"ICC_": 14}  # bytes of these segments
_X_RESOLUTION = 0x011A  # an EXIF tag

_DENOMINATORS = (8, 4, 2)  # libjpeg-turbo has fast inverse transforms for these scales alone
MARGIN = 2
"""How many times the target length a scaled image is at least, on its shorter side."""


class _Header(NamedTuple):
    height: int
    width: int
    components: int
    orientation: int


def decode(
    data: bytes, *, channels: int, max_pixels: int, min_side: int | None = None
) -> UInt8[Tensor, "channels h w"] | None:
    """Decodes an ordinary JPEG to upright pixels, in channels-last memory layout.

    The pixels are those that Pillow returns, unless a lower resolution is used. It is a half, quarter or eighth of the
    resolution of the file. It is used if it divides both sides without a remainder, so that resizing gives the same
    size and the same alignment, and if the shorter side stays at least twice `min_side`. With this margin, photographs
    resized to `min_side` are above 40 dB from those decoded in full; without it, the lowest is 32 dB.

    Args:
        data: The content of a file.
        channels: 3 for RGB, in which a grey channel is repeated; 1 for grey, if the file is grey.
        max_pixels: The maximum height times width; larger images are not decoded.
        min_side: The length in pixels to which the caller resizes the shorter side; None for the full resolution.

    Returns:
        The pixels; None if the file is not an ordinary JPEG of these channels, is too large, or may be damaged.
    """
    header = _read_header(data)
    if header is None or channels not in (3, header.components):
        return None
    if header.height * header.width > min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels):
        return None
    height, width = _scaled_size(header, min_side)
    try:
        pixels = simplejpeg.decode_jpeg(
            data, "GRAY" if channels == 1 else "RGB", min_height=height, min_width=width
        )
    except (ValueError, RuntimeError):  # an error or, in strict mode, a warning of libjpeg-turbo
        return None
    return torch.from_numpy(colours.turned(pixels, header.orientation)).permute(2, 0, 1)


def _scaled_size(header: _Header, min_side: int | None) -> tuple[int, int]:
    height, width = header.height, header.width
    if min_side is not None:
        for denominator in _DENOMINATORS:
            is_exact = height % denominator == 0 and width % denominator == 0
            if is_exact and min(height, width) >= MARGIN * min_side * denominator:
                return height // denominator, width // denominator
    return height, width


def _read_header(data: bytes) -> _Header | None:
    """Reads all segments before the first scan; returns None if Pillow could reject or interpret one of them."""
    frame: tuple[int, int, int] | None = None
    exif: bytes | None = None
    may_turn = False
    for marker, start, end in _segments(data):
        if marker == _SCAN:
            orientation = _read_orientation(exif, may_turn)
            return None if frame is None or orientation is None else _Header(*frame, orientation)
        segment = data[start:end]
        if marker in _FRAMES and frame is None:
            frame = _read_frame(segment)
        elif marker == _APPLICATION_1 and segment.startswith(b"Exif\0\0") and exif is None:
            exif = segment
        elif marker == _APPLICATION_1 and segment.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            may_turn = may_turn or b"Orientation" in segment
        elif marker not in _TABLES and not _is_ignored(marker, segment):
            return None
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields the marker, start and end of each segment; stops where one does not directly follow another."""
    position = len(_START)
    if not data.startswith(_START):
        return
    while position + 4 <= len(data) and data[position] == 0xFF:
        length = data[position + 2] << 8 | data[position + 3]
        end = position + 2 + length
        if length < 2 or end > len(data):
            return
        yield data[position + 1], position + 4, end
        position = end


def _read_frame(segment: bytes) -> tuple[int, int, int] | None:
    if len(segment) < 6:
        return None
    bits, height, width, components = struct.unpack(">BHHB", segment[:6])
    is_ordinary = bits == 8 and components in (1, 3) and len(segment) == 6 + 3 * components
    return (height, width, components) if is_ordinary and height and width else None


def _read_orientation(exif: bytes | None, may_turn: bool) -> int | None:
    """Returns the EXIF orientation, by default 1; None if Pillow could fail, or take an orientation from elsewhere."""
    if exif is None:
        return None if may_turn else 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        float(tags.get(_X_RESOLUTION, 1))  # Pillow fails on others
        orientation = tags.get(colours.ORIENTATION)
        return None if orientation is None and may_turn else int(orientation or 1)
    except Exception:  # Pillow raises nearly any exception
        return None


def _is_ignored(marker: int, segment: bytes) -> bool:
    """Whether an application segment changes neither the pixels nor their orientation, and Pillow accepts it."""
    is_known = segment.startswith((b"Exif", b"Photoshop", b"MPF"))  # MPF: several pictures in one file
    if is_known or not _FIRST_APPLICATION <= marker <= _LAST_APPLICATION:
        return False
    return len(segment) >= _SHORTEST.get(segment[:4], 0)
