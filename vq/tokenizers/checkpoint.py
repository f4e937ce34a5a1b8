"""Weight files that describe themselves: safetensors with the resolved config and a checksum as metadata.

A weight file is data: it is read without pickle, and the config inside may name only classes of
this project's registries, so loading one executes none of its content.
"""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vq.config import PRETRAINED_TOKENIZER, check, parse_json, with_weights, without_first_weights
from vq.errors import ConfigError, UserError
from vq.files import usual_mode
from vq.pretrained import WeightsFileError, digest, is_safetensors, read_tensors
from vq.registry import build
from vq.text import printable, shown
from vq.tokenizers.base import Tokenizer
from vq.tokenizers.manifest import MANIFEST, ManifestError, read_manifest, verify, verify_file

FORMAT = "vq-2"
"""The format of files that are written now. Files of format vq-1 have no checksum; they are still read."""
WEIGHTS = "model.safetensors"
EMA_WEIGHTS = "model_ema.safetensors"
MAX_NUMBER = 2**24
"""The largest whole number in the config of a weight file, such as a codebook's size."""
logger = logging.getLogger(__name__)
_KINDS = {"model.pth": WEIGHTS, "model.pt": WEIGHTS, "model_ema.pth": EMA_WEIGHTS}


class CheckpointError(UserError, ValueError):
    """Weights that cannot be used: missing, damaged, or of a different architecture."""


def save_weights(state: Mapping[str, Shaped[Tensor, "..."]], path: Path, config: Mapping[str, Any]) -> None:
    """Writes weights, their config, and a checksum of both. Equal content gives equal bytes.

    Args:
        state: A `state_dict`.
        path: The file to write, which usually ends in `.safetensors`.
        config: The resolved config as plain data; `config["tokenizer"]` rebuilds the module.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    text = json.dumps(config)
    metadata = {"format": FORMAT, "config": text, "sha256": _content_sha256(text, tensors)}
    save_file(tensors, path, metadata=metadata)
    path.chmod(usual_mode())
    _sort_metadata(path)


def _content_sha256(config: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{FORMAT}\n{config}\n{digest(tensors)}".encode()).hexdigest()


def _sort_metadata(path: Path) -> None:
    """Sorts the metadata in the header of a safetensors file, whose order safetensors leaves undefined."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        metadata = dict(sorted(header.pop("__metadata__").items()))
        text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":"), ensure_ascii=False)
        file.seek(8)
        file.write(text.encode().ljust(size))


def find_weights(path: str | Path) -> Path:
    """Finds the weight file that a path refers to, and verifies it if there is a manifest beside it.

    Args:
        path: A weight file, a checkpoint folder (`.../iter_100`), or a run folder. In a run folder, the newest valid
            checkpoint is used, and each newer one that is damaged is logged. Averaged (EMA) weights are preferred.
            `model.pth`, the file's name in other frameworks, is accepted for `model.safetensors`.

    Raises:
        CheckpointError: If there are no weights (the message lists what is there instead), or they are damaged.
    """
    if str(path).startswith("zoo:"):
        from vq.tokenizers.published import converted

        return converted(str(path))
    if str(path).startswith("hf:/"):  # a Path drops the second slash
        from vq.tokenizers.hub import pull

        return pull(str(path).replace("hf:/", "hf://").replace("hf:///", "hf://"))
    path = Path(path)
    if not path.is_file() and path.name in _KINDS:
        path = path.parent / _KINDS[path.name] if (path.parent / _KINDS[path.name]).is_file() else path
    if path.is_file():
        if problem := verify_file(path):
            raise CheckpointError(f"{path}: damaged: {problem}")
        return path
    if path.is_dir():
        return _in_folder(path)
    raise CheckpointError(f"{path}: there is no such file or folder{_near(path)}")


def _near(path: Path) -> str:
    """The end of an error message: the run that a name without `work_dirs` may mean, or what is beside the path."""
    if not path.is_absolute() and ("work_dirs" / path).is_dir():
        return f"; did you mean {'work_dirs' / path}?"
    near = sorted(str(p) for p in path.parent.glob("*"))[:8] if path.parent.is_dir() else []
    return f"; there are {', '.join(near)}" if near else ""


