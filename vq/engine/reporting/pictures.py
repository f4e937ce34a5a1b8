"""Pictures of a run inside the page: as they are, or reduced if they are large."""

import base64
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vq.engine.reporting.blocks import Picture
from vq.files import read_regular

LARGEST_FILE = 2**28
LARGEST_PIXELS = 2**27
KEPT_BYTES = 600_000
"""A PNG up to this size is embedded as it is."""
WIDEST = 1600
"""In pixels; the width of larger pictures after they are reduced."""


class PictureError(Exception):
    """A picture that cannot be shown; the message says why."""


def embedded(file: Path, *, alt: str, caption: str) -> Picture:
    """Reads a PNG into the page; a large one is reduced and becomes a JPEG, and its remark says so.

    Raises:
        PictureError: If it is missing, damaged or too large.
    """
    content, image = _opened(file)
    if len(content) <= KEPT_BYTES:
        return _picture("png", content, image, alt=alt, caption=caption)
    image = image.convert("RGB")
    original = image.size
    image.thumbnail((WIDEST, 10 * WIDEST))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, subsampling=0)
    remark = f"a JPEG of {image.size[0]} x {image.size[1]} pixels instead of {original[0]} x {original[1]}"
    return _picture("jpeg", buffer.getvalue(), image, alt=alt, caption=caption, remark=remark)


def error_map(file: Path, *, caption: str) -> Picture | None:
    """The absolute differences between the images and the reconstructions in a picture of the evaluator.

    Args:
        file: Rows of images, each above the row of their reconstructions, with grey lines between them.
        caption: The title of the map.

    Returns:
        The picture; None if the rows cannot be told apart.

    Raises:
        PictureError: If the file is missing, damaged or too large.
    """
    _, image = _opened(file)
    pixels = np.asarray(image.convert("RGB"), dtype=np.int16)
    if (height := _row_height(pixels)) is None:
        return None
    rows = [pixels[y : y + height] for y in range(0, len(pixels), height + LINE)]
    errors = [np.abs(a - b).mean(axis=2) for a, b in zip(rows[::2], rows[1::2], strict=True)]
    mean = sum(float(error.mean()) for error in errors) / len(errors)
    buffer = io.BytesIO()
    drawn = Image.fromarray(_coloured(np.concatenate(errors)))
    drawn.save(buffer, "PNG")
    remark = f"black is no difference, white one of {BRIGHTEST} or more of 255; the mean is {mean:.1f}"
    alt = f"{caption}: {remark}"
    return _picture("png", buffer.getvalue(), drawn, alt=alt, caption=caption, remark=remark)


LINE, GREY = 2, 128
"""The lines between images: their width in pixels, and their value."""
BRIGHTEST = 96


def _row_height(pixels: NDArray[np.int16]) -> int | None:
    """The height of a row of images, if grey lines divide the picture into an even number of equal rows."""
    is_line = (pixels == GREY).all(axis=(1, 2))
    total = len(pixels)
    for height in range(8, total // 2):
        if (total + LINE) % (2 * (height + LINE)):
            continue
        starts = np.arange(height, total, height + LINE)
        if all(is_line[starts + i].all() for i in range(LINE)):
            return height
    return None


def _coloured(error: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Black, red, yellow, white: each channel takes a third of the range."""
    scaled = 3 * np.clip(error / BRIGHTEST, 0, 1)[..., None] - np.arange(3)
    return (255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def _opened(file: Path) -> tuple[bytes, Image.Image]:
    try:
        content = read_regular(file, most=LARGEST_FILE)
        image = Image.open(io.BytesIO(content), formats=["PNG"])
        if image.width * image.height > LARGEST_PIXELS:
            raise PictureError(f"{image.width} x {image.height} pixels are too many")
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(str(error)) from error
    return content, image


def _picture(
    kind: str, content: bytes, image: Image.Image, *, alt: str, caption: str, remark: str = ""
) -> Picture:
    return Picture(
        source=f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}",
        alt=alt,
        caption=caption,
        remark=remark,
        width=image.width,
        height=image.height,
    )
