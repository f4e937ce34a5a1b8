"""One tokenizer at work on files: images are encoded and reconstructed, files of indices are decoded."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vq.data import CenterCrop, Resize
from vq.data.base import Pixels
from vq.data.decode import ImageDecoder
from vq.engine.evaluation.pictures import beside, index_picture
from vq.errors import UserError
from vq.files import read_npy, write_atomically
from vq.ops.images import PNG_CHANNELS, preview, save_array, save_pixels, save_png, to_signed_unit, to_uint8
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
        value_range: The values in image files that become 0 and 255, as for `ImageDecoder`.
        rgb: The channels that pictures of more than 4 channels show as red, green and blue; by default the first three.
    """

    tokenizer: Tokenizer
    autocast: bool = False
    size: int | None = None
    value_range: Sequence[float | int] | None = None
    rgb: Sequence[int] | None = None

    def translate(self, source: Path, *, beside_original: Path, index_map: Path, indices: Path) -> list[Path]:
        """Encodes an image file and, if the tokenizer has an image decoder, decodes it again.

        Args:
            source: An image file.
            beside_original: Gets a PNG of the image and, to its right, the reconstruction; not written without an image
                decoder. If a PNG cannot hold all channels, a file of the same name with the ending `.npy` gets the
                reconstruction, as an array (h, w, channels) of uint8.
            index_map: Gets a PNG in which each index has a colour of its own.
            indices: Gets the indices as `.npy`.

        Returns:
            The files that were written.

        Raises:
            InferenceError: If the image is smaller than the stride, or `size` is no multiple of it.
            UndecodableImage: If the file is not an image of the tokenizer's channels.
        """
        image, written = self._read(source), [index_map, indices]
        with self._networks():
            codes = self.tokenizer.encode(to_signed_unit(image[None].to(self._device)))
            if self.tokenizer.has_image_decoder:
                reconstruction = to_uint8(self.tokenizer.decode(codes).float())[0].cpu()
                written = [beside_original, *save_array(reconstruction, beside_original), *written]
                both = [preview(pixels, self._shown) for pixels in (image, reconstruction)]
                save_png(beside(*both), beside_original)
        found = codes[0].cpu()
        height, width = image.shape[-2:]
        save_png(index_picture(found, self.tokenizer.codebook_size, height=height, width=width), index_map)
        content = io.BytesIO()
        np.save(content, found.numpy())
        write_atomically(indices, content.getvalue())
        return written

    def decode(self, source: Path, target: Path) -> list[Path]:
        """Decodes an `.npy` file of indices to a PNG, and to `.npy` too if a PNG cannot hold all channels.

        Returns:
            The files that were written.

        Raises:
            InferenceError: If the file is not one array of integers of the right shape and range.
        """
        indices = torch.from_numpy(self._read_indices(source).astype(np.int64))
        return save_pixels(to_uint8(self._decoded(source, indices).float())[0], target, self.rgb)

    def holds_indices(self, source: Path) -> bool:
        """Whether a file is to be decoded: an `.npy` file, unless it is an image.

        An array is an image if its first or last of three axes has the length of the tokenizer's channels (a grey image
        may have two axes), and it is of uint8 or has not the shape of the tokenizer's indices.
        """
        if source.suffix.lower() != ".npy":
            return False
        try:
            array = read_npy(source)
        except (ValueError, OSError):
            return True  # `decode` says what is wrong
        channels, shape = self.tokenizer.image_channels, array.shape
        has_channels = (
            channels in (shape[0], shape[-1]) if len(shape) == 3 else (channels, len(shape)) == (1, 2)
        )
        return not has_channels or (array.dtype != np.uint8 and self._fits(array))

    def _decoded(self, source: Path, indices: Int[Tensor, "*axes"]) -> Float[Tensor, "1 channels h w"]:
        try:
            with self._networks():
                return self.tokenizer.decode(indices[None].to(self._device))
        except ValueError as error:  # what `_read_indices` cannot know, such as the scales of a grid
            raise InferenceError(f"{source}: {error}") from error

    @property
    def _device(self) -> torch.device:
        return self.tokenizer.device

    @property
    def _shown(self) -> Sequence[int] | None:
        """The channels that pictures show, unless a picture can show all."""
        return self.rgb if self.tokenizer.image_channels not in PNG_CHANNELS else None

    def _networks(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.autocast)

    def _read(self, source: Path) -> Pixels:
        """The image, with the tokenizer's channels, at a size that the stride divides."""
        decoder = ImageDecoder(
            channels=self.tokenizer.image_channels, value_range=self.value_range, place="vq inference"
        )
        factor, image = self.tokenizer.downsample_factor, decoder.read(source)
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
        if not self._fits(indices):
            shape = ", ".join(map(str, self._shape_of_indices()))
            raise InferenceError(
                f"{source}: expected integers of the shape ({shape}), without a batch axis, got {indices.dtype} of the "
                f"shape {indices.shape}; `vq inference` writes such files"
            )

    def _shape_of_indices(self) -> tuple[int | str, ...]:
        """The shape of the indices of an image; `h` and `w` if it depends on the size of the image."""
        factor = self.tokenizer.downsample_factor
        image_size = getattr(self.tokenizer, "image_size", None)
        wanted = self.tokenizer.indices_shape(*(image_size or (factor, factor)))
        return wanted if image_size is not None or len(wanted) < 2 else ("h", "w", *wanted[2:])

    def _fits(self, indices: NDArray[Any]) -> bool:
        """Whether an array can be indices by its shape and type."""
        wanted = self._shape_of_indices()
        sides = zip(indices.shape, wanted, strict=False)
        return (
            indices.ndim == len(wanted)
            and all(side == size or isinstance(size, str) for side, size in sides)
            and np.issubdtype(indices.dtype, np.integer)
            and indices.size > 0
        )
