"""Compares what an exported file computes with what the tokenizer computes."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.exporting.formats import ExportError
from vq.tokenizers import Tokenizer

LARGEST_DIFFERENCE = 1e-4
NOISE = 1e-5
"""The amplitude of noise on images. An index that it changes is decided by rounding."""
DRAWS = 16


def compare_indices(
    tokenizer: Tokenizer,
    image: Float[Tensor, "batch channels height width"],
    got: Int[Tensor, "batch *index"],
) -> str:
    """Compares indices of images with those of the tokenizer; returns a sentence about the result.

    Raises:
        ExportError: If the shape, the type or an index that rounding does not decide differs.
    """
    expected = tokenizer.encode(image)
    if got.shape != expected.shape or got.dtype != expected.dtype:
        raise ExportError(
            f"encode: expected indices of {expected.dtype} and the shape {tuple(expected.shape)}, the file returned "
            f"{got.dtype} and {tuple(got.shape)}; report it, with the config of the tokenizer"
        )
    differs = got != expected
    ties = differs & _decided_by_rounding(tokenizer, image, expected, differs)
    wrong = int((differs & ~ties).sum())
    if wrong:
        raise ExportError(
            f"encode: {wrong} of {got.numel()} indices of random images differ from those of the tokenizer by more "
            f"than rounding; report it, with the config of the tokenizer"
        )
    ends = f"; {int(ties.sum())} differ where rounding decides between two codes" if bool(ties.any()) else ""
    return f"{got.numel() - int(ties.sum())} of {got.numel()} indices are equal{ends}"


def _decided_by_rounding(
    tokenizer: Tokenizer, image: Tensor, expected: Tensor, differs: Bool[Tensor, "batch *index"]
) -> Bool[Tensor, "batch *index"]:
    """Returns True for the indices that change when the images change by `NOISE`."""
    changed = torch.zeros_like(differs)
    generator = torch.Generator().manual_seed(1)
    for _ in range(DRAWS if bool(differs.any()) else 0):
        noise = torch.randn(image.shape, generator=generator) * NOISE
        changed |= tokenizer.encode(image + noise) != expected
    return changed


def compare_images(
    tokenizer: Tokenizer,
    indices: Int[Tensor, "batch *index"],
    got: Float[Tensor, "batch channels height width"],
) -> str:
    """Compares images of indices with those of the tokenizer; returns a sentence about the result.

    Raises:
        ExportError: If the shape or the type differs, or a value by more than 1e-4.
    """
    expected = tokenizer.decode(indices)
    if got.shape != expected.shape or got.dtype != expected.dtype:
        raise ExportError(
            f"decode: expected images of {expected.dtype} and the shape {tuple(expected.shape)}, the file returned "
            f"{got.dtype} and {tuple(got.shape)}; report it, with the config of the tokenizer"
        )
    largest = float((got - expected).abs().max())
    if not largest <= LARGEST_DIFFERENCE:  # NaN is not
        raise ExportError(
            f"decode: images of random indices differ from those of the tokenizer by up to {largest:.1e}, expected at "
            f"most {LARGEST_DIFFERENCE:.0e}; report it, with the config of the tokenizer"
        )
    return f"images differ by at most {largest:.1e}"
