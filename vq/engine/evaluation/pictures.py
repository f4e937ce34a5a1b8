"""Pictures of a tokenizer's work: index maps in colour, originals beside reconstructions."""

import colorsys

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.nn import functional as F

GOLDEN = 0.618033988749895


def index_picture(
    indices: Int[Tensor, "*axes"], codebook_size: int, *, height: int, width: int
) -> UInt8[Tensor, "3 height width_in_all"]:
    """Draws an index map, in which every index has a colour of its own, the same in every picture.

    Args:
        indices: The indices of one image, (h, w) or (h, w, stack...). The maps of stacked quantizers are drawn side by
            side. A sequence of indices without positions in the image is drawn as one row.
        codebook_size: The number of different indices.
        height: The height of the picture, in pixels.
        width: The width of one map, in pixels.
    """
    indices = indices[None] if indices.ndim == 1 else indices
    maps = indices.reshape(*indices.shape[:2], -1).movedim(-1, 0)
    used, number = torch.unique(maps, return_inverse=True)
    # Colours are computed only for the indices that occur: a codebook may be huge.
    colours = torch.tensor([_colour(int(index), codebook_size) for index in used], dtype=torch.uint8)
    coloured = colours[number].movedim(-1, 1)  # (stack, 3, h, w)
    large = F.interpolate(coloured.float(), size=(height, width), mode="nearest").to(torch.uint8)
    return torch.cat(list(large), dim=-1)


def beside(
    left: UInt8[Tensor, "channels height left"], right: UInt8[Tensor, "channels height right"]
) -> UInt8[Tensor, "channels height both"]:
    """Places two pictures of equal height side by side, with a thin white line between them."""
    line = torch.full((*left.shape[:2], 4), 255, dtype=torch.uint8)
    return torch.cat([left, line, right], dim=-1)


def _colour(index: int, codebook_size: int) -> list[int]:
    hue = index * GOLDEN % 1.0
    value = 0.55 + 0.45 * (index / max(1, codebook_size - 1))
    return [round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 0.75, value)]
