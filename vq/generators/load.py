"""A trained generator from its files."""

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
    """The generator in a run folder, checkpoint folder or weight file, ready to use (eval mode).

    Its tokenizer is another run's: load that too, to decode.

    Args:
        path: Where it is.
        device: Where to put it.
        weights: Where weights that its config refers to are now: place in the config -> path.

    Raises:
        CheckpointError: If there is none, it is damaged, or its file does not hold a generator.
        ConfigError: If its config names something that is not a class of this project.
    """
    file = find_weights(path)
    _, config = read_weights(file)
    if config is None or "generator" not in config:
        raise CheckpointError(f"{file}: expected the weights of a generator with their config, got none")
    generator = build_from(file, config_of(config, "generator", file, weights), "generator")
    if not isinstance(generator, Generator):
        raise CheckpointError(f"{file}: expected a generator, got a {type(generator).__name__}")
    load_weights(generator, [file])
    return generator.to(device).eval()
