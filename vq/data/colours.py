"""Converts images that Pillow has opened to 8-bit grey, RGB or RGBA, whatever their colours, depth and rotation.

docs/data.md states the rule for each kind of file.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

Image.init()  # older Pillows have no AVIF
FORMATS = tuple(
    kind for kind in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM") if kind in Image.OPEN
)
"""The supported formats, detected from the content. Pillow has more, but its EPS decoder would start Ghostscript."""

SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of one channel of 16 bits."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
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
ORIENTATION = 0x0112
"""The EXIF tag of the orientation."""

_BITS, _PHOTOMETRIC = 258, 262  # TIFF tags


def eight_bits(image: Image.Image, channels: int) -> npt.NDArray[np.uint8]:
    """Converts an image to upright 8-bit pixels of the shape (height, width, channels).

    A grey channel is repeated, 16 bits are scaled to 8, and colours become grey with the weights of ITU-R 601.
    Transparency is composited on white, or kept if there are four channels.

    Args:
        image: An image whose pixels are loaded.
        channels: 1, 3 or 4.

    Raises:
        ValueError: If the values have no known range, or the colours depend on a profile.
    """
    converted = _with_alpha(image) if channels == 4 else to_rgb(image)  # RGBA
    if converted.mode != _MODES[channels]:
        converted = converted.convert(_MODES[channels])
    pixels = np.array(upright(converted, image))
    return pixels[:, :, None] if channels == 1 else pixels


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image to RGB, with transparency composited on white.

    Raises:
        ValueError: If the values have no known range, or the colours depend on a profile.
    """
    if _is_of_sixteen_bits(image):
        return Image.fromarray(_sixteen_to_eight_bits(image)).convert("RGB")
    image = _checked(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def upright(pixels: Image.Image, source: Image.Image) -> Image.Image:
    """Rotates or flips an image as the EXIF orientation of its source says; unreadable EXIF is ignored."""
    turn = _TURNS.get(_orientation(source))
    return pixels if turn is None else pixels.transpose(turn)


def turned(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Rotates or flips pixels of the shape (height, width, 1 or 3) as an EXIF orientation says."""
    turn = _TURNS.get(orientation)
    if turn is None:
        return pixels
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return np.atleast_3d(np.array(image.transpose(turn)))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns the height and width of an image after its rotation; its pixels need not be loaded."""
    return image.size if _orientation(image) >= _FIRST_ON_ITS_SIDE else (image.height, image.width)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # unreadable EXIF is ignored
        return 1


def _with_alpha(image: Image.Image) -> Image.Image:
    if _is_of_sixteen_bits(image):
        return Image.fromarray(_sixteen_to_eight_bits(image)).convert("RGBA")
    return _checked(image).convert("RGBA")


def _is_of_sixteen_bits(image: Image.Image) -> bool:
    """Whether an image has one channel with values from 0 to 65535."""
    return image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _checked(image: Image.Image) -> Image.Image:
    """Refuses images whose values have no known range, or whose colours depend on a profile."""
    mode = image.mode
    if mode == "F" or mode.startswith("I"):
        numbers = "floats" if mode == "F" else "integers of 32 bits, or with a sign,"
        raise ValueError(
            f"an image of {numbers} has no known range of values; declare the set's value_range=(lowest, highest), or "
            f"save it with 8 or 16 bits"
        )
    if mode == "LAB":
        raise ValueError("colours in LAB depend on a profile; save the image in RGB")
    return image.convert("LA") if mode == "La" else image


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
