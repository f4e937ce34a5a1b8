"""One tokenizer at work on files: images are encoded and reconstructed, files of indices are decoded."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from vq.data import CenterCrop, Resize, read_image
from vq.engine.evaluation.pictures import beside, index_picture
from vq.errors import UserError
from vq.files import read_npy, write_atomically
from vq.ops.images import save_png, to_signed_unit, to_uint8
from vq.tokenizers import Tokenizer


class InferenceError(UserError, ValueError):
    """A file that the tokenizer cannot take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTranslator:
    """Translates image files to indices and reconstructions, and files of indices to images.

    Attributes:
        tokenizer: In eval mode, on its device.
        autocast: Run the networks in bfloat16.
        size: Resize and crop images to this height and width; None crops them to a multiple of the stride.
    """

    tokenizer: Tokenizer
    autocast: bool = False
    size: int | None = None

    def translate(self, source: Path, *, beside_original: Path, index_map: Path, indices: Path) -> list[Path]:
        """Encodes an image file and, if the tokenizer has an image decoder, decodes it again.

        Args:
            source: An image file.
            beside_original: Gets a PNG of the image and, to its right, the reconstruction; not written without an image
                decoder.
            index_map: Gets a PNG in which each index has a colour of its own.
            indices: Gets the indices as `.npy`.

        Returns:
            The files that were written.

        Raises:
            InferenceError: If the image is smaller than the stride, or `size` is no multiple of it.
            UndecodableImage: If the file is not an image.
        """
        image, written = self._read(source), [index_map, indices]
        with self._networks():
            codes = self.tokenizer.encode(to_signed_unit(image[None].to(self._device)))
            if self.tokenizer.has_image_decoder:
                reconstruction = to_uint8(self.tokenizer.decode(codes).float())[0].cpu()
                save_png(beside(image, reconstruction), beside_original)
                written.insert(0, beside_original)
        found = codes[0].cpu()
        height, width = image.shape[-2:]
        save_png(index_picture(found, self.tokenizer.codebook_size, height=height, width=width), index_map)
        content = io.BytesIO()
        np.save(content, found.numpy())
        write_atomically(indices, content.getvalue())
        return written

    def decode(self, source: Path, target: Path) -> None:
        """Decodes an `.npy` file of indices to a PNG.

        Raises:
            InferenceError: If the file is not one array of integers of the right shape and range.
        """
        indices = torch.from_numpy(self._read_indices(source).astype(np.int64))
        save_png(to_uint8(self._decoded(source, indices).float())[0].cpu(), target)

    def _decoded(self, source: Path, indices: Int[Tensor, "*axes"]) -> Float[Tensor, "1 3 h w"]:
        try:
            with self._networks():
                return self.tokenizer.decode(indices[None].to(self._device))
        except ValueError as error:  # what `_read_indices` cannot know, such as the scales of a grid
            raise InferenceError(f"{source}: {error}") from error

    @property
    def _device(self) -> torch.device:
        return self.tokenizer.device

    def _networks(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.autocast)

    def _read(self, source: Path) -> UInt8[Tensor, "3 h w"]:
        """The image at a size that the stride divides."""
        factor, image = self.tokenizer.downsample_factor, read_image(source)
        if self.size is not None:
            if self.size % factor:
                raise InferenceError(
                    f"--size {self.size}: expected a multiple of the tokenizer's stride {factor}; use "
                    f"{max(1, self.size // factor) * factor}"
                )
            unused = torch.Generator()
            return CenterCrop(size=self.size)(Resize(size=self.size)(image, unused), unused)
        height, width = (side // factor * factor for side in image.shape[-2:])
        if not height or not width:
            raise InferenceError(
                f"{source}: {tuple(image.shape[-2:])} pixels are fewer than the stride {factor}; use --size"
            )
        top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
        return image[:, top : top + height, left : left + width]

    def _read_indices(self, source: Path) -> NDArray[Any]:
        """The integers of a file, checked against what the tokenizer decodes."""
        try:
            indices = read_npy(source)
        except (ValueError, OSError) as error:
            raise InferenceError(f"{source}: expected an .npy file of indices, got: {error}") from error
        self._check_shape(source, indices)
        size, lowest, highest = self.tokenizer.codebook_size, int(indices.min()), int(indices.max())
        if lowest < 0 or highest >= size:
            raise InferenceError(
                f"{source}: expected indices from 0 to {size - 1}, got {lowest} to {highest}; were they made by a "
                f"different tokenizer?"
            )
        return indices

    def _check_shape(self, source: Path, indices: NDArray[Any]) -> None:
        """Refuses what is not an array of integers of the tokenizer's shape."""
        factor = self.tokenizer.downsample_factor
        image_size = getattr(self.tokenizer, "image_size", None)
        wanted = self.tokenizer.indices_shape(*(image_size or (factor, factor)))
        is_fixed = image_size is not None or len(wanted) < 2
        stack = wanted[2:]
        fits = indices.ndim == len(wanted) and (
            indices.shape == wanted if is_fixed else indices.shape[2:] == stack
        )
        if not fits or not np.issubdtype(indices.dtype, np.integer) or indices.size == 0:
            shape = ", ".join(map(str, wanted if is_fixed else ("h", "w", *stack)))
            raise InferenceError(
                f"{source}: expected integers of the shape ({shape}), without a batch axis, got {indices.dtype} of the "
                f"shape {indices.shape}; `vq inference` writes such files"
            )
