"""Samples indices from a generator and decodes them to images."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from vq.generators import Generator
from vq.ops.images import to_uint8
from vq.tokenizers import Tokenizer


@torch.no_grad()
def generate_images(
    generator: Generator,
    tokenizer: Tokenizer,
    label: Int64[Tensor, "b"],
    seeds: Int64[Tensor, "b"],
    *,
    sampling: Mapping[str, Any],
    prefix: Int64[Tensor, "b *prefix"] | None = None,
) -> UInt8[Tensor, "b channels h w"]:
    """Samples indices of each class within the tokenizer's ranges, each image from its own seed, and decodes them.

    Args:
        generator: Samples the indices.
        tokenizer: Decodes them.
        label: The class of each image.
        seeds: The seed of each image.
        sampling: Further arguments of `Generator.generate`, such as the temperature.
        prefix: The first indices of each image, which it keeps.
    """
    ranges = tokenizer.index_ranges
    indices = generator.generate(label, seeds=seeds, prefix=prefix, ranges=ranges, **sampling)
    return to_uint8(tokenizer.decode(indices).float()).cpu()