def _in_folder(path: Path) -> Path:
    if any((path / name).exists() for name in (MANIFEST, EMA_WEIGHTS, WEIGHTS)):
        return _in_checkpoint(path)
    there = checkpoints_in(path / "checkpoints")
    if not there:
        inside = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise CheckpointError(f"{path}: expected a checkpoint or a run folder with one; it holds {inside}")
    is_described = any((checkpoint / MANIFEST).exists() for checkpoint in there)
    problems = []
    for checkpoint in there:
        try:
            if is_described and not (checkpoint / MANIFEST).exists():
                raise CheckpointError(f"{checkpoint}: damaged: {MANIFEST} is missing")
            found = _in_checkpoint(checkpoint)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            logger.warning("%s; taking %s", problem, checkpoint.name)
        return found
    raise CheckpointError(f"{path}: every checkpoint is damaged: {'; '.join(problems)}")


def _in_checkpoint(checkpoint: Path) -> Path:
    """The averaged weights of a checkpoint folder, or else its weights, verified against the manifest."""
    if not (checkpoint / MANIFEST).exists():
        files = [checkpoint / name for name in (EMA_WEIGHTS, WEIGHTS) if (checkpoint / name).is_file()]
        if not files:
            raise CheckpointError(f"{checkpoint}: expected {WEIGHTS} in this checkpoint folder, got none")
        return _saying_what_is_missing(files[0])
    try:
        listed = read_manifest(checkpoint)
    except (FileNotFoundError, ManifestError) as error:
        raise CheckpointError(f"{checkpoint}: damaged: {error}") from error
    name = EMA_WEIGHTS if EMA_WEIGHTS in listed else WEIGHTS
    if problem := verify(checkpoint, [name]):
        raise CheckpointError(f"{checkpoint}: damaged: {problem}")
    return _saying_what_is_missing(checkpoint / name)


def _saying_what_is_missing(file: Path) -> Path:
    step = (read_config(file) or {}).get("train_step") if file.name == WEIGHTS else None
    if isinstance(step, Mapping) and step.get("weight_ema") is not None:
        logger.warning(
            "%s: the run averaged its weights, but %s is missing; using the weights without averaging",
            file, EMA_WEIGHTS,
        )  # fmt: skip
    return file


def checkpoints_in(directory: Path) -> list[Path]:
    """The checkpoint folders `iter_N` of a run, newest first; unfinished ones are named differently."""
    found = [p for p in directory.glob("iter_*") if p.is_dir() and re.fullmatch(r"iter_\d+", p.name)]
    return sorted(found, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The optimizer step in a checkpoint folder's name."""
    return int(checkpoint.name.removeprefix("iter_"))


def read_weights(path: Path) -> tuple[dict[str, Shaped[Tensor, "..."]], dict[str, Any] | None]:
    """Reads the tensors of a weight file and its config, if it has one, and verifies the file's checksum of both.

    Raises:
        CheckpointError: If the file is damaged or is not a weight file.
    """
    _check_is_file(path)
    if not is_safetensors(path):
        return _read_pickled(path), None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors and torch raise many types, all with the same meaning for a user
        raise CheckpointError(f"{path}: damaged, or not a safetensors file: {error}") from error
    if _is_own(path, metadata) and _content_sha256(metadata["config"], tensors) != metadata["sha256"]:
        raise CheckpointError(
            f"{path}: damaged: the checksum of its tensors and its config does not match the recorded one"
        )
    return tensors, _parsed(path, metadata.get("config"))


def _is_own(path: Path, metadata: Mapping[str, str]) -> bool:
    """Whether this project wrote the file with a checksum. Older files and those of other projects have none."""
    is_own = metadata.get("format") == FORMAT
    if is_own != {"config", "sha256"}.issubset(metadata) or (is_own and len(metadata) != 3):
        keys = ", ".join(printable(key) for key in sorted(metadata))
        raise CheckpointError(
            f"{path}: damaged: expected the metadata format, config and sha256, got {keys[:200]}"
        )
    return is_own


def read_names(path: Path) -> list[str]:
    """The names of the tensors in a weight file.

    Raises:
        CheckpointError: If the file is damaged or is not a weight file.
    """
    _check_is_file(path)
    if not is_safetensors(path):
        return list(_read_pickled(path))
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except Exception as error:
        raise CheckpointError(f"{path}: damaged, or not a safetensors file: {error}") from error


def read_config(path: Path) -> dict[str, Any] | None:
    """Reads the config in a weight file, without reading its tensors; None if there is none.

    Raises:
        CheckpointError: If the file is damaged.
    """
    _check_is_file(path)
    if not is_safetensors(path):
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except Exception as error:
        raise CheckpointError(f"{path}: damaged, or not a safetensors file: {error}") from error
    _is_own(path, metadata)
    return _parsed(path, metadata.get("config"))


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: expected a weight file, got {'a folder' if path.is_dir() else 'none'}"
        )


