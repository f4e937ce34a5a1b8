"""Discrete image tokenizers: quantizers, training, evaluation and generation over tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def load(
    run_or_checkpoint: str | Path, device: str = "cpu", *, weights: Mapping[str, str | Path] | None = None
) -> Any:
    """Loads a trained tokenizer (`encode(images) -> indices`, `decode(indices) -> images`) or generator (`generate`).

    Args:
        run_or_checkpoint: `work_dirs/NAME` (its newest checkpoint), a folder `.../checkpoints/iter_N`,
            or a `.safetensors` file. Averaged (EMA) weights are taken where there are some.
        device: Where to put it.
        weights: Where weights that the file's config refers to are now, as `--weights KEY=PATH` says it to a command:
            `{"tokenizer": "work_dirs/NAME"}`. They must have the SHA-256 that the config has recorded.

    Returns:
        A `vq.tokenizers.Tokenizer` or a `vq.generators.Generator` in eval mode, built from the config inside the
        weight file; no file is executed.

    Raises:
        vq.errors.UserError: If there are no such weights, they are damaged, or they cannot be built.

    Example:
        >>> tokenizer = vq.load("work_dirs/demo/fsq")               # doctest: +SKIP
        >>> indices = tokenizer.encode(images)                      # doctest: +SKIP
        >>> generator = vq.load("work_dirs/demo/llama_digits")       # doctest: +SKIP
        >>> indices = generator.generate(labels, seeds=seeds)       # doctest: +SKIP
    """
    from vq.tokenizers.checkpoint import find_weights, load_tokenizer, read_config

    file = find_weights(run_or_checkpoint)
    if "generator" in (read_config(file) or {}):
        from vq.generators import load_generator

        return load_generator(file, device=device, weights=weights)
    return load_tokenizer(file, device=device, weights=weights)
