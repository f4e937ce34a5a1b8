"""The bytes of an image file become RGB pixels, whatever its colour space, depth, transparency or rotation."""

import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from vq.data.base import UndecodableImage

_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's names for grey of more than 8 bits


def read_image(path: Path, name: str) -> UInt8[Tensor, "3 h w"]:
    """Decodes a file to RGB pixels 0..255.

    Args:
        path: The file.
        name: What to call it if it is broken.

    Raises:
        UndecodableImage: If it cannot be read or decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UndecodableImage(name, f"cannot be read ({error})") from error
    return decode_image(data, name)


def decode_image(data: bytes, name: str) -> UInt8[Tensor, "3 h w"]:
    """Decodes an encoded image to RGB pixels 0..255, upright, transparency composited on white.

    The format is told from the content, not from a file name (ImageNet holds a PNG named .JPEG). Grey is
    repeated, 16 bits are scaled to 8, and of an animation the first frame is taken.

    torchvision decodes JPEGs a quarter faster, but its decoders are deprecated since 0.29, drop
    transparency and leave CMYK as it is; so everything goes through Pillow.

    Args:
        data: A whole file.
        name: What to call it if it is broken.

    Returns:
        A view of pixels that lie row by row with the colours side by side, as Pillow left them; resizing
        reads them so, and a copy would cost as much as a fifth of the decoding.

    Raises:
        UndecodableImage: If it is empty, truncated, no image, or of floats, whose range nobody knows.
    """
    if not data:
        raise UndecodableImage(name, "the file is empty")
    # Pillow meets hostile bytes with nearly every exception there is (OSError, SyntaxError, IndexError,
    # struct.error, ...), so all of them mean one thing here: the image is broken.
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.array(_to_rgb(ImageOps.exif_transpose(image)))
    except Exception as error:
        raise UndecodableImage(name, f"{type(error).__name__}: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("an image of floats has no known range of values")
    if image.mode in _DEEP_MODES:
        image = _sixteen_to_eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _sixteen_to_eight_bits(image: Image.Image) -> Image.Image:
    """Scales 0..65535 to 0..255; Pillow's own `convert` would clip everything above 255 to white."""
    values = np.asarray(image).astype(np.float64)
    return Image.fromarray(np.clip(np.rint(values / 257), 0, 255).astype(np.uint8))
