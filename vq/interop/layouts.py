"""The files in which other projects publish their weights: how they are written, and how a folder of them is read."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save_file

from vq.files import read_json, usual_mode
from vq.interop.dialect import InteropError, NamedTensors
from vq.interop.dialects.diffusers import check_vq_model, vq_model_config
from vq.pretrained import read_tensors
from vq.text import shown

CONFIG = "config.json"
INDEX = ".index.json"
NAMES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
"""The weight files of diffusers and transformers, the preferred ones first. `NAME.index.json` lists shards of NAME."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the weights of a project are published.

    Attributes:
        ending: The ending of the file; empty for a folder.
        save: Writes the tensors to a path that does not exist.
        options: Returns the options of the dialect with which the tensors of a model are read again.
    """

    ending: str
    save: Callable[[NamedTensors, Path], None]
    options: Callable[[Any], Mapping[str, Any]] = field(default=lambda model: {})


def _pickled(
    key: str, statistics: Mapping[str, int] = MappingProxyType({})
) -> Callable[[NamedTensors, Path], None]:
    """A function that writes a dict with the state dict, and statistics of a given length, under a key."""

    def save(tensors: NamedTensors, path: Path) -> None:
        with path.open("xb") as file:  # given a path, torch.save would store the name of the file in it
            zeros = {name: torch.zeros(length) for name, length in statistics.items()}
            torch.save({key: {**_separate(tensors), **zeros}}, file)

    return save


def _save_vq_model(tensors: NamedTensors, path: Path) -> None:
    """Writes the folder that `VQModel.save_pretrained` of diffusers writes."""
    path.mkdir()
    (path / CONFIG).write_text(f"{json.dumps(vq_model_config(tensors), indent=2, sort_keys=True)}\n")
    save_file(_separate(tensors), path / NAMES[0], metadata={"format": "pt"})
    (path / NAMES[0]).chmod(usual_mode())


def _separate(tensors: NamedTensors) -> dict[str, torch.Tensor]:
    """The tensors, each with memory of its own, so that no file holds more than their values."""
    return {
        name: tensor.clone(memory_format=torch.contiguous_format)
        if not tensor.is_contiguous() or tensor.untyped_storage().nbytes() != tensor.nbytes
        else tensor
        for name, tensor in ((name, tensor.detach().cpu()) for name, tensor in tensors.items())
    }


LAYOUTS: Mapping[str, Layout] = {
    "taming": Layout(ending=".ckpt", save=_pickled("state_dict")),
    "taming_gumbel": Layout(ending=".ckpt", save=_pickled("state_dict")),
    # The module of LlamaGen has a statistic of the last 65536 indices, without which it does not load a state dict.
    "llamagen": Layout(ending=".pt", save=_pickled("model", {"quantize.codebook_used": 65536})),
    "llamagen_gpt": Layout(
        ending=".pt", save=_pickled("model"), options=lambda model: {"image_size": 16 * min(model.grid)}
    ),
    "diffusers": Layout(ending="", save=_save_vq_model),
}
"""The dialects in which weights of this project are published, by name."""


def weights_in(folder: Path) -> Path | None:
    """The weight file in a folder that diffusers or transformers wrote, or the index of its shards; None if neither."""
    names = [candidate for name in NAMES for candidate in (name, f"{name}{INDEX}")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_folder(folder: Path) -> NamedTensors:
    """Reads the tensors of a folder that diffusers or transformers wrote (`save_pretrained`); no code of it runs.

    Args:
        folder: A folder with a weight file, or with shards and their index. If diffusers wrote its `config.json`,
            that must describe a `VQModel` that computes what the tokenizer here does.

    Raises:
        InteropError: If there are no weights, the config is that of another model, the index is damaged, or it and the
            shards do not list the same tensors.
        WeightsFileError: If a weight file is damaged.
    """
    file = weights_in(folder)
    if file is None:
        inside = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise InteropError(
            f"{folder}: expected a weight file, or a folder with one of {', '.join(NAMES)} or their index, got a "
            f"folder that holds {inside}"
        )
    config = _json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if "_class_name" in config:  # the field by which diffusers recognises its models
        check_vq_model(config, folder / CONFIG)
    return _read_shards(file) if file.name.endswith(INDEX) else read_tensors(file)


def _read_shards(index: Path) -> NamedTensors:
    """The tensors of all shards, if they are exactly those that the index lists."""
    listed = _json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise InteropError(
            f"{index}: expected a weight_map from names of tensors to files, got {shown(listed)}"
        )
    for name in listed.values():
        if not isinstance(name, str) or name != Path(name).name or "\\" in name or name in ("", ".", ".."):
            raise InteropError(
                f"{index}: expected names of files in this folder, got {shown(name)}; files elsewhere are not read"
            )
    files = sorted(set(listed.values()))
    if missing := [name for name in files if not (index.parent / name).is_file()]:
        raise InteropError(
            f"{index}: expected its {len(files)} shards beside it, but {len(missing)} are missing "
            f"({', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}); download them"
        )
    tensors: dict[str, torch.Tensor] = {}
    for name in files:
        shard = read_tensors(index.parent / name)
        expected = {tensor for tensor, file in listed.items() if file == name}
        if different := sorted(expected ^ shard.keys()):
            raise InteropError(
                f"{index.parent / name}: expected the {len(expected)} tensors that {index.name} lists, got "
                f"{len(shard)}, which differ in {', '.join(map(shown, different[:4]))}"
                f"{', ...' if len(different) > 4 else ''}; download it again"
            )
        tensors |= shard
    return tensors


def _json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise InteropError(f"{path}: damaged: {error}") from error
    if not isinstance(content, dict):
        raise InteropError(f"{path}: expected an object, got {shown(content)}")
    return content
