"""The sizes of a generator whose page leaves them to its tokenizer and its training data."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vq.data import ImageLoader, TokenLoader, UndecodableSetError
from vq.errors import ConfigError
from vq.registry import build
from vq.tokenizers.checkpoint import self_contained


def with_sizes(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A copy of a config whose generator has the sizes that its page leaves open.

    `vocabulary_size` is that of the config's tokenizer, `num_classes` and `grid` are those of its training data. The
    tokenizer is built without memory for its weights, so that only its description is needed. If there is none, because
    the weights of a pretrained tokenizer are missing, nothing is changed; `build` raises for them.

    Args:
        config: Plain data with the section `generator`, in which the weights of other runs are recorded.
        names: The sizes to fill in, from `vq.config.open_sizes`.

    Raises:
        ConfigError: If the training data cannot be read.
    """
    node = config.get("tokenizer")
    described = self_contained(node) if isinstance(node, Mapping) else {}
    if not described or "weights" in described:  # a reference to weight files that are not there
        return dict(config)
    with torch.device("meta"):
        tokenizer: Any = build(described, path="tokenizer")
    found: dict[str, Any] = {"vocabulary_size": tokenizer.codebook_size}
    if set(names) - set(found):
        found |= _sizes_of_data(config, tokenizer)
    return {**config, "generator": {**config["generator"], **{name: found[name] for name in names}}}


def _sizes_of_data(config: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Returns the number of classes and the grid of indices of the training data."""
    if "train_data" not in config:
        raise ConfigError(
            "generator: num_classes and grid are left open, and there is no train_data; set both"
        )
    loader: Any = build(config["train_data"], path="train_data")
    try:
        num_classes = len(loader.dataset.class_names)
        if isinstance(loader, TokenLoader):
            shape = loader.dataset.store.axes
        elif isinstance(loader, ImageLoader):
            shape = tokenizer.indices_shape(*loader.image_size)
        else:
            raise ConfigError("train_data: expected tokens or images for a generator")
    except (ValueError, UndecodableSetError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"train_data: {error}") from error
    is_stacked = (
        config["generator"].get("num_indices", 1) > 1
    )  # the last axis then has the indices of a position
    return {"num_classes": num_classes, "grid": list(shape[:-1] if is_stacked else shape)}
