"""Exports a tokenizer: writes the file of each function, and compares each with the tokenizer."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vq.exporting.checking import compare_images, compare_indices
from vq.exporting.formats import FORMATS, ExportError, Graph
from vq.exporting.graphs import DecodeGraph, EncodeGraph
from vq.files import new_folder
from vq.packages import is_installed, require
from vq.tokenizers import Tokenizer

Function = Literal["encode", "decode"]
DEFAULT_SIZE = 256
LARGEST_CODE = 1e6
TRACED_BATCH, OTHER_BATCHES = 2, (1, 3)
"""With a dynamic batch, the batch that is traced, and those with which the file is compared."""


class Exported(NamedTuple):
    """A file that was written.

    Attributes:
        path: The file.
        verified: What the comparison with the tokenizer found, or why there was none.
    """

    path: Path
    verified: str


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is to be exported.

    Args:
        target: A key of `FORMATS`.
        size: The height and width of images; None is the size that the tokenizer is built for, or else 256.
        fixed_batch: The only batch size of the files; None allows every size.
    """

    target: str
    size: int | None = None
    fixed_batch: int | None = None

    def check_packages(self) -> None:
        """Raises `MissingPackageError` if a package that writes the format is missing."""
        for module in FORMATS[self.target].packages:
            require(module, needed_by=f"vq export --to {self.target}")

    @torch.no_grad()
    def write(self, tokenizer: Tokenizer, functions: list[Function], out: Path) -> list[Exported]:
        """Writes one file for each function to a new folder, and compares it with the tokenizer.

        Args:
            tokenizer: A tokenizer on the CPU. It is put into eval mode and converted to float32.
            functions: What to export.
            out: A folder that is empty or does not exist. If an error occurs, nothing stays in it.

        Raises:
            ExportError: If the tokenizer has no such function, cannot be traced, takes images of another size, or
                the file computes something else.
            MissingPackageError: If a package that writes the format is missing.
        """
        self.check_packages()
        if "decode" in functions and not tokenizer.has_image_decoder:
            raise ExportError(
                f"decode: {type(tokenizer).__name__} has no image decoder; export it with --encode only"
            )
        tokenizer = tokenizer.float().eval()
        height, width = self._image_size(tokenizer)
        image = _images(tokenizer, self.fixed_batch or TRACED_BATCH, height, width)
        _check_that_it_runs(tokenizer, image, functions)
        with new_folder(out) as folder:
            done = [self._one(function, tokenizer, image, folder) for function in functions]
        return [Exported(out / file.path.name, file.verified) for file in done]

    def _image_size(self, tokenizer: Tokenizer) -> tuple[int, int]:
        """The height and width of the images, checked."""
        factor = tokenizer.downsample_factor
        grid = tuple(factor * n for n in tokenizer.quantizer.grid)
        built_for = getattr(tokenizer, "image_size", None) or (grid if len(grid) == 2 else None)
        size = (self.size, self.size) if self.size else built_for or (DEFAULT_SIZE, DEFAULT_SIZE)
        if built_for not in (None, size):
            raise ExportError(
                f"--size {self.size}: expected the size that the tokenizer is built for, "
                f"{built_for[0]}x{built_for[1]}; leave --size out"
            )
        if size[0] % factor or size[1] % factor:
            raise ExportError(
                f"--size: expected a multiple of the tokenizer's downsampling factor {factor}, got "
                f"{size[0]}x{size[1]}; try {math.ceil(size[0] / factor) * factor}"
            )
        return size

    def _one(self, function: Function, tokenizer: Tokenizer, image: Tensor, folder: Path) -> Exported:
        way = FORMATS[self.target]
        path = folder / f"{function}{way.suffix}"
        is_dynamic = self.fixed_batch is None
        height, width = image.shape[2:]
        if function == "encode":
            graph = Graph(EncodeGraph(tokenizer), image, is_dynamic, "image", "indices")
        else:
            indices = _indices(tokenizer, len(image), height, width)
            graph = Graph(DecodeGraph(tokenizer), indices, is_dynamic, "indices", "image")
        try:
            way.write(graph, path)
            if way.runtime and not is_installed(way.runtime):
                return Exported(path, f"not verified, because {way.runtime} is not installed")
            run = way.load(path)
        except Exception as error:  # PyTorch's exporters raise errors of many classes
            raise ExportError(
                f"{function}: PyTorch {torch.__version__} cannot export this tokenizer to {self.target} "
                f"({_cause(error)}); docs/export.md lists which quantizers have been exported"
            ) from error
        sizes = OTHER_BATCHES if is_dynamic else (len(image),)
        found = []
        for number in sizes:
            if function == "encode":
                other = _images(tokenizer, number, height, width, seed=1)
                found.append(compare_indices(tokenizer, other, run(other)))
            else:
                codes = _indices(tokenizer, number, height, width, seed=1)
                found.append(compare_images(tokenizer, codes, run(codes)))
        with_what = f"with {way.runtime or 'PyTorch'}"
        parts = [f"batch {number}: {sentence}" for number, sentence in zip(sizes, found, strict=True)]
        return Exported(path, f"verified {with_what} on random input; {'; '.join(parts)}")


def _check_that_it_runs(tokenizer: Tokenizer, image: Tensor, functions: list[Function]) -> None:
    """Runs the functions once, which also computes the constants that the graphs contain."""
    try:
        indices = tokenizer.encode(image)
        if "decode" in functions:
            tokenizer.decode(indices)
    except ValueError as error:
        raise ExportError(
            f"the tokenizer does not take images of {tuple(image.shape[2:])}: {error}"
        ) from error


def _images(
    tokenizer: Tokenizer, batch: int, height: int, width: int, seed: int = 0
) -> Float[Tensor, "batch channels height width"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, tokenizer.image_channels, height, width, generator=generator) * 2 - 1


def _indices(
    tokenizer: Tokenizer, batch: int, height: int, width: int, seed: int = 0
) -> Int[Tensor, "batch *index"]:
    """Random indices, each in its range; those of random images if random ones are not codes of usual lengths."""
    shape = (batch, *tokenizer.indices_shape(height, width))
    generator = torch.Generator().manual_seed(seed)
    ranges = torch.tensor(tokenizer.index_ranges)
    first, stop = ranges[0] if len(ranges) == 1 else ranges.T
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    indices = first + (uniform * (stop - first)).long()
    if bool(tokenizer.codes(indices).abs().max() <= LARGEST_CODE):  # NaN, of the bytes of numbers, is not
        return indices
    return tokenizer.encode(_images(tokenizer, batch, height, width, seed))


def _cause(error: BaseException) -> str:
    """The first line of the error that began a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
