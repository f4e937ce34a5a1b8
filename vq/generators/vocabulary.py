"""The number of codes of a generator whose page leaves it to its tokenizer."""

from collections.abc import Mapping
from typing import Any

import torch

from vq.registry import build
from vq.tokenizers.checkpoint import self_contained


def with_vocabulary(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config whose generator has the `vocabulary_size` of the config's tokenizer.

    The tokenizer is built without memory for its weights, so that only its description is needed. If there is none,
    because the weights of a pretrained tokenizer are missing, nothing is changed; `build` raises for them.

    Args:
        config: Plain data with the section `generator`, in which the weights of other runs are recorded.
    """
    node = config.get("tokenizer")
    described = self_contained(node) if isinstance(node, Mapping) else {}
    if not described or "weights" in described:  # a reference to weight files that are not there
        return dict(config)
    with torch.device("meta"):
        tokenizer: Any = build(described, path="tokenizer")
    return {**config, "generator": {**config["generator"], "vocabulary_size": tokenizer.codebook_size}}
