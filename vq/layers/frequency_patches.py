"""Patches of frequencies: four ways to divide the spectrum of an image into vectors (FreqPatchEmbed)."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from vq.layers.patches import Patches, PixelPatches
from vq.layers.positions import Places
from vq.layers.transformer import grid_places
from vq.ops.dct import block_dct2, block_idct2, dct2, idct2, inverse_permutation, zigzag
from vq.registry import LAYERS


@LAYERS.register_module()
class FrequencyPatches(Patches):
    """Makes one vector of each frequency: its coefficients in all tiles of the image (FreqPatchEmbed v1).

    The image is divided into `size` x `size` tiles, whatever its size, and each tile is transformed by a discrete
    cosine transform. The sequence runs from low to high frequency (zigzag), and a vector holds one coefficient of
    every tile and channel. So the first vector holds the means of the tiles.

    Source: development log of vector_quants, FreqPatchEmbed v1.

    Args:
        size: Number of tiles along a side of the image.
        channels: Number of channels of the image.

    Example:
        >>> patches = FrequencyPatches(size=2)
        >>> patches.split(torch.ones(1, 3, 8, 8))[0].abs().sum(dim=-1).round().int().tolist()[:3]
        [48, 0, 0]
    """

    def places(self, grid: tuple[int, int], device: torch.device) -> Places:
        """Returns the vertical and horizontal frequency of each vector."""
        return grid_places(grid, device)[zigzag(*grid, device)]

    def split(self, image: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n d"]:
        """Transforms images and divides their spectra into vectors.

        Raises:
            ValueError: If the image has other channels, or `size` does not divide its height and width.
        """
        rows, columns = self.grid_of(image)
        tiles = rearrange(image, "b c (p h) (q w) -> b (p q c) h w", h=rows, w=columns)
        return _flat(dct2(tiles))[:, zigzag(rows, columns, image.device)]

    def join(self, vectors: Float[Tensor, "b n d"], grid: tuple[int, int]) -> Float[Tensor, "b c H W"]:
        """Returns the images with these spectra: the inverse of `split`."""
        tiles = idct2(_map(vectors[:, _undo_zigzag(grid, vectors.device)], grid))
        return rearrange(tiles, "b (p q c) h w -> b c (p h) (q w)", p=self.size, q=self.size)


@LAYERS.register_module()
class FrequencyBandPatches(Patches):
    """Divides the zigzag of the whole image's spectrum into bands of equally many frequencies (FreqPatchEmbed v2).

    The first vector holds the size * size lowest frequencies of the image, in all channels; the last one holds the
    highest.

    Source: development log of vector_quants, FreqPatchEmbed v2.
    Differs from the source: it takes the image and computes the spectrum itself. The transform is orthonormal, so
        that `join` is exact.

    Args:
        size: Root of the number of frequencies of a band.
        channels: Number of channels of the image.
    """

    def places(self, grid: tuple[int, int], device: torch.device) -> Places:
        """Returns the number of each band, and 0: a band has no position in a grid."""
        number = torch.arange(grid[0] * grid[1], device=device)
        return torch.stack([number, torch.zeros_like(number)], dim=1)

    def split(self, image: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n d"]:
        """Transforms images and divides their spectra into vectors.

        Raises:
            ValueError: If the image has other channels, or `size` does not divide its height and width.
        """
        rows, columns = self.grid_of(image)
        ordered = dct2(image).flatten(2)[:, :, zigzag(image.shape[2], image.shape[3], image.device)]
        return rearrange(ordered, "b c (n d) -> b n (d c)", n=rows * columns)

    def join(self, vectors: Float[Tensor, "b n d"], grid: tuple[int, int]) -> Float[Tensor, "b c H W"]:
        """Returns the images with these spectra: the inverse of `split`."""
        height, width = grid[0] * self.size, grid[1] * self.size
        ordered = rearrange(vectors, "b n (d c) -> b c (n d)", c=self.channels)
        order = _undo_zigzag((height, width), vectors.device)
        return idct2(_map(ordered[:, :, order].transpose(1, 2), (height, width)))


@LAYERS.register_module()
class FrequencyBlockPatches(Patches):
    """Makes one vector of the spectrum of each square of the image, as in JPEG (FreqPatchEmbed v3).

    The order is that of `PixelPatches`, which is v3 without the transform.

    Source: development log of vector_quants, FreqPatchEmbed, the current version, with its block transform.

    Args:
        size: Side of a square in pixels.
        channels: Number of channels of the image.
    """

    def __init__(self, *, size: int, channels: int = 3) -> None:
        super().__init__(size=size, channels=channels)
        self.pixels = PixelPatches(size=size, channels=channels)

    def split(self, image: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n d"]:
        """Transforms images and divides their spectra into vectors.

        Raises:
            ValueError: If the image has other channels, or `size` does not divide its height and width.
        """
        self.grid_of(image)
        return self.pixels.split(block_dct2(image, self.size))

    def join(self, vectors: Float[Tensor, "b n d"], grid: tuple[int, int]) -> Float[Tensor, "b c H W"]:
        """Returns the images with these spectra: the inverse of `split`."""
        return block_idct2(self.pixels.join(vectors, grid), self.size)


@LAYERS.register_module()
class SpectrumPatches(Patches):
    """Divides the spectrum of the whole image into squares, from low to high frequency (FrequencyTransformer v2).

    Source: development log of vector_quants, FreqTransformer v2.
    Differs from the source: the transform is orthonormal, so that its inverse is its transpose.

    Args:
        size: Number of frequencies along the side of a square.
        channels: Number of channels of the image.
    """

    def __init__(self, *, size: int, channels: int = 3) -> None:
        super().__init__(size=size, channels=channels)
        self.pixels = PixelPatches(size=size, channels=channels)

    def places(self, grid: tuple[int, int], device: torch.device) -> Places:
        """Returns the row and column of each square in the spectrum."""
        return grid_places(grid, device)[zigzag(*grid, device)]

    def split(self, image: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n d"]:
        """Transforms images and divides their spectra into vectors.

        Raises:
            ValueError: If the image has other channels, or `size` does not divide its height and width.
        """
        grid = self.grid_of(image)
        return self.pixels.split(dct2(image))[:, zigzag(*grid, image.device)]

    def join(self, vectors: Float[Tensor, "b n d"], grid: tuple[int, int]) -> Float[Tensor, "b c H W"]:
        """Returns the images with these spectra: the inverse of `split`."""
        return idct2(self.pixels.join(vectors[:, _undo_zigzag(grid, vectors.device)], grid))


def _flat(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h*w c"]:
    return x.flatten(2).transpose(1, 2)


def _map(tokens: Float[Tensor, "b n c"], grid: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)


def _undo_zigzag(grid: tuple[int, int], device: torch.device) -> Int[Tensor, "n"]:
    return inverse_permutation(zigzag(*grid, device))