def _parsed(path: Path, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        config = parse_json(text, "its config")
    except ConfigError as error:
        raise CheckpointError(f"{path}: damaged: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: damaged: expected a config with sections, got {shown(config)}")
    return config


def config_of(
    config: Mapping[str, Any] | None, name: str, file: Path, weights: Mapping[str, str | Path] | None = None
) -> Mapping[str, Any]:
    """Returns a section of the config in a weight file, checked against the classes that it names.

    Args:
        config: The config, from `read_config`.
        name: The name of the section.
        file: The weight file, for error messages.
        weights: New paths of weights that the section refers to and that have moved: key in the config -> path.

    Raises:
        CheckpointError: If there is no such section.
        ConfigError: If the section does not describe a part.
    """
    node = (config or {}).get(name)
    if node is None:
        raise CheckpointError(f"{file}: expected a config with a section {name!r}, got none")
    try:
        check({name: node})
        _check_numbers(node, name)
        if weights:
            node = with_weights({name: node}, {key: str(path) for key, path in weights.items()})[name]
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return node


def _check_numbers(value: Any, path: str) -> None:
    """Raises for a number that no real network has: building it would exhaust the memory or never end."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            _check_numbers(child, f"{path}.{key}")
    elif isinstance(value, list):
        for i, child in enumerate(value):
            _check_numbers(child, f"{path}[{i}]")
    elif isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise ConfigError(f"{path}: expected at most {MAX_NUMBER:,}, got {shown(value)}")


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)
    except WeightsFileError as error:
        raise CheckpointError(str(error)) from error


def load_weights(
    module: nn.Module, paths: list[Path], *, allow_missing: str = "", allow_unexpected: str = ""
) -> dict[str, Any] | None:
    """Loads weight files into a module in place; later files override earlier ones.

    Args:
        module: The module.
        paths: Weight files.
        allow_missing: A regular expression for whole names of entries that the files may lack.
        allow_unexpected: A regular expression for whole names of entries that the module may lack.

    Returns:
        The config of the last file that has one.

    Raises:
        CheckpointError: If entries are missing, unexpected or of a different shape or type; all are listed.
    """
    state: dict[str, Tensor] = {}
    config = None
    for path in paths:
        tensors, found = read_weights(path)
        state |= tensors
        config = found or config
    own = module.state_dict()
    may_miss, may_remain = _pattern(allow_missing, "missing"), _pattern(allow_unexpected, "unexpected")
    problems = _mismatches(
        state,
        own,
        missing=[n for n in own if n not in state and not may_miss.fullmatch(n)],
        unexpected=[n for n in state if n not in own and not may_remain.fullmatch(n)],
    )
    if problems:
        raise CheckpointError(
            f"{', '.join(str(p) for p in paths)}: not the weights of this model: {'; '.join(problems)}. "
            f"Use the config that the checkpoint was trained with (config.json beside it), or allow names "
            f"with --allow-missing / --allow-unexpected"
        )
    _say_what_is_left(paths, state, own)
    module.load_state_dict({n: t for n, t in state.items() if n in own}, strict=False)
    return config


def _say_what_is_left(paths: list[Path], state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Logs the entries that files and model do not share, which the caller allowed.

    Raises:
        CheckpointError: If they share none.
    """
    place = ", ".join(str(path) for path in paths)
    if own and not any(name in own for name in state):
        raise CheckpointError(
            f"{place}: not the weights of this model: expected at least one of its {len(own)} entries "
            f"({', '.join(list(own)[:3])}, ...), got {', '.join(list(state)[:3]) or 'none'}, ..."
        )
    for what, names in (
        ("are missing and keep their first values", [name for name in own if name not in state]),
        ("have no place in the model and are ignored", [name for name in state if name not in own]),
    ):
        if names:
            logger.warning("%s: %d entries %s, as allowed: %s", place, len(names), what, _listed(names))


def _listed(names: list[str]) -> str:
    """Names in one line: each of a few, or how many each part has of many."""
    if len(names) <= 8:
        return ", ".join(map(printable, names))
    parts = Counter(name.partition(".")[0] for name in names)
    return ", ".join(f"{printable(part)}.* ({count})" for part, count in parts.items())


def _mismatches(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, missing: list[str], unexpected: list[str]
) -> list[str]:
    """How the entries of weight files differ from those of a model, one text for each kind of difference."""
    shapes = [
        f"{n}: the file has {tuple(state[n].shape)}, the model {tuple(own[n].shape)}"
        for n in own
        if n in state and state[n].shape != own[n].shape
    ]
    types = [f"{n}: {state[n].dtype}" for n in own if n in state and not _may_become(state[n], own[n])]
    differences = {
        "missing": missing,
        "unexpected": unexpected,
        "of a different shape": shapes,
        "of a type whose conversion would lose values": types,
    }
    return [
        f"{len(names)} {what} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        for what, names in differences.items()
        if names
    ]


def _pattern(text: str, kind: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise CheckpointError(
            f"--allow-{kind} {text!r}: not a regular expression: {error}; write .* for any characters"
        ) from None


def _may_become(given: Tensor, own: Tensor) -> bool:
    """Whether copying keeps the values, that is, drops neither fractions nor imaginary parts."""
    if given.layout != torch.strided or given.is_quantized:
        return False
    return (own.is_complex() or not given.is_complex()) and (
        own.is_complex() or own.is_floating_point() or not given.is_floating_point()
    )


def load_tokenizer(
    path: str | Path, *, device: str | torch.device = "cpu", weights: Mapping[str, str | Path] | None = None
) -> Tokenizer:
    """Loads the tokenizer of a run folder, checkpoint folder or weight file, in eval mode.

    Args:
        path: A run folder, a checkpoint folder or a weight file.
        device: The device to put the tokenizer on.
        weights: New paths of weights that the config refers to and that have moved: key in the config -> path.

    Raises:
        CheckpointError: If there are no weights, they are damaged, or they have no config.
        ConfigError: If the config names something that is not a registered class of this project.
    """
    file = find_weights(path)
    _, config = read_weights(file)
    if config is None:
        raise CheckpointError(
            f"{file}: has no config; build the tokenizer and use --load-model-from instead. Weights of other projects "
            f"are converted by tools/convert_checkpoints.py"
        )
    node = config_of(config, "tokenizer", file, weights)
    tokenizer = build_from(file, node if weights else self_contained(node), "tokenizer")
    if not isinstance(tokenizer, Tokenizer):
        raise CheckpointError(f"{file}: expected a tokenizer, got a {type(tokenizer).__name__}")
    load_weights(tokenizer, [file])
    tokenizer.config = config
    return tokenizer.to(device).eval()


def self_contained(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A tokenizer's description without references to other weight files whose tensors its own file holds too.

    Args:
        node: The section `tokenizer` of a config. Each `pretrained_tokenizer` in it becomes the tokenizer that it
            describes, except in a part whose weights the file leaves out (`stores_tokenizer=False`). An encoder that
            training started from a teacher's weights starts from random ones.
    """
    inner = node.get("tokenizer")
    own: dict[str, Any] = without_first_weights({k: v for k, v in node.items() if k != "tokenizer"})
    if inner is None:
        return own
    if not isinstance(inner, Mapping) or node.get("stores_tokenizer") is False:
        return {**own, "tokenizer": inner}
    if node["type"] in PRETRAINED_TOKENIZER:
        return self_contained(inner)
    return {**own, "tokenizer": self_contained(inner)}


def build_from(
    file: Path, node: Mapping[str, Any], name: str, shared: Mapping[str, Any] | None = None
) -> nn.Module:
    """Builds the module that section `name` of a weight file's config describes.

    Args:
        file: The weight file, for error messages.
        node: The section.
        name: Its name.
        shared: Values that exist only at run time, as in `build`.

    Raises:
        ConfigError: If it cannot be built; the message begins with the name of the file.
    """
    try:
        module = build(node, path=name, shared=shared)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{file}: {name}: expected a module, got a {type(module).__name__}")
    return module
