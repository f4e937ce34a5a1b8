"""The Haar wavelet transform of images: means and half differences of neighbouring pixels."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def haar2(image: Float[Tensor, "b c H W"], depth: int) -> Float[Tensor, "b bands h w"]:
    """Splits images into bands of half the height and width, and each band again, `depth` times.

    A step gives four bands of all channels: the mean of 2 x 2 pixels, the half difference of the rows, that of the
    columns, and that of both. The second step splits all four, not the mean alone.

    Source: NVIDIA 2025 (Cosmos), https://arxiv.org/abs/2501.03575; `Patcher` in modules/patching.py of
        https://github.com/NVIDIA/Cosmos-Tokenizer.

    Args:
        image: Images whose height and width are multiples of 2 ** depth.
        depth: The number of steps.

    Example:
        >>> haar2(torch.tensor([[[[1.0, 3.0], [1.0, 3.0]]]]), 1).flatten().tolist()
        [2.0, 0.0, -1.0, 0.0]
    """
    for _ in range(depth):
        cells = rearrange(image, "b c (h p) (w q) -> q p b c h w", p=2, q=2)
        columns = _halves(cells)
        bands = _halves(columns.transpose(0, 1)).transpose(0, 1)
        image = rearrange(bands, "j i b c h w -> b (j i c) h w")
    return image


def inverse_haar2(bands: Float[Tensor, "b bands h w"], depth: int) -> Float[Tensor, "b channels H W"]:
    """Joins bands to images: the inverse of `haar2`.

    Args:
        bands: Bands, whose number is a multiple of 4 ** depth.
        depth: The number of steps.
    """
    for _ in range(depth):
        cells = rearrange(bands, "b (j i c) h w -> j i b c h w", j=2, i=2)
        rows = 2 * _halves(cells.transpose(0, 1)).transpose(0, 1)
        bands = rearrange(2 * _halves(rows), "q p b c h w -> b c (h p) (w q)")
    return bands


def _halves(pair: Float[Tensor, "2 *rest"]) -> Float[Tensor, "2 *rest"]:
    """The mean of two tensors, and half their difference."""
    return torch.stack([pair[0] + pair[1], pair[0] - pair[1]]) / 2
