"""Loads a trained generator from its files."""

from collections.abc import Mapping
from pathlib import Path

import torch

from vq.generators.base import Generator
from vq.tokenizers.checkpoint import (
    CheckpointError,
    build_from,
    config_of,
    find_weights,
    load_weights,
    read_weights,
)


def load_generator(
    path: str | Path, *, device: str | torch.device = "cpu", weights: Mapping[str, str | Path] | None = None
) -> Generator:
    """Loads the generator of a run folder, checkpoint folder or weight file, in eval mode.

    Its tokenizer is part of another run. Load that one too to decode the indices.

    Args:
        path: A run folder, a checkpoint folder or a weight file.
        device: The device to put the generator on.
        weights: New paths of weights that the config refers to and that have moved: key in the config -> path.

    Raises:
        CheckpointError: If there are no weights, they are damaged, or they are not those of a generator.
        ConfigError: If the config names something that is not a class of this project.
    """
    file = find_weights(path)
    _, config = read_weights(file)
    if config is None or "generator" not in config:
        raise CheckpointError(
            f"{file}: expected the weights of a generator with a config, got no generator config"
        )
    generator = build_from(file, config_of(config, "generator", file, weights), "generator")
    if not isinstance(generator, Generator):
        raise CheckpointError(f"{file}: expected a generator, got a {type(generator).__name__}")
    load_weights(generator, [file])
    return generator.to(device).eval()
