"""A trained tokenizer as a part of a config: loaded from weight files, verified by checksum, and frozen."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vq import known_weights
from vq.config import PRETRAINED_TOKENIZER, WEIGHTS_OF
from vq.files import sha256_of
from vq.registry import TOKENIZERS, build
from vq.tokenizers.base import Tokenizer
from vq.tokenizers.checkpoint import (
    CheckpointError,
    config_of,
    find_weights,
    load_weights,
    read_config,
    read_names,
    self_contained,
)
from vq.tokenizers.with_decoder import TokenizerWithDecoder

MAX_FILES = 8
"""The longest chain of weight files in which each one names the next as its tokenizer."""

_OPEN: ContextVar[tuple[Path, ...]] = ContextVar("_OPEN", default=())


@TOKENIZERS.register_module()  # type: ignore[untyped-decorator]  # mmengine has no annotations
def pretrained_tokenizer(
    *,
    weights: Sequence[str],
    sha256: Sequence[str] | None = None,
    tokenizer: nn.Module | None = None,
    config: str | None = None,
    frozen: Sequence[str] | None = None,
    strict: bool = True,
) -> nn.Module:
    """Builds a tokenizer, loads its weight files, and freezes it, or parts of it (eval mode, no gradients).

    Only tensors are read from the files; no config page is executed here. When a command loads a page that contains
    `config=PAGE`, it replaces this by that page's tokenizer as `tokenizer` and the SHA-256 of each file as `sha256`.

    If the tokenizer is a `TokenizerWithDecoder`, the files may be those of the run that trained the decoder, or of that
    run and of the frozen tokenizer (in any order), which must then be the one that the decoder was trained for.

    Args:
        weights: Weight files, checkpoint folders or run folders. Later files override earlier ones, so that a decoder
            that was trained for a frozen encoder can replace the original decoder.
        sha256: The SHA-256 of each file, in hexadecimal; None accepts any.
        tokenizer: The module to load the weights into; None for the tokenizer that the last file with a config
            describes, which may only name registered classes.
        config: In pages only: the page (`.py`) or `config.json` whose tokenizer it is.
        frozen: The names of the parts to freeze, such as `["encoder", "pre_quant", "quantizer"]` to fine-tune the
            decoder alone; None freezes all of it.
        strict: Whether the files must hold exactly the entries of the tokenizer. If not, a warning lists those that
            are missing, and keep their first values, and those that are ignored.

    Raises:
        ValueError: If the tokenizer has no part of a name in `frozen`.
        CheckpointError: If no weights are given; a file is missing, damaged, of a different tokenizer or with a
            different SHA-256; no file has a config and `tokenizer` is None; or `config` names a page.
    """
    if config is not None:
        raise CheckpointError(
            f"pretrained_tokenizer: this config is data and names the page {config!r}, which would be code; give the "
            f"page (.py) that the run was trained with as CONFIG"
        )
    files = _files(weights, sha256)
    with _opened(files):
        built = tokenizer if tokenizer is not None else build(_described(files), path="tokenizer")
        _load(built, files, pattern="" if strict else ".*")
    if frozen is None:
        return built.eval().requires_grad_(requires_grad=False)
    if not isinstance(built, Tokenizer):
        raise CheckpointError(f"pretrained_tokenizer: expected a tokenizer, got a {type(built).__name__}")
    return built.freeze(frozen)


def _load(built: nn.Module, files: list[Path], *, pattern: str) -> None:
    """Loads the files; those of the frozen tokenizer inside a `TokenizerWithDecoder` are loaded into that part."""
    if not isinstance(built, TokenizerWithDecoder):
        load_weights(built, files, allow_missing=pattern, allow_unexpected=pattern)
        return
    inner, outer = built.tokenizer, set(built.state_dict())
    recorded = {name: tensor.clone() for name, tensor in inner.state_dict().items()}
    only_inner = {name for name in inner.state_dict() if name not in outer}
    of_inner = [file for file in files if not only_inner.isdisjoint(read_names(file))]
    of_outer = [file for file in files if file not in of_inner]
    if of_inner:
        load_weights(inner, of_inner, allow_missing=pattern, allow_unexpected=pattern)
    given = {name: tensor.clone() for name, tensor in inner.state_dict().items()}
    if (
        not built.stores_tokenizer
    ):  # the inner tokenizer was built with the weights that its decoder was trained for
        inner.load_state_dict(recorded)
    if of_outer:
        load_weights(built, of_outer, allow_missing=pattern, allow_unexpected=pattern)
    elif not pattern:
        raise CheckpointError(
            f"{', '.join(map(str, files))}: expected the weights of a tokenizer and of the decoder that was trained "
            f"for it, got none of the decoder; add ir_state_dict::DECODER_RUN to --config-options"
        )
    if not of_inner or not of_outer:
        return
    other = [name for name, tensor in inner.state_dict().items() if not torch.equal(tensor, given[name])]
    if other:
        raise CheckpointError(
            f"{of_outer[-1]}: its decoder was trained for another tokenizer than {of_inner[-1]}: {len(other)} entries "
            f"differ ({', '.join(other[:4])}{', ...' if len(other) > 4 else ''}); give the weights of that tokenizer, "
            f"or those of the decoder alone, which hold it"
        )


def _files(weights: Sequence[str], sha256: Sequence[str] | None) -> list[Path]:
    if not weights or not all(isinstance(path, str) and path for path in weights):
        raise CheckpointError(
            "pretrained_tokenizer: expected the weights of a trained tokenizer, got none; give e.g. "
            "--config-options it_state_dict::work_dirs/NAME, or --load-model-from work_dirs/NAME to train its decoder"
        )
    if sha256 is not None and len(sha256) != len(weights):
        raise CheckpointError(
            f"pretrained_tokenizer: expected a sha256 of each of {len(weights)} weights, got {len(sha256)}"
        )
    files = []
    for i, path in enumerate(weights):
        place = f"give the file's new path with --weights tokenizer.weights[{i}]=PATH"
        try:
            files.append(find_weights(path))
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {place}") from error
        if sha256 is not None and (found := sha256_of(files[-1])) != sha256[i]:
            raise CheckpointError(
                f"{files[-1]}: not the weights that the config refers to: expected SHA-256 {sha256[i]}, got {found}; "
                f"{place}"
            )
    return files


@contextmanager
def _opened(files: Sequence[Path]) -> Iterator[None]:
    """A context that raises for weights whose config names those same weights, directly or through other files."""
    outer, resolved = _OPEN.get(), tuple(file.resolve() for file in files)
    if len(outer) > MAX_FILES or set(outer) & set(resolved):
        raise CheckpointError(
            f"{files[-1]}: names itself as its tokenizer, or {MAX_FILES} files in a row name each other"
        )
    token = _OPEN.set((*outer, *resolved))
    try:
        yield
    finally:
        _OPEN.reset(token)


def _described(files: Sequence[Path]) -> Mapping[str, Any]:
    """The description of the tokenizer in the last file that has one."""
    found = [(file, config) for file in files if (config := read_config(file)) is not None]
    if not found:
        raise CheckpointError(
            f"{', '.join(map(str, files))}: there is no config in these files; name the page too (config=..., "
            f"it_config::PAGE on the command line)"
        )
    file, config = found[-1]
    return self_contained(config_of(config, "tokenizer", file))


def record_weights(value: Any) -> Any:
    """Returns a config in which every part that loads weights from outside the run records their path and SHA-256.

    The description of a trained tokenizer is included, so that only tensors are read from its files later.

    Args:
        value: A config, or a part of one. Parts whose weights are missing are left unchanged; `build` raises for them.
    """
    if isinstance(value, list):
        return [record_weights(child) for child in value]
    if not isinstance(value, Mapping):
        return value
    node = {key: record_weights(child) for key, child in value.items()}
    kind = node.get("type")
    if not isinstance(kind, str) or kind not in WEIGHTS_OF or node.get("sha256") is not None:
        return node
    if kind not in PRETRAINED_TOKENIZER:
        file = _outside_file(node, WEIGHTS_OF[kind])
        return {**node, "sha256": sha256_of(file)} if file is not None else node
    try:
        files = _files(node.get("weights") or [], None)
        described = self_contained(node["tokenizer"]) if node.get("tokenizer") else _described(files)
    except CheckpointError:
        return node
    return {
        **node,
        "weights": [str(file) for file in files],
        "sha256": [sha256_of(file) for file in files],
        "tokenizer": described,
    }


def _outside_file(node: Mapping[str, Any], argument: str) -> Path | None:
    """The weight file that a part other than a tokenizer refers to; None if there is none."""
    given = node.get(argument, known_weights.AS_PUBLISHED)
    if argument != "weights":
        return Path(str(given)) if Path(str(given)).is_file() else None
    return known_weights.located(given, node.get("name")) if isinstance(given, str) else None
