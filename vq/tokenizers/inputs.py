"""What a tokenizer accepts as images: clear inputs are converted, ambiguous ones are refused by name."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vq.errors import UserError
from vq.ops.images import to_signed_unit

COLOURS = 3
FARTHEST = 8.0
"""Floats may be this far from 0: resizing and noise leave [-1, 1] a little, pixels of 0..255 leave it by far."""


class ImageInputError(UserError, ValueError):
    """A tensor that does not say which images are meant: of another shape, type or range."""


def as_images(image: Shaped[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "batch 3 height width"]:
    """Images as the networks take them: (batch, 3, height, width), in [-1, 1], of the networks' type.

    uint8 means pixels 0..255 and is mapped to [-1, 1]. Floats of any precision must be in [-1, 1] already; values up
    to 8 from 0 pass as they are, since resizing and noise leave the range a little. On a GPU the check of floats
    waits for the device; uint8 needs none.

    Args:
        image: Pixels or floats.
        dtype: Of the networks' parameters.

    Raises:
        ImageInputError: If the shape is not (batch, 3, height, width), the type is another integer, boolean or
            complex, or a float is not finite or farther than 8 from 0.

    Example:
        >>> as_images(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8), torch.float32).flatten()
        tensor([1., 1., 1.])
    """
    _check_shape(tuple(image.shape))
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


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) == 4 and shape[1] == COLOURS:
        return
    hint = "images of one height and width, stacked"
    if len(shape) == 3 and shape[0] == COLOURS:
        hint = "add the batch axis with image[None]"
    elif len(shape) in (3, 4) and shape[-1] == COLOURS:
        hint = "the channels come before height and width: image.movedim(-1, -3)"
    elif len(shape) == 4 and shape[1] == 1:
        hint = "repeat gray images with image.expand(-1, 3, -1, -1)"
    elif len(shape) == 4 and shape[1] == 4:
        hint = "drop the transparency with image[:, :3]"
    raise ImageInputError(f"images: expected the shape (batch, 3, height, width), got {shape}; {hint}")
