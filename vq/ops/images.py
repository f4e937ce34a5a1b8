"""Conversion of pixel ranges (0..255 in files and batches, [-1, 1] in networks, [0, 1] in metrics) and of channels."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped, UInt8
from PIL import Image
from torch import Tensor

from vq.errors import UserError
from vq.files import temporary_name, write_atomically

RGB, RGBA = 3, 4
"""Numbers of channels."""

PNG_CHANNELS = (1, RGB, RGBA)
"""The numbers of channels that a PNG file can hold: grey, RGB and RGBA."""

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


def to_bytes(image: UInt8[Tensor, "*shape"] | Float32[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Rounds pixels 0..255 to uint8, as `to_uint8(to_signed_unit(image))` does; uint8 is returned unchanged."""
    return image if image.dtype == torch.uint8 else to_uint8(to_signed_unit(image))


def encodable(image: UInt8[Tensor, "*shape"] | Float32[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Converts float32 pixels 0..255 to [-1, 1]; uint8 is returned unchanged. `Tokenizer.encode` takes the result."""
    return image if image.dtype == torch.uint8 else to_signed_unit(image)


def to_unit(image: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Maps [-1, 1] to [0, 1] in the dtype of the tensor, without clamping.

    Example:
        >>> to_unit(torch.tensor([-1.0, 0.0, 1.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    return (image + 1) / 2


class ChannelsError(UserError, ValueError):
    """Images with another number of channels than a network takes."""


def checked_rgb(place: str, rgb: Sequence[int] | None) -> tuple[int, int, int] | None:
    """Checks an argument `rgb`, the channels to show as red, green and blue, and returns it as a tuple.

    Args:
        place: The class that takes the argument. The error message starts with it.
        rgb: The numbers of three channels, counted from 0; None for images of 3 channels.

    Raises:
        ChannelsError: If these are not three integers of at least 0.

    Example:
        >>> checked_rgb("LPIPSLoss", [2, 1, 0])
        (2, 1, 0)
    """
    if rgb is None:
        return None
    if len(rgb) != RGB or any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in rgb):
        raise ChannelsError(
            f"{place}: expected rgb to be the numbers of three channels, counted from 0, got {rgb!r}; take for example "
            f"(0, 1, 2), or (0, 0, 0) for grey images"
        )
    red, green, blue = rgb
    return red, green, blue


def check_rgb(place: str, rgb: Sequence[int] | None, channels: int) -> None:
    """Checks that images with a number of channels can be shown to an RGB network.

    Args:
        place: The class that shows the images to the network. The error message starts with it.
        rgb: The channels to show as red, green and blue; None for images of 3 channels.
        channels: The number of channels of the images.

    Raises:
        ChannelsError: If `rgb` is None and there are not 3 channels, or it names a channel that does not exist.

    Example:
        >>> check_rgb("LPIPSLoss", (0, 0, 0), 1)
    """
    if rgb is None and channels != RGB:
        cure = "(0, 0, 0) to repeat the grey channel" if channels == 1 else "for example (0, 1, 0)"
        cure = cure if channels < RGB else "for example (0, 1, 2)"
        raise ChannelsError(
            f"{place}: expected images of 3 channels, because its network was trained on RGB images, got images of "
            f"{channels}; set rgb to the channels to show as red, green and blue, {cure}, or use a part without such a "
            f"network"
        )
    if rgb is not None and max(rgb) >= channels:
        raise ChannelsError(
            f"{place}: expected rgb to name channels from 0 to {channels - 1}, got {tuple(rgb)}; the images have "
            f"{channels} channels"
        )


def rgb_view(
    place: str, image: Shaped[Tensor, "b channels h w"], rgb: Sequence[int] | None
) -> Shaped[Tensor, "b 3 h w"]:
    """Selects the channels of images that an RGB network sees.

    Args:
        place: The class that shows the images to the network. The error message starts with it.
        image: The images.
        rgb: The channels to show as red, green and blue; None returns images of 3 channels unchanged.

    Raises:
        ChannelsError: If `rgb` is None and there are not 3 channels, or it names a channel that does not exist.

    Example:
        >>> rgb_view("LPIPSLoss", torch.zeros(2, 6, 4, 4), (3, 2, 1)).shape
        torch.Size([2, 3, 4, 4])
    """
    check_rgb(place, rgb, image.shape[1])
    # An index that is a list would be copied to the GPU, which waits for it.
    return image if rgb is None else torch.cat([image[:, i : i + 1] for i in rgb], dim=1)


def preview(
    image: Shaped[Tensor, "*batch channels h w"], rgb: Sequence[int] | None = None
) -> UInt8[Tensor, "*batch _shown h w"]:
    """Makes pictures that a PNG file can hold: grey (1 channel), RGB (3) or RGBA (4), rounded to bytes.

    Args:
        image: Pixels in 0..255, uint8 or float32.
        rgb: The channels to show as red, green and blue. With None, images of 1, 3 or 4 channels keep them, images
            of 2 channels are shown as a grey picture of the first, and others by their first three channels.

    Raises:
        ChannelsError: If `rgb` names a channel that does not exist.

    Example:
        >>> [tuple(preview(torch.zeros(channels, 8, 8)).shape) for channels in (1, 2, 3, 4, 6)]
        [(1, 8, 8), (1, 8, 8), (3, 8, 8), (4, 8, 8), (3, 8, 8)]
    """
    pixels, channels = to_bytes(image), image.shape[-3]
    if rgb is not None:
        check_rgb("pictures", rgb, channels)
        return pixels[..., list(rgb), :, :]
    if channels in PNG_CHANNELS:
        return pixels
    return pixels[..., : 1 if channels < RGB else RGB, :, :]


def as_rgb(
    image: Shaped[Tensor, "*batch channels h w"], rgb: Sequence[int] | None = None
) -> UInt8[Tensor, "*batch 3 h w"]:
    """Makes RGB pictures: those of `preview`, with a grey channel repeated and transparency composited on white.

    Args:
        image: Pixels in 0..255, uint8 or float32.
        rgb: The channels to show as red, green and blue, as for `preview`.

    Raises:
        ChannelsError: If `rgb` names a channel that does not exist.

    Example:
        >>> as_rgb(torch.tensor([0, 0, 0, 51], dtype=torch.uint8).reshape(4, 1, 1)).flatten().tolist()
        [204, 204, 204]
    """
    picture = preview(image, rgb)
    if picture.shape[-3] == 1:
        return picture.expand(*picture.shape[:-3], RGB, -1, -1)
    if picture.shape[-3] == RGBA:
        colour, alpha = picture[..., :RGB, :, :].float(), picture[..., RGB:, :, :].float() / 255
        return (colour * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
    return picture


def grid(images: UInt8[Tensor, "n channels h w"], columns: int) -> UInt8[Tensor, "channels height width"]:
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
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    step_y, step_x = height + _SEPARATOR_WIDTH, width + _SEPARATOR_WIDTH
    canvas = images.new_full(
        (channels, rows * step_y - _SEPARATOR_WIDTH, columns * step_x - _SEPARATOR_WIDTH), _SEPARATOR_VALUE
    )
    for i, image in enumerate(images):
        y, x = i // columns * step_y, i % columns * step_x
        canvas[:, y : y + height, x : x + width] = image
    return canvas


def save_png(image: UInt8[Tensor, "channels h w"], path: str | Path) -> None:
    """Writes an image as a PNG file atomically: readers see the old file or the complete new one.

    Args:
        image: A grey (1 channel), RGB (3) or RGBA (4) image on any device; `preview` makes one of any image.
        path: Path of the file. Missing folders are created.

    Raises:
        ChannelsError: If the image has another number of channels.
    """
    if image.shape[0] not in PNG_CHANNELS:
        raise ChannelsError(
            f"save_png: expected an image of 1, 3 or 4 channels, got {image.shape[0]}; use preview(image)"
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        pixels = np.ascontiguousarray(image.cpu().permute(1, 2, 0).numpy())
        Image.fromarray(pixels[..., 0] if image.shape[0] == 1 else pixels).save(temporary, format="PNG")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_pixels(
    image: Shaped[Tensor, "channels h w"], path: str | Path, rgb: Sequence[int] | None = None
) -> list[Path]:
    """Writes an image as a PNG file, and beside it as `.npy` if a PNG cannot hold all of its channels.

    Images of 1, 3 and 4 channels become grey, RGB and RGBA files. Of others, the PNG shows the channels that `preview`
    chooses, and `save_array` writes all of them.

    Args:
        image: Pixels in 0..255, uint8 or float32, on any device.
        path: Path of the PNG file. Missing folders are created.
        rgb: The channels that the PNG of an image of other channel numbers shows as red, green and blue.

    Returns:
        The files that were written.
    """
    pixels = to_bytes(image)
    arrays = save_array(pixels, path)
    save_png(preview(pixels, rgb if arrays else None), path)
    return [Path(path), *arrays]


def save_array(image: UInt8[Tensor, "channels h w"], path: str | Path) -> list[Path]:
    """Writes an image as an array (h, w, channels) of uint8 if a PNG cannot hold all of its channels.

    Args:
        image: Image on any device.
        path: Path of the PNG file. The array gets the ending `.npy` instead.

    Returns:
        The file, or nothing for images of 1, 3 and 4 channels.
    """
    if image.shape[0] in PNG_CHANNELS:
        return []
    content, file = io.BytesIO(), Path(path).with_suffix(".npy")
    np.save(content, np.ascontiguousarray(image.cpu().permute(1, 2, 0).numpy()))
    write_atomically(file, content.getvalue())
    return [file]
