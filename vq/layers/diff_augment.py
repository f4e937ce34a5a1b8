"""Random augmentation of what a discriminator sees, through which gradients pass."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vq.registry import LAYERS

CHANGES = ("color", "translation", "cutout")
SHIFT = 1 / 8
HOLE = 1 / 2


@LAYERS.register_module()
class DiffAugment(nn.Module):
    """Changes colours, shifts and cuts out a part of every image at random; gradients pass through (DiffAug).

    Apply it to images and reconstructions alike before the discriminator, which then cannot memorise a small data
    set. It draws from PyTorch's default generator of the images' device. The images may have any number of channels:
    saturation scales the differences of the channels from their mean, and so leaves grey images unchanged.

    Source: Zhao et al. 2020, https://arxiv.org/abs/2006.10738, section 3.2 and the authors' code.

    Args:
        changes: Augmentations to apply, out of `color` (brightness +-0.5, saturation x 0..2, contrast x 0.5..1.5),
            `translation` (by up to an eighth of each side, filled with zeros) and `cutout` (a rectangle of half of
            each side becomes zero).

    Raises:
        ValueError: If an augmentation is unknown.

    Example:
        >>> DiffAugment(changes=["color"])(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, *, changes: Sequence[str] = CHANGES) -> None:
        super().__init__()
        unknown = [change for change in changes if change not in CHANGES]
        if unknown:
            raise ValueError(
                f"DiffAugment: expected changes out of {list(CHANGES)}, got {unknown}; remove or correct them"
            )
        self.changes = tuple(changes)

    def forward(self, image: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b channels h w"]:
        """Returns augmented images; for images in [-1, 1] they may exceed this range."""
        for change in self.changes:
            if change == "color":
                image = _color(image)
            elif change == "translation":
                image = _translation(image)
            else:
                image = _cutout(image)
        return image


def _uniform(image: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b 1 1 1"]:
    return torch.rand(len(image), 1, 1, 1, device=image.device, dtype=image.dtype)


def _integers(image: Float[Tensor, "b channels h w"], low: int, high: int) -> Int[Tensor, "b 1 1"]:
    return torch.randint(low, high + 1, (len(image), 1, 1), device=image.device)


def _color(x: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b channels h w"]:
    x = x + (_uniform(x) - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = (x - grey) * (_uniform(x) * 2) + grey
    level = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - level) * (_uniform(x) + 0.5) + level


def _translation(x: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b channels h w"]:
    height, width = x.shape[-2:]
    reach_y, reach_x = round(height * SHIFT), round(width * SHIFT)
    rows = torch.arange(height, device=x.device).reshape(1, -1, 1) + _integers(x, -reach_y, reach_y)
    columns = torch.arange(width, device=x.device).reshape(1, 1, -1) + _integers(x, -reach_x, reach_x)
    padded = F.pad(x, (1, 1, 1, 1))  # positions outside the image are read from this border of zeros
    rows, columns = (rows + 1).clamp(0, height + 1), (columns + 1).clamp(0, width + 1)
    batch = torch.arange(len(x), device=x.device).reshape(-1, 1, 1)
    return padded.movedim(1, -1)[batch, rows, columns].movedim(-1, 1)


def _cutout(x: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b channels h w"]:
    height, width = x.shape[-2:]
    hole_y, hole_x = round(height * HOLE), round(width * HOLE)
    # The centre of the hole is anywhere in the image, so a part of the hole may be outside.
    top = _integers(x, 0, height - hole_y % 2) - hole_y // 2
    left = _integers(x, 0, width - hole_x % 2) - hole_x // 2
    rows = torch.arange(height, device=x.device).reshape(1, -1, 1)
    columns = torch.arange(width, device=x.device).reshape(1, 1, -1)
    is_hole = (rows >= top) & (rows < top + hole_y) & (columns >= left) & (columns < left + hole_x)
    return x * (~is_hole).unsqueeze(1).to(x.dtype)
