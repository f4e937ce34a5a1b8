"""What every tokenizer of images is."""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn

from vq.quantizers import Quantizer
from vq.tokenizers.output import TokenizerOutput

COLOURS = 3


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

    @abstractmethod
    def encode(self, image: Float[Tensor, "batch 3 height width"]) -> Int[Tensor, "batch *index"]:
        """Image in [-1, 1] -> int64 indices; changes no state, whatever the mode."""

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
