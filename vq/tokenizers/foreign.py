"""Reads the weights of other projects from their files, and writes weights of this project for others to read."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from vq.config import trained_section
from vq.errors import UserError
from vq.files import why
from vq.interop import DIALECTS, Conversion, InteropError, convert
from vq.interop.dialect import NamedTensors
from vq.interop.layouts import INDEX, LAYOUTS, read_folder, weights_in
from vq.pretrained import digest, ignoring_training_state, read_tensors
from vq.tokenizers.base import Tokenizer
from vq.tokenizers.checkpoint import (
    EMA_WEIGHTS,
    CheckpointError,
    build_from,
    config_of,
    find_weights,
    read_config,
    read_weights,
    self_contained,
)
from vq.tokenizers.manifest import MANIFEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Weights in the form of this project.

    Attributes:
        file: Where they were read, for error messages.
        config: The sections of a config that describe the model.
        tensors: The state dict of the model.
    """

    file: Path
    config: Mapping[str, Any]
    tensors: NamedTensors


def read_foreign(path: Path) -> NamedTensors:
    """Reads the tensors of another project.

    Args:
        path: A weight file, or a folder that diffusers or transformers wrote.

    Raises:
        UserError: If there are no weights, or they are damaged.
    """
    with ignoring_training_state():
        return read_folder(path) if path.is_dir() else read_weights(path)[0]


def is_own(path: Path) -> bool:
    """Whether a path is a run or a weight file of this project, or the name of a model (`zoo:`, `hf:`).

    Raises:
        CheckpointError: If a weight file is damaged.
    """
    if str(path).startswith(("zoo:", "hf:/")):
        return True
    if path.is_dir():
        if any((path / name).exists() for name in (MANIFEST, EMA_WEIGHTS, "checkpoints")):
            return True
        path = weights_in(path) or path
    return path.is_file() and not path.name.endswith(INDEX) and read_config(path) is not None


def is_foreign(path: Path) -> bool:
    """Whether a path is a weight file without a config, or a folder that diffusers or transformers wrote.

    Raises:
        CheckpointError: If a weight file is damaged.
    """
    return (path.is_file() or (path.is_dir() and weights_in(path) is not None)) and not is_own(path)


def load_foreign(path: Path) -> Tokenizer:
    """Loads a tokenizer from the weights of another project, which must show everything that describes it.

    Args:
        path: A weight file, or a folder that diffusers or transformers wrote.

    Raises:
        UserError: If there are no weights, or they are not those of a known tokenizer.
    """
    try:
        found = convert(read_foreign(path))
    except InteropError as error:
        raise CheckpointError(
            f"{path}: has no config, and cannot be converted: {error}. Weights of this project without a config are "
            "loaded into a tokenizer that is built from a page, with --load-model-from"
        ) from error
    if trained_section(found.config) != "tokenizer":
        raise CheckpointError(
            f"{path}: expected the weights of a tokenizer, got those of a {found.dialect} model"
        )
    tokenizer = build_from(path, found.config["tokenizer"], "tokenizer")
    assert isinstance(tokenizer, Tokenizer)
    tokenizer.load_state_dict(dict(found.tensors))
    tokenizer.config = dict(found.config)
    return tokenizer.eval()


def read_own(path: Path) -> Source:
    """Reads weights of this project.

    Args:
        path: What `vq.load` and `vq.load_generator` accept.

    Raises:
        UserError: If there are no weights, they are damaged, or they have no config.
    """
    file = find_weights(path)
    tensors, config = read_weights(file)
    if config is None:
        raise InteropError(
            f"{file}: expected weights with a config, got none; convert them with `vq convert` first"
        )
    return Source(file=file, config=config, tensors=tensors)


