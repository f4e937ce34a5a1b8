"""Validation of images that are passed to a tokenizer: clear inputs are converted, ambiguous ones raise an error."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vq.errors import UserError
from vq.ops.images import RGB, to_signed_unit

FARTHEST = 8.0
"""The largest absolute value of floats. Resizing and noise exceed [-1, 1] a little, pixels in 0..255 by far."""


class ImageInputError(UserError, ValueError):
    """A tensor that cannot be read as images because of its shape, type or range."""


def as_images(
    image: Shaped[Tensor, "*shape"], dtype: torch.dtype, *, channels: int = RGB
) -> Float[Tensor, "batch {channels} height width"]:
    """Converts images to the input of the networks: (batch, channels, height, width), in [-1, 1], of the given type.

    uint8 means pixels in 0..255 and is mapped to [-1, 1]. Floats of any precision must be in [-1, 1] already; absolute
    values up to 8 are accepted unchanged, since resizing and noise exceed the range a little. On a GPU, the check of
    floats blocks until the device is done; uint8 needs no check.

    Args:
        image: Pixels or floats.
        dtype: The type of the networks' parameters.
        channels: The number of channels that the networks take.

    Raises:
        ImageInputError: If the shape is not (batch, channels, height, width), the type is complex, boolean or an
            integer other than uint8, or a float is not finite or has an absolute value above 8.

    Example:
        >>> as_images(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8), torch.float32).flatten()
        tensor([1., 1., 1.])
    """
    _check_shape(tuple(image.shape), channels)
    if image.dtype == torch.uint8:
        return to_signed_unit(image).to(dtype)
    if not image.dtype.is_floating_point:
        raise ImageInputError(
            f"images: expected uint8 pixels 0..255 or floats in [-1, 1], got a tensor of {image.dtype}; convert it "
            f"with .to(torch.uint8) if these are pixels"
        )
    if image.numel() and not image.is_meta and not torch.compiler.is_compiling():
        _check_range(image)
    return image.to(dtype)


def _check_range(image: Tensor) -> None:
    lowest, highest = torch.stack(image.detach().float().aminmax()).tolist()
    if not (lowest >= -FARTHEST and highest <= FARTHEST):  # NaN is neither
        raise ImageInputError(
            f"images: expected floats in [-1, 1], got {lowest:g} to {highest:g}; for pixels 0..255 pass uint8, or "
            f"image / 127.5 - 1"
        )


def _check_shape(shape: tuple[int, ...], channels: int) -> None:
    if len(shape) == 4 and shape[1] == channels:
        return
    raise ImageInputError(
        f"images: expected the shape (batch, {channels}, height, width), got {shape}; {_cure(shape, channels)}"
    )


def _cure(shape: tuple[int, ...], channels: int) -> str:
    if len(shape) == 3 and shape[0] == channels:
        return "add the batch axis with image[None]"
    if len(shape) in (3, 4) and shape[-1] == channels:
        return "the channels come before height and width: image.movedim(-1, -3)"
    match (shape[1] if len(shape) == 4 else None, channels):
        case (1, 3):
            return "repeat grey images with image.expand(-1, 3, -1, -1)"
        case (4, 3):
            return "drop the transparency with image[:, :3]"
        case (3, 1):
            return "make them grey with torchvision.transforms.v2.functional.rgb_to_grayscale(image)"
        case (3, 4):
            return "add an opaque fourth channel: 255 in uint8, 1 in floats"
        case (int(), _):
            return f"this tokenizer was made for images of {channels} channels"
    return "stack images of equal height and width"
