"""Patch embedding: converting an image to a sequence of vectors and back."""

from abc import ABC, abstractmethod

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.positions import Places
from vq.layers.transformer import grid_places
from vq.registry import LAYERS


class Patches(nn.Module, ABC):
    """Divides an image into vectors, and puts the vectors together again; exactly inverse, without parameters.

    The linear layers between vectors and tokens belong to the encoder and the decoder. An image of
    (rows * size, columns * size) pixels becomes rows * columns vectors of size * size * channels numbers.

    Args:
        size: Side of a patch in pixels.
        channels: Number of channels of the image.

    Raises:
        ValueError: If `size` or `channels` is below 1.
    """

    def __init__(self, *, size: int, channels: int = 3) -> None:
        super().__init__()
        if min(size, channels) < 1:
            raise ValueError(
                f"{type(self).__name__}: expected size and channels of at least 1, got {size} and {channels}"
            )
        self.size, self.channels = size, channels
        self.dim = size * size * channels

    def grid_of(self, image: Float[Tensor, "b c H W"]) -> tuple[int, int]:
        """Returns the number of rows and columns of the patches of an image.

        Raises:
            ValueError: If the image has other channels, or `size` does not divide its height and width.
        """
        _, channels, height, width = image.shape
        if channels != self.channels or height % self.size or width % self.size or not height * width:
            raise ValueError(
                f"{type(self).__name__}: expected {self.channels} channels, and a height and width that are "
                f"multiples of {self.size}, got {channels} and {height}x{width}; crop or resize the images"
            )
        return height // self.size, width // self.size

    def places(self, grid: tuple[int, int], device: torch.device) -> Places:
        """Returns the row and column of each vector, in the order of the sequence."""
        return grid_places(grid, device)

    @abstractmethod
    def split(self, image: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n d"]:
        """Divides images into vectors.

        Raises:
            ValueError: If the image has other channels, or `size` does not divide its height and width.
        """

    @abstractmethod
    def join(self, vectors: Float[Tensor, "b n d"], grid: tuple[int, int]) -> Float[Tensor, "b c H W"]:
        """Returns the images whose `grid` patches are these vectors: the inverse of `split`."""


@LAYERS.register_module()
class PixelPatches(Patches):
    """Divides an image into squares; the pixels of each square are one vector.

    Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, section 3.1.
    Differs from the source: nothing.

    Args:
        size: Side of a square in pixels.
        channels: Number of channels of the image.

    Example:
        >>> patches = PixelPatches(size=2)
        >>> patches.split(torch.zeros(1, 3, 4, 6)).shape
        torch.Size([1, 6, 12])
    """

    def split(self, image: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n d"]:
        """Divides images into the vectors of their squares' pixels.

        Raises:
            ValueError: If the image has other channels, or `size` does not divide its height and width.
        """
        rows, columns = self.grid_of(image)
        return rearrange(image, "b c (h p) (w q) -> b (h w) (p q c)", h=rows, w=columns)

    def join(self, vectors: Float[Tensor, "b n d"], grid: tuple[int, int]) -> Float[Tensor, "b c H W"]:
        """Returns the images whose squares are these vectors: the inverse of `split`."""
        sizes = {"h": grid[0], "w": grid[1], "p": self.size, "q": self.size}
        return rearrange(vectors, "b (h w) (p q c) -> b c (h p) (w q)", **sizes)