def write_foreign(source: Source, out: Path, dialect: str) -> int:
    """Writes weights as another project publishes them, and verifies that they are read again bit for bit.

    Args:
        source: The weights.
        out: The file to write, or for `diffusers` the folder. It must not exist.
        dialect: The name of the project, a key of `LAYOUTS`.

    Returns:
        The number of tensors that were written.

    Raises:
        InteropError: If the project cannot hold the model, or would compute something else with it; nothing is written.
        UserError: If `out` exists, has another ending than the files of the project, or cannot be written.
    """
    _check_target(out, dialect)
    section = trained_section(source.config)
    node = self_contained(config_of(source.config, section, source.file))
    with torch.device("meta"):
        model = build_from(source.file, node, section)
    shapes = {name: tensor.shape for name, tensor in source.tensors.items()}
    if shapes != {name: tensor.shape for name, tensor in model.state_dict().items()}:
        raise CheckpointError(f"{source.file}: expected the tensors of the model in its config, got others")
    known, layout = DIALECTS[dialect], LAYOUTS[dialect]
    assert known.write is not None  # those of all layouts do
    try:
        known.check(model)
        theirs = known.write(source.tensors)
    except InteropError as error:
        raise InteropError(f"{source.file}: cannot be written for {dialect}: {error}") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as partial:
        written = Path(partial) / out.name
        try:
            layout.save(theirs, written)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{out}: could not be written: {why(error)}") from error
        try:
            again = read_folder(written) if written.is_dir() else read_tensors(written)
            _check_equal(source, section, node, convert(again, dialect, options=layout.options(model)))
        except InteropError as error:
            raise InteropError(
                f"{source.file}: cannot be written for {dialect}: {error}; nothing is written"
            ) from error
        _check_target(out, dialect)
        written.rename(out)
    return len(theirs)


def _check_target(out: Path, dialect: str) -> None:
    if dialect not in LAYOUTS:
        raise InteropError(
            f"dialect: expected one that can be written ({', '.join(LAYOUTS)}), got {dialect!r}"
        )
    if out.suffix != LAYOUTS[dialect].ending and LAYOUTS[dialect].ending:
        raise UserError(
            f"--out: expected a name that ends in {LAYOUTS[dialect].ending} for {dialect}, got {out}"
        )
    if out.exists():
        raise UserError(f"{out}: exists already; give another --out, or delete it")


def _check_equal(source: Source, section: str, node: Mapping[str, Any], found: Conversion) -> None:
    """Refuses weights that are not read again as they were, or whose model as it is read computes something else."""
    names = source.tensors.keys() | found.tensors.keys()
    changed = [
        name
        for name in sorted(names)
        if name not in source.tensors
        or name not in found.tensors
        or digest({name: source.tensors[name]}) != digest({name: found.tensors[name]})
    ]
    if changed:
        raise InteropError(
            f"expected the tensors that are read again to be those that were written, but {len(changed)} are not "
            f"({', '.join(changed[:4])}{', ...' if len(changed) > 4 else ''})"
        )
    own = _outputs(source.file, section, node, source.tensors)
    again = _outputs(source.file, section, found.config[section], found.tensors)
    if not all(torch.equal(one, other) for one, other in zip(own, again, strict=True)):
        raise InteropError(
            f"expected a model that computes what a {found.dialect} model of these shapes computes, got another one; "
            "it has other attention, norms, activations, pixel values or convolutions than the project's"
        )


@torch.no_grad()
def _outputs(file: Path, section: str, node: Mapping[str, Any], tensors: NamedTensors) -> Sequence[Tensor]:
    """What a model computes of a random input."""
    model = build_from(file, node, section).eval()
    model.load_state_dict(dict(tensors))
    random = torch.Generator().manual_seed(0)
    if isinstance(model, Tokenizer):
        size = model.downsample_factor
        image = torch.rand(1, model.image_channels, 2 * size, 3 * size, generator=random) * 2 - 1
        indices = model.encode(image)
        return [indices, model.decode(indices)]
    generator: Any = model
    indices = torch.randint(generator.vocabulary_size, (1, *generator.grid), generator=random)
    return [generator(indices, torch.zeros(1, dtype=torch.int64)).logits]
