"""How an image becomes a sequence of vectors, and the vectors an image: the one interface of patch embedding."""

from abc import ABC, abstractmethod

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.positions import Places
from vq.layers.transformer import grid_places
from vq.registry import LAYERS


class Patches(nn.Module, ABC):
    """Cuts an image into vectors and puts them together again; an exact pair, without parameters.

    The linear layers that make tokens of the vectors and vectors of the tokens belong to the encoder and the
    decoder. An image of (grid rows * size, grid columns * size) pixels becomes rows * columns vectors of
    size * size * channels numbers.

    Args:
        size: Pixels of a patch's side.
        channels: Channels of the image.

    Raises:
        ValueError: If a number is below 1.
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
        """Rows and columns of the patches of an image.

        Raises:
            ValueError: If the image has other channels, or sides that `size` does not divide.
        """
        _, channels, height, width = image.shape
        if channels != self.channels or height % self.size or width % self.size or not height * width:
            raise ValueError(
                f"{type(self).__name__}: expected {self.channels} channels, and a height and width that are "
                f"multiples of {self.size}, got {channels} and {height}x{width}; crop or resize the images"
            )
        return height // self.size, width // self.size

    def places(self, grid: tuple[int, int], device: torch.device) -> Places:
        """The row and column of each vector, in the order of the sequence."""
        return grid_places(grid, device)

    @abstractmethod
    def split(self, image: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n d"]:
        """Images to vectors.

        Raises:
            ValueError: See `grid_of`.
        """

    @abstractmethod
    def join(self, vectors: Float[Tensor, "b n d"], grid: tuple[int, int]) -> Float[Tensor, "b c H W"]:
        """Vectors to the images of `grid` patches that they came from."""


@LAYERS.register_module()
class PixelPatches(Patches):
    """Cuts an image into squares; each becomes the vector of its pixels.

    Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, section 3.1.
    Differs from the source: nothing.

    Args:
        size: Pixels of a patch's side.
        channels: Channels of the image.

    Example:
        >>> patches = PixelPatches(size=2)
        >>> patches.split(torch.zeros(1, 3, 4, 6)).shape
        torch.Size([1, 6, 12])
    """

    def split(self, image: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n d"]:
        """See `Patches`."""
        rows, columns = self.grid_of(image)
        vectors: Tensor = rearrange(image, "b c (h p) (w q) -> b (h w) (p q c)", h=rows, w=columns)
        return vectors

    def join(self, vectors: Float[Tensor, "b n d"], grid: tuple[int, int]) -> Float[Tensor, "b c H W"]:
        """See `Patches`."""
        image: Tensor = rearrange(
            vectors,
            "b (h w) (p q c) -> b c (h p) (w q)",
            **{"h": grid[0], "w": grid[1], "p": self.size, "q": self.size},
        )
        return image
