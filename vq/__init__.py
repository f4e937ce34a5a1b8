"""Discrete image tokenizers: quantizers, training, evaluation and generation over tokens."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vq.tokenizers import Tokenizer

__version__ = "0.1.0"
__all__ = ["load"]


def load(run_or_checkpoint: str | Path, device: str = "cpu") -> "Tokenizer":
    """Loads a trained tokenizer: `encode(images) -> indices`, `decode(indices) -> images`.

    Args:
        run_or_checkpoint: `work_dirs/NAME` (its newest checkpoint), a folder `.../checkpoints/iter_N`,
            or a `.safetensors` file. Averaged (EMA) weights are taken where there are some.
        device: Where to put it.

    Returns:
        The tokenizer in eval mode, built from the config inside the weight file; no file is executed.

    Example:
        >>> tokenizer = vq.load("work_dirs/demo/fsq")               # doctest: +SKIP
        >>> indices = tokenizer.encode(images)                      # doctest: +SKIP
    """
    from vq.tokenizers.checkpoint import load_tokenizer

    return load_tokenizer(run_or_checkpoint, device=device)  # type: ignore[return-value]
