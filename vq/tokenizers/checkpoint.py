"""Weight files that describe themselves: safetensors with the resolved config as metadata.

A weight file is data: it is read without pickle, and the config inside may name only classes of
this project's registries, so loading one executes none of its content.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vq.errors import UserError
from vq.registry import build

FORMAT = "vq-1"
WEIGHTS = "model.safetensors"
EMA_WEIGHTS = "model_ema.safetensors"
_KINDS = {"model.pth": WEIGHTS, "model.pt": WEIGHTS, "model_ema.pth": EMA_WEIGHTS}


class CheckpointError(UserError, ValueError):
    """Weights that cannot be used: missing, damaged, or of another architecture."""


def save_weights(state: Mapping[str, Tensor], path: Path, config: Mapping[str, Any]) -> None:
    """Writes weights and the config they belong to.

    Args:
        state: A `state_dict`.
        path: Ends in `.safetensors`.
        config: The resolved config as plain data; `config["tokenizer"]` rebuilds the module.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    save_file(tensors, path, metadata={"format": FORMAT, "config": json.dumps(config)})


def find_weights(path: str | Path) -> Path:
    """The weight file that a user's path means.

    Args:
        path: A weight file, a checkpoint folder (`.../iter_100`), or a run folder (its newest valid
            checkpoint). `model.pth` is accepted for `model.safetensors`, the name that other
            frameworks give the file.

    Raises:
        CheckpointError: If there is none; the message lists what is there.
    """
    path = Path(path)
    if path.is_file():
        return path
    if path.name in _KINDS and (path.parent / _KINDS[path.name]).is_file():
        return path.parent / _KINDS[path.name]
    if path.is_dir():
        for name in (EMA_WEIGHTS, WEIGHTS):
            if (path / name).is_file():
                return path / name
        for checkpoint in checkpoints_in(path / "checkpoints"):
            return find_weights(checkpoint)
        inside = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise CheckpointError(f"{path}: expected a checkpoint or a run folder with one; it holds {inside}")
    near = sorted(str(p) for p in path.parent.glob("*"))[:8] if path.parent.is_dir() else []
    raise CheckpointError(
        f"{path}: there is no such file or folder" + (f"; there are {', '.join(near)}" if near else "")
    )


def checkpoints_in(directory: Path) -> list[Path]:
    """The checkpoint folders `iter_N` of a run, newest first; unfinished ones have other names."""
    found = [p for p in directory.glob("iter_*") if p.is_dir() and re.fullmatch(r"iter_\d+", p.name)]
    return sorted(found, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The optimizer step in a checkpoint folder's name."""
    return int(checkpoint.name.removeprefix("iter_"))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The tensors of a weight file, and its config if it carries one.

    Raises:
        CheckpointError: If the file is damaged or is no weight file.
    """
    if path.suffix != ".safetensors":
        return _read_pickled(path), None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged, or not a safetensors file: {error}") from error
    config = json.loads(metadata["config"]) if "config" in metadata else None
    return tensors, config


def read_config(path: Path) -> dict[str, Any] | None:
    """The config that a weight file carries, without reading its tensors; None if it carries none.

    Raises:
        CheckpointError: If the file is damaged.
    """
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("config")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged, or not a safetensors file: {error}") from error
    config: dict[str, Any] | None = json.loads(text) if text else None
    return config


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; all mean the same to a user
        raise CheckpointError(
            f"{path}: not a safetensors file, and torch refuses it as plain tensors: {error}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path}: expected names and tensors, got {type(content).__name__}")
    return dict(content)


def load_weights(
    module: nn.Module, paths: list[Path], *, allow_missing: str = "", allow_unexpected: str = ""
) -> dict[str, Any] | None:
    """Loads weight files into a module, later files over earlier ones.

    Args:
        module: Changed in place.
        paths: Weight files.
        allow_missing: Pattern (whole name) of entries that the files may lack.
        allow_unexpected: Pattern (whole name) of entries that the module may lack.

    Returns:
        The config of the last file that carries one.

    Raises:
        CheckpointError: If an entry is missing, unexpected or of another shape; all are listed.
    """
    state: dict[str, Tensor] = {}
    config = None
    for path in paths:
        tensors, found = read_weights(path)
        state |= tensors
        config = found or config
    own = module.state_dict()
    missing = [n for n in own if n not in state and not re.fullmatch(allow_missing, n)]
    unexpected = [n for n in state if n not in own and not re.fullmatch(allow_unexpected, n)]
    shapes = [
        f"{n}: the file has {tuple(state[n].shape)}, the model {tuple(own[n].shape)}"
        for n in own
        if n in state and state[n].shape != own[n].shape
    ]
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{', '.join(str(p) for p in paths)}: not the weights of this model: {'; '.join(problems)}. "
            f"Use the config that the checkpoint was trained with (config.json beside it), or allow names "
            f"with --allow-missing / --allow-unexpected"
        )
    module.load_state_dict({n: t for n, t in state.items() if n in own}, strict=False)
    return config


def load_tokenizer(path: str | Path, *, device: str | torch.device = "cpu") -> nn.Module:
    """The tokenizer in a run folder, checkpoint folder or weight file, ready to use (eval mode).

    Raises:
        CheckpointError: If there is none, it is damaged, or it does not say what it is.
        ConfigError: If its config names something that is not a class of this project.
    """
    file = find_weights(path)
    _, config = read_weights(file)
    if config is None:
        raise CheckpointError(
            f"{file}: carries no config; build the tokenizer and use --load-model-from instead"
        )
    tokenizer: nn.Module = build(config["tokenizer"], path="tokenizer", registered_only=True)
    load_weights(tokenizer, [file])
    return tokenizer.to(device).eval()


def fsync(path: Path) -> None:
    """Makes the operating system write a file's or folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
