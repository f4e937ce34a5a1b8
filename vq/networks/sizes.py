"""Checks of the sizes of networks and images."""

from collections.abc import Sequence

from jaxtyping import Shaped
from torch import Tensor, nn


def check_counts(place: str, **arguments: int | Sequence[int]) -> None:
    """Checks that each argument is an integer of at least 1, or a non-empty sequence of such integers.

    Args:
        place: The class that takes the arguments. The error message starts with it.
        **arguments: The arguments by name.

    Raises:
        ValueError: If an argument is invalid. The message names the first one.

    Example:
        >>> check_counts("CNNEncoder", base_width=32, multipliers=(1, 2))
    """
    for name, value in arguments.items():
        counts = [value] if isinstance(value, int) else list(value)
        if not counts or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in counts):
            wanted = (
                "an integer of at least 1"
                if isinstance(value, int)
                else "integers of at least 1, one or more"
            )
            raise ValueError(
                f"{place}: expected {name} to be {wanted}, got {value!r}; give positive integers"
            )


def check_divisible(place: str, image: Shaped[Tensor, "b c h w"], factor: int) -> None:
    """Checks that the height and width of images are multiples of `factor`.

    Args:
        place: The class that takes the images. The error message starts with it.
        image: The images.
        factor: The factor by which the network reduces height and width.

    Raises:
        ValueError: If they are not. The message names the size and a nearby size that is valid.

    Example:
        >>> import torch
        >>> check_divisible("CNNEncoder", torch.zeros(1, 3, 32, 48), 16)
    """
    height, width = image.shape[-2:]
    if height % factor or width % factor or not height or not width:
        fits = [max(factor, side // factor * factor) for side in (height, width)]
        raise ValueError(
            f"{place}: expected a height and width that are multiples of {factor}, got {height}x{width}; "
            f"crop or resize the images, for example to {fits[0]}x{fits[1]}"
        )


def declared_size(network: nn.Module, name: str) -> int:
    """Returns a size that an encoder or decoder declares as an attribute, such as `downsample_factor`.

    Args:
        network: An encoder or a decoder.
        name: The name of the attribute.

    Raises:
        TypeError: If the network has no such attribute, or its value is not an integer.

    Example:
        >>> from vq.networks import StridedCNNEncoder
        >>> declared_size(StridedCNNEncoder(widths=(8, 16)), "downsample_factor")
        4
    """
    size = getattr(network, name, None)
    if not isinstance(size, int):
        raise TypeError(
            f"{type(network).__name__}: expected an integer attribute {name!r}, as encoders and decoders declare it, "
            f"got {size!r}; set it in __init__"
        )
    return size


def image_channels_of(network: nn.Module) -> int:
    """Returns the number of channels of the images that an encoder takes, or a decoder returns.

    A network says so by its attribute `image_channels`; one without it is for RGB images.

    Example:
        >>> from vq.networks import StridedCNNEncoder
        >>> image_channels_of(StridedCNNEncoder(widths=(8,), image_channels=1))
        1
    """
    return declared_size(network, "image_channels") if hasattr(network, "image_channels") else 3
