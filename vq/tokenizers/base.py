"""The interface of an image tokenizer."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from vq.networks.sizes import image_channels_of
from vq.quantizers import Quantizer
from vq.text import suggest
from vq.tokenizers.inputs import as_images
from vq.tokenizers.output import TokenizerOutput


class Tokenizer(nn.Module, ABC):
    """Maps images to indices and back.

    Attributes:
        downsample_factor: The factor by which height and width shrink from the image to the index map.
        image_channels: The number of channels of the images: 3 for RGB, 1 for grey.
        quantizer: The quantizer whose hyperparameters a training step may anneal; the finest one if there are several.
        decoder: Maps quantized vectors to the image; its `last_layer` is the parameter of the output layer.
        has_image_decoder: Whether `decode` returns images and `forward` reconstructs them.
        frozen: The names of the parts that do not learn, which `freeze` sets.
        config: The config that the tokenizer was built from, if it was loaded from a file that has one.
    """

    downsample_factor: int
    image_channels: int = 3
    quantizer: Quantizer
    decoder: nn.Module | None
    has_image_decoder: ClassVar[bool] = True
    frozen: tuple[str, ...] = ()
    config: Mapping[str, Any] | None = None

    def freeze(self, names: Iterable[str]) -> "Tokenizer":
        """Freezes parts: their parameters get no gradient, and they stay in eval mode, also under `.train()`.

        So no optimizer changes them, and neither does what learns in a forward, such as an EMA codebook or the
        statistics of a batch norm. The parts that were frozen before stay frozen.

        Args:
            names: Names of submodules, such as `encoder` or `quantizer.codebook`.

        Raises:
            ValueError: If there is no such part.
        """
        for name in names:
            known = {part for part, _ in self.named_modules() if part}
            if name not in known:
                children = [part for part, _ in self.named_children()]
                raise ValueError(
                    f"frozen: {type(self).__name__} has no part {name!r}{suggest(name, known)}; its parts are "
                    f"{', '.join(children)}"
                )
            self.get_submodule(name).requires_grad_(requires_grad=False).eval()
            self.frozen = tuple(dict.fromkeys((*self.frozen, name)))
        return self

    def is_frozen(self, name: str) -> bool:
        """Whether the parameter or buffer of this name belongs to a frozen part."""
        return any(name.startswith(f"{part}.") for part in self.frozen)

    def train(self, mode: bool = True) -> "Tokenizer":
        """Sets training or eval mode; frozen parts stay in eval mode."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the weights, which may be buffers; float32 if there are none."""
        tensors = itertools.chain(self.parameters(), self.buffers())
        return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)

    @property
    @abstractmethod
    def codebook_size(self) -> int:
        """The number of different indices."""

    @property
    def index_ranges(self) -> tuple[tuple[int, int], ...]:
        """The values that the indices of a position can have: one pair (start, stop) for each, or one for all.

        `decode` accepts every index in its range, and generators sample within the ranges.
        """
        return ((0, self.codebook_size),)

    @abstractmethod
    def indices_shape(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of the indices of one image with this height and width in pixels."""

    @abstractmethod
    def forward(self, image: Float[Tensor, "batch channels height width"]) -> TokenizerOutput:
        """Reconstructs images in [-1, 1]; returns the reconstruction, the indices and the quantizer's loss."""

    @abstractmethod
    def latent(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch *position codebook_dim"]:
        """Computes `z`, the input of `quantizer`, of images in [-1, 1]. The code axis is last.

        It changes no quantizer's state. If there are several quantizers, the earlier ones choose their codes as in
        `encode`.
        """

    @torch.no_grad()
    def encode(self, image: Shaped[Tensor, "*shape"]) -> Int[Tensor, "batch *index"]:
        """Maps images to int64 indices. It changes no state, in training mode neither.

        Args:
            image: (batch, image_channels, height, width). uint8 means pixels in 0..255. Floats of any precision
                mean [-1, 1]; they may exceed that range, as resizing and noise do, up to an absolute value of 8.

        Raises:
            ImageInputError: If the shape or the type differs from that, or floats are larger than 8 or not finite.
        """
        return self.encode_images(self.as_images(image))

    @abstractmethod
    def encode_images(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Int[Tensor, "batch *index"]:
        """Implements `encode` for images that are checked already: in [-1, 1], in the networks' precision."""

    def as_images(self, image: Shaped[Tensor, "*shape"]) -> Float[Tensor, "batch channels height width"]:
        """Checks images as `encode` does, and converts them to [-1, 1] in the networks' precision."""
        return as_images(image, self.dtype, channels=self.image_channels)

    def codes(self, indices: Shaped[Tensor, "batch *index"]) -> Float[Tensor, "batch *position codebook_dim"]:
        """Maps indices of any integer type to the code vectors that the decoder gets, in the networks' precision.

        Raises:
            ValueError: If an index is not an integer in its range.
        """
        return self.quantizer.decode(indices, self.dtype)

    @abstractmethod
    def decode(self, indices: Int[Tensor, "batch *index"]) -> Float[Tensor, "batch channels height width"]:
        """Maps indices to images, clamped to [-1, 1]."""

    @abstractmethod
    def bypass(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Applies the encoder and the decoder to images in [-1, 1], without quantization in between."""

    def push_to_hub(
        self, repository: str, *, licence: str, scores: str | Path | None = None, private: bool = False
    ) -> str:
        """Writes the weights, their config and a model card to a repository of the Hugging Face hub.

        Args:
            repository: `OWNER/REPOSITORY`, which is made if it does not exist.
            licence: The licence of the weights, as the hub writes it: `mit`, `apache-2.0`, `other`.
            scores: A `metrics.json` that `vq val` or `vq test` has written, for the model card.
            private: Whether a repository that is made is private.

        Returns:
            The address that `vq.load` takes, with the commit as its revision.

        Raises:
            HubError: If the hub refuses, or cannot be reached.
            CheckpointError: If the tokenizer was not loaded from a file, or does not hold all of its weights.

        Example:
            >>> tokenizer = vq.load("work_dirs/emoji")                            # doctest: +SKIP
            >>> tokenizer.push_to_hub("OWNER/emoji", licence="apache-2.0")        # doctest: +SKIP
        """
        from vq.tokenizers.hub import push

        return push(self, repository, licence=licence, scores=scores, private=private)


def common_image_channels(place: str, encoder: nn.Module, decoder: nn.Module) -> int:
    """Returns the number of channels of the images that an encoder takes and a decoder returns.

    Args:
        place: The tokenizer's class. The error message starts with it.
        encoder: The encoder, or a tokenizer whose images are decoded by another decoder.
        decoder: The decoder.

    Raises:
        ValueError: If they differ.
    """
    taken, returned = image_channels_of(encoder), image_channels_of(decoder)
    if taken != returned:
        raise ValueError(
            f"{place}: expected an encoder and a decoder for images of equally many channels, got an encoder that "
            f"takes {taken} and a decoder that returns {returned}; give both the same image_channels (the same "
            f"patches.channels, if they have patches)"
        )
    return taken
