"""What a linear probe sees of an image: one vector, without parameters that the probe could train."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from vq.layers.patches import PixelPatches
from vq.ops.numerics.precision import at_least_float32
from vq.registry import PROBE_FEATURES
from vq.tokenizers import Tokenizer
from vq.tokenizers.inputs import as_images


class ProbeFeatures(nn.Module, ABC):
    """Maps an image to one vector of `dim` numbers; nothing in it is trained.

    Attributes:
        dim: The length of the vector.
        downsample_factor: What the height and the width of an image must be multiples of.
        image_channels: The number of channels of the images.
        tokenizer: The frozen tokenizer whose tokens are probed; None if the features are not those of tokens.
    """

    dim: int
    downsample_factor: int
    image_channels: int = 3
    tokenizer: Tokenizer | None

    @abstractmethod
    def forward(self, image: Shaped[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """Maps images, uint8 pixels or floats in [-1, 1], to vectors in at least float32, without gradients."""

    def of_indices(self, indices: Shaped[Tensor, "batch *index"]) -> Float[Tensor, "batch dim"]:
        """Maps the indices of images to the vectors of the images.

        Raises:
            ValueError: If the features are not those of tokens.
        """
        raise ValueError(f"{type(self).__name__}: needs images, got indices")


@PROBE_FEATURES.register_module()
class PooledCodes(ProbeFeatures):
    """Maps an image to the mean of the code vectors of its indices, over all positions.

    Source: Wang et al. 2024, https://arxiv.org/abs/2411.04406 (its public code).
    Differs from the source: nothing.

    Args:
        tokenizer: Frozen here: in eval mode and without gradients.
    """

    tokenizer: Tokenizer

    def __init__(self, *, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer.eval().requires_grad_(requires_grad=False)
        self.downsample_factor, self.image_channels = tokenizer.downsample_factor, tokenizer.image_channels
        self.dim = self.of_indices(self._some_indices()).shape[1]

    @torch.no_grad()
    def forward(self, image: Shaped[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """Maps images, uint8 pixels or floats in [-1, 1], to the means of their code vectors."""
        return self.of_indices(self.tokenizer.encode(image))

    @torch.no_grad()
    def of_indices(self, indices: Shaped[Tensor, "batch *index"]) -> Float[Tensor, "batch dim"]:
        """Maps the indices of images to the means of their code vectors.

        Raises:
            ValueError: If an index is not an integer in the tokenizer's range.
        """
        return at_least_float32(self.tokenizer.codes(indices)).flatten(1, -2).mean(dim=1)

    def _some_indices(self) -> Int[Tensor, "batch *index"]:
        """The indices of one image of the smallest size, each the first one of its range."""
        side = self.downsample_factor
        first = torch.tensor(
            [start for start, _ in self.tokenizer.index_ranges], device=self.tokenizer.device
        )
        shape = self.tokenizer.indices_shape(side, side)
        return (first if len(first) > 1 else first[0]).expand(1, *shape)


@PROBE_FEATURES.register_module()
class PooledPixels(ProbeFeatures):
    """Maps an image to the mean of its patches of pixels: the baseline that needs no tokenizer.

    Args:
        patch_size: Height and width of a patch; 1 gives the mean colour.
        image_channels: The number of channels of the images.

    Example:
        >>> PooledPixels(patch_size=2)(torch.zeros(1, 3, 4, 6)).shape
        torch.Size([1, 12])
    """

    def __init__(self, *, patch_size: int, image_channels: int = 3) -> None:
        super().__init__()
        self.tokenizer, self.image_channels = None, image_channels
        self.patches = PixelPatches(size=patch_size, channels=image_channels)
        self.downsample_factor, self.dim = patch_size, self.patches.dim

    @torch.no_grad()
    def forward(self, image: Shaped[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """Maps images, uint8 pixels or floats in [-1, 1], to the means of their patches.

        Raises:
            ValueError: If the height or the width is not a multiple of `patch_size`.
        """
        dtype = torch.float32 if image.dtype == torch.uint8 else image.dtype
        return at_least_float32(
            self.patches.split(as_images(image, dtype, channels=self.image_channels))
        ).mean(dim=1)
