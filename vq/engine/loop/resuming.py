"""What a resumed training may change: differences from its checkpoint are applied and logged, or refused.

The present config and command line are applied, and each difference from the checkpoint is logged. The weights, the
moments of the optimizers and the step come from the checkpoint. Changes that would make these meaningless are refused:
another architecture, another kind of step or optimizer, another frozen tokenizer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vq.config import OVER_TOKENIZER
from vq.errors import UserError
from vq.files import read_json, sha256_of

ARGUMENTS = "arguments.json"
"""The file in a checkpoint with what the command line decides and the config does not contain, such as the seed."""
SKIPPED = "skipped_batches"
"""The argument that lists the batches that no step takes, because their values were not finite."""
MISSING = "not set"
NETWORK_FREE = ("regularisers", "estimator", "revival", "init")
"""Parts of a quantizer that change how codes are learned, but not what the weights mean."""


class ResumeError(UserError, ValueError):
    """A run cannot be continued with this config; the message lists the differences that are refused."""


@dataclass(frozen=True, slots=True)
class Change:
    """A value that differs from the checkpoint.

    Attributes:
        key: The place, as in `--override`, without the leading dot.
        old: The value in the checkpoint; `MISSING` if it had none.
        new: The present value.
    """

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"


def changes_between(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """All values that differ, in the order of `new`.

    The short and the full name of a class are equal, and so are an integer and a float of the same value.

    Example:
        >>> [str(c) for c in changes_between({"lr": 1, "betas": [0.9, 0.99]}, {"lr": 1.0, "betas": [0.5, 0.6]})]
        ['betas: [0.9, 0.99] -> [0.5, 0.6]']
    """
    before, after = dict(_leaves(old, "")), dict(_leaves(new, ""))
    keys = [*after, *(key for key in before if key not in after)]
    pairs = [(key, before.get(key, MISSING), after.get(key, MISSING)) for key in keys]
    return [Change(key, a, b) for key, a, b in pairs if _plain(key, a) != _plain(key, b)]


def accepted_changes(
    checkpoint: Path, config: Mapping[str, Any], arguments: Mapping[str, Any]
) -> list[Change]:
    """The differences from the checkpoint that will be applied; writes nothing.

    Args:
        checkpoint: `.../iter_N`, with the `config.json` that it was trained with.
        config: The present config as plain data.
        arguments: The present values of the command line, such as `{"seed": 3407}`; only those that the checkpoint has
            are compared.

    Raises:
        ResumeError: If a difference makes the checkpoint's weights or moments meaningless; all such keys are listed.
    """
    old = _read(checkpoint / "config.json")
    changes = changes_between(old, config)
    refused = [change for change in changes if _is_refused(change, old, config)]
    if refused:
        listed = "".join(f"\n  {change}" for change in refused)
        raise ResumeError(
            f"{checkpoint}: its training cannot be continued with this config, in which these differ:{listed}\n"
            f"Set them back (its config is {checkpoint / 'config.json'}), or start a new run from its weights: another "
            f"NAME and --load-model-from {checkpoint}"
        )
    recorded = recorded_arguments(checkpoint)
    now = {name: value for name, value in arguments.items() if name in recorded}
    return changes + changes_between({name: recorded[name] for name in now}, now)


def recorded_arguments(checkpoint: Path) -> dict[str, Any]:
    """The values of the command line that wrote the checkpoint; empty for checkpoints of version 0.1."""
    file = checkpoint / ARGUMENTS
    return _read(file) if file.is_file() else {}


def _read(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise ResumeError(f"{file}: cannot be read: {error}; the checkpoint is damaged") from error
    if not isinstance(content, dict):
        raise ResumeError(
            f"{file}: expected a JSON object, got {type(content).__name__}; the checkpoint is damaged"
        )
    return content


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, child in node.items():
            yield from _leaves(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list | tuple) and any(isinstance(child, Mapping | list | tuple) for child in node):
        for i, child in enumerate(node):
            yield from _leaves(child, f"{path}[{i}]")
    else:
        yield path, node


def _plain(key: str, value: Any) -> Any:
    """The form in which values are compared: lists for tuples, short names of classes; True does not equal 1."""
    if _last(key) == "type" and isinstance(value, str):
        return value.rpartition(".")[2]
    if isinstance(value, list | tuple):
        return [_plain("", child) for child in value]
    return (bool, value) if isinstance(value, bool) else value


def _is_refused(change: Change, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    section, _, rest = change.key.partition(".")
    names = [name.partition("[")[0] for name in rest.split(".")]
    if section in OVER_TOKENIZER:
        return _is_architecture(change, names)
    if section == "tokenizer" and any(name in config for name in OVER_TOKENIZER for config in (old, new)):
        return not _is_same_file(change)
    if section == "tokenizer":
        return _is_architecture(change, names)
    if section != "train_step":
        return False
    if "discriminator" in names:
        return _is_architecture(change, names)
    kinds = ("", "step", "optimizer")  # the step itself, a step inside it, what moves the parameters
    return names[-1] == "type" and (names[-2] if len(names) > 1 else "") in kinds


def _is_architecture(change: Change, names: list[str]) -> bool:
    """Whether a value of a model decides what its weights mean; a real number, such as a decay or a weight, does not.

    A value that is not set is the default of its class, and therefore of the same kind as the other value.
    """
    if any(name in NETWORK_FREE for name in names):
        return False
    values = [value for value in (change.old, change.new) if value != MISSING]
    are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return not (are_numbers and any(isinstance(value, float) for value in values))


def _is_same_file(change: Change) -> bool:
    """Whether both values are paths of files with equal content, or the old file no longer exists."""
    if _last(change.key) not in ("weights", "config") or MISSING in (change.old, change.new):
        return False
    old, new = ([v] if isinstance(v, str) else v for v in (change.old, change.new))
    if not (isinstance(old, list) and isinstance(new, list) and len(old) == len(new)):
        return False
    pairs = [(Path(str(a)), Path(str(b))) for a, b in zip(old, new, strict=True)]
    return all(
        a == b or not a.exists() or (a.is_file() and b.is_file() and sha256_of(a) == sha256_of(b))
        for a, b in pairs
    )


def _last(key: str) -> str:
    return key.rpartition(".")[2].partition("[")[0]


def _shown(value: Any) -> str:
    text = value if value == MISSING else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
