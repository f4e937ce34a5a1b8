"""Discrete image tokenizers: quantizers, training, evaluation and generation over tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vq import moved

if TYPE_CHECKING:
    from vq.generators import Generator
    from vq.probes import LinearProbe
    from vq.tokenizers import Tokenizer

__version__ = "0.2.0.dev0"
__all__ = ["__version__", "load", "load_generator", "load_probe"]

moved.install()


def load(
    run_or_checkpoint: str | Path, device: str = "cpu", *, weights: Mapping[str, str | Path] | None = None
) -> "Tokenizer":
    """Loads a trained tokenizer: `encode(images)` returns indices, and `decode(indices)` returns images.

    Args:
        run_or_checkpoint: `work_dirs/NAME` for its newest checkpoint, a folder `.../checkpoints/iter_N`, or a
            `.safetensors` file. Averaged (EMA) weights are preferred if the checkpoint has them.
        device: The device to put the tokenizer on.
        weights: New paths of weights that the config refers to and that have moved, as `--weights KEY=PATH` gives
            them to a command: `{"tokenizer": "work_dirs/NAME"}`. Each must have the SHA-256 in the config.

    Returns:
        The tokenizer in eval mode, built from the config inside the weight file; no file is executed.

    Raises:
        vq.errors.UserError: If there are no such weights, they are damaged, they cannot be built, or they are those
            of a generator or a probe.

    Example:
        >>> tokenizer = vq.load("work_dirs/emoji")                  # doctest: +SKIP
        >>> indices = tokenizer.encode(images)                      # doctest: +SKIP
        >>> images = tokenizer.decode(indices)                      # doctest: +SKIP
    """
    from vq.config import trained_section
    from vq.tokenizers.checkpoint import CheckpointError, find_weights, load_tokenizer, read_config

    file = find_weights(run_or_checkpoint)
    if (trained := trained_section(read_config(file) or {})) != "tokenizer":
        raise CheckpointError(
            f"{file}: expected the weights of a tokenizer, got those of a {trained}; use vq.load_{trained}"
        )
    return load_tokenizer(file, device=device, weights=weights)


def load_generator(
    run_or_checkpoint: str | Path, device: str = "cpu", *, weights: Mapping[str, str | Path] | None = None
) -> "Generator":
    """Loads a trained generator: `generate(labels, seeds=seeds)` returns indices, which its tokenizer decodes.

    Args:
        run_or_checkpoint: As for `load`.
        device: The device to put the generator on.
        weights: As for `load`.

    Returns:
        The generator in eval mode, built from the config inside the weight file; no file is executed.

    Raises:
        vq.errors.UserError: If there are no such weights, they are damaged, they cannot be built, or they are those
            of a tokenizer.

    Example:
        >>> generator = vq.load_generator("work_dirs/llama_digits")  # doctest: +SKIP
        >>> indices = generator.generate(labels, seeds=seeds)        # doctest: +SKIP
    """
    from vq.generators import load_generator

    return load_generator(run_or_checkpoint, device=device, weights=weights)


def load_probe(
    run_or_checkpoint: str | Path, device: str = "cpu", *, weights: Mapping[str, str | Path] | None = None
) -> "LinearProbe":
    """Loads a trained linear probe with its tokenizer: `classify(images)` returns logits.

    Args:
        run_or_checkpoint: As for `load`.
        device: The device to put both on.
        weights: As for `load`.

    Returns:
        The probe in eval mode, built from the config inside the weight file; no file is executed.

    Raises:
        vq.errors.UserError: If there are no such weights, they are damaged, they cannot be built, or they are not
            those of a probe.

    Example:
        >>> probe = vq.load_probe("work_dirs/probe/digits")          # doctest: +SKIP
        >>> classes = probe.classify(images).argmax(dim=1)           # doctest: +SKIP
    """
    from vq.probes import load_probe

    return load_probe(run_or_checkpoint, device=device, weights=weights)
