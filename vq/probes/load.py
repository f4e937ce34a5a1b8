"""Loads a trained linear probe, together with its tokenizer, from their files."""

from collections.abc import Mapping
from pathlib import Path

import torch

from vq.probes.linear import LinearProbe
from vq.tokenizers.checkpoint import (
    CheckpointError,
    build_from,
    config_of,
    find_weights,
    load_weights,
    read_config,
)


def load_probe(
    path: str | Path, *, device: str | torch.device = "cpu", weights: Mapping[str, str | Path] | None = None
) -> LinearProbe:
    """Loads the probe of a run folder, checkpoint folder or weight file, and its tokenizer, in eval mode.

    Args:
        path: A run folder, a checkpoint folder or a weight file.
        device: The device to put the probe on.
        weights: New paths of weights that the config refers to and that have moved: key in the config -> path.

    Raises:
        CheckpointError: If there are no weights, they are damaged, or they are not those of a probe.
        ConfigError: If the config names something that is not a class of this project.
    """
    file = find_weights(path)
    config = read_config(file)
    if config is None or "probe" not in config:
        raise CheckpointError(f"{file}: expected the weights of a probe with a config, got no probe config")
    shared = {}
    if "tokenizer" in config:
        shared["tokenizer"] = build_from(file, config_of(config, "tokenizer", file, weights), "tokenizer")
    probe = build_from(file, config_of(config, "probe", file), "probe", shared)
    if not isinstance(probe, LinearProbe):
        raise CheckpointError(f"{file}: expected a probe, got a {type(probe).__name__}")
    load_weights(probe, [file])
    return probe.to(device).eval()
