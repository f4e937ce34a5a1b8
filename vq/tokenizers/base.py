"""What every tokenizer of images is."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from vq.quantizers import Quantizer
from vq.tokenizers.inputs import COLOURS, as_images
from vq.tokenizers.output import TokenizerOutput


class Tokenizer(nn.Module, ABC):
    """Turns images into indices and back.

    Attributes:
        downsample_factor: What divides the height and width of an image.
        quantizer: Whose numbers a training step may change with the step; the finest where there are several.
        decoder: Paints the image; its `last_layer` is the parameter that paints the pixels.
    """

    downsample_factor: int
    quantizer: Quantizer
    decoder: nn.Module

    @property
    @abstractmethod
    def codebook_size(self) -> int:
        """The number of different indices."""

    @property
    def index_ranges(self) -> tuple[tuple[int, int], ...]:
        """The values that the indices of a place can have: (start, stop) of each, or one pair for all of them.

        `decode` takes every index in its range; a generator samples within them.
        """
        return ((0, self.codebook_size),)

    @abstractmethod
    def indices_shape(self, height: int, width: int) -> tuple[int, ...]:
        """The axes of one image's indices, for an image of this size in pixels."""

    @abstractmethod
    def forward(self, image: Float[Tensor, "batch 3 height width"]) -> TokenizerOutput:
        """Image in [-1, 1] -> reconstruction, indices, the quantizer's loss."""

    @abstractmethod
    def latent(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch *place codebook_dim"]:
        """Image in [-1, 1] -> the vectors that `quantizer` gets of it, code axis last; changes no quantizer's state.

        Where there are several quantizers, those before it choose their codes as `encode` does.
        """

    @torch.no_grad()
    def encode(self, image: Shaped[Tensor, "*shape"]) -> Int[Tensor, "batch *index"]:
        """Images -> int64 indices; changes no state, whatever the mode.

        Args:
            image: (batch, 3, height, width). uint8 means pixels 0..255; floats of any precision mean [-1, 1], and
                may leave it a little, as resizing and noise do, up to 8 from 0.

        Raises:
            ImageInputError: If the shape or the type is another, or floats are farther from 0 or not finite.
        """
        return self.encode_images(self.as_images(image))

    @abstractmethod
    def encode_images(self, image: Float[Tensor, "batch 3 height width"]) -> Int[Tensor, "batch *index"]:
        """`encode` of images in [-1, 1] in the networks' precision, which are not checked again."""

    def as_images(self, image: Shaped[Tensor, "*shape"]) -> Float[Tensor, "batch 3 height width"]:
        """What `encode` makes of its argument: checked, in [-1, 1], in the networks' precision."""
        dtype = next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)
        return as_images(image, dtype)

    @abstractmethod
    def decode(self, indices: Int[Tensor, "batch *index"]) -> Float[Tensor, "batch 3 height width"]:
        """Indices -> image, clamped to [-1, 1]."""

    @abstractmethod
    def bypass(self, image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """Image in [-1, 1] -> what the networks alone make of it, with nothing quantized between them."""


def check_colours(place: str, encoder: nn.Module, decoder: nn.Module) -> None:
    """Refuses networks that can be made for any number of channels and are not made for those of images."""
    for name, what, channels in (
        ("encoder", "takes", getattr(encoder, "in_channels", COLOURS)),
        ("decoder", "paints", getattr(decoder, "out_channels", COLOURS)),
    ):
        if channels != COLOURS:
            raise ValueError(
                f"{place}: expected {'an' if name == 'encoder' else 'a'} {name} that {what} the {COLOURS} channels "
                f"of images, got one that {what} {channels}; gray images are read as {COLOURS} equal channels"
            )
