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
__all__ = ["__version__", "list_pretrained", "load", "load_generator", "load_pretrained", "load_probe"]

moved.install()


def load(
    run_or_checkpoint: str | Path, device: str = "cpu", *, weights: Mapping[str, str | Path] | None = None
) -> "Tokenizer":
    """Loads a trained tokenizer: `encode(images)` returns indices, and `decode(indices)` returns images.

    Args:
        run_or_checkpoint: `work_dirs/NAME` for its newest checkpoint, a folder `.../checkpoints/iter_N`, a
            `.safetensors` file, `zoo:FAMILY/MODEL` for a published model whose file is on this machine,
            `hf://OWNER/REPOSITORY`, or weights of another project that `vq convert` recognises. Averaged (EMA)
            weights are preferred if the checkpoint has them.
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
    from vq.tokenizers.foreign import is_foreign, load_foreign

    path = Path(run_or_checkpoint)
    if is_foreign(path) and not weights:
        return load_foreign(path).to(device)
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


def list_pretrained(pattern: str = "*") -> list[str]:
    """Lists the published models whose weights can be loaded.

    Args:
        pattern: Names with wildcards: `llamagen/*`, `*ds16*`.

    Example:
        >>> list_pretrained("llamagen/vq*")
        ['llamagen/vq_ds8_c2i', 'llamagen/vq_ds16_c2i', 'llamagen/vq_ds16_t2i']
    """
    from vq import zoo

    return zoo.names(pattern)


def load_pretrained(
    name: str, device: str = "cpu", *, source: str | Path | None = None
) -> "Tokenizer | Generator":
    """Loads a published model. Its file is downloaded if it is not on this machine.

    Args:
        name: A name that `list_pretrained` gives, such as `llamagen/vq_ds16_c2i`.
        device: The device to put the model on.
        source: The published file, if you have it; it is converted without any download.

    Returns:
        The tokenizer or the generator in eval mode.

    Raises:
        vq.errors.UserError: If there is no such model, its file cannot be downloaded, or it is not that of the model.

    Example:
        >>> tokenizer = vq.load_pretrained("llamagen/vq_ds16_c2i")      # doctest: +SKIP
        >>> indices = tokenizer.encode(images)                          # doctest: +SKIP
    """
    from vq import zoo
    from vq.tokenizers.published import converted, download

    family, model = zoo.find(name)
    full_name = f"{zoo.PREFIX}{family.name}/{model.name}"
    file = converted(full_name, download(full_name) if source is None else source)
    return load(file, device) if "tokenizer" in model.config else load_generator(file, device)
