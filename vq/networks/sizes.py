"""Checks of sizes that the networks share: widths at construction, images at the door."""

from collections.abc import Sequence

from jaxtyping import Shaped
from torch import Tensor


def check_counts(place: str, **arguments: int | Sequence[int]) -> None:
    """Refuses an argument that is not a count, or a non-empty sequence of counts, of at least 1.

    Args:
        place: The class that takes the arguments; the error starts with it.
        **arguments: The arguments by name.

    Raises:
        ValueError: Naming the first argument that is wrong.

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
    """Refuses images whose height or width is not a multiple of `factor`.

    Args:
        place: The class that takes the images; the error starts with it.
        image: The images.
        factor: How much the network shrinks both sides.

    Raises:
        ValueError: Naming the size and the nearest one that fits.

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
