"""Samples indices from a generator and decodes them to images."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor, nn

from vq.generators import Generator
from vq.ops.images import to_uint8


@torch.no_grad()
def generate_images(
    generator: Generator,
    tokenizer: nn.Module,
    label: Int64[Tensor, "b"],
    seeds: Int64[Tensor, "b"],
    *,
    sampling: Mapping[str, Any],
    prefix: Int64[Tensor, "b *prefix"] | None = None,
) -> UInt8[Tensor, "b 3 h w"]:
    """Samples indices of each class within the tokenizer's ranges, each picture from its own seed, and decodes them."""
    ranges = tokenizer.index_ranges
    indices = generator.generate(label, seeds=seeds, prefix=prefix, ranges=ranges, **sampling)  # type: ignore[arg-type]
    return to_uint8(tokenizer.decode(indices).float()).cpu()  # type: ignore[operator]
