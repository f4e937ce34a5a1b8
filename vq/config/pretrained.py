"""Parts of a config that take weights from outside the run: which those are, and the pages they name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vq.config.checking import Tree, nodes, plain, trained_section
from vq.config.overrides import split_place
from vq.errors import ConfigError
from vq.text import shown, suggest

PRETRAINED_TOKENIZER = ("vq.tokenizers.pretrained_tokenizer", "vq.tokenizers.pretrained.pretrained_tokenizer")
"""The full names of the function whose `config` may be a page."""


def _names_of_teachers(name: str, module: str) -> tuple[str, ...]:
    """The full names of a class of `vq.networks.teachers`."""
    return tuple(f"vq.networks.{inside}{name}" for inside in ("", "teachers.", f"teachers.{module}."))


WEIGHTS_OF: dict[str, str] = {
    **dict.fromkeys(PRETRAINED_TOKENIZER, "weights"),
    "vq.quantizers.FileInit": "path",
    "vq.quantizers.parts.initialization.FileInit": "path",
    "vq.quantizers.initialization.FileInit": "path",
    "vq.networks.TimmViTFeatures": "weights",
    "vq.networks.frozen.timm_vit.TimmViTFeatures": "weights",
    "vq.networks.timm_vit.TimmViTFeatures": "weights",
    **dict.fromkeys(_names_of_teachers("TimmTeacher", "timm"), "weights"),
    **dict.fromkeys(_names_of_teachers("TimmEncoder", "encoder"), "weights"),
}
"""What refers to weights outside a run, and in which argument; `sha256` beside it says which weights are meant.

Each class has its present names, and the one that stored configs of version 0.1 may have.
"""


STARTS_FROM_WEIGHTS = _names_of_teachers("TimmEncoder", "encoder")
"""What takes weights from outside a run as a start, and keeps those that it has after training in a checkpoint."""


def without_first_weights(value: Any) -> Any:
    """A config whose parts start from random weights, for parts whose weights are then loaded from a checkpoint.

    Args:
        value: Plain data.
    """
    if isinstance(value, list):
        return [without_first_weights(child) for child in value]
    if not isinstance(value, Mapping):
        return value
    node = {key: without_first_weights(child) for key, child in value.items()}
    return {**node, "weights": None, "sha256": None} if node.get("type") in STARTS_FROM_WEIGHTS else node


def refers_to_weights(config: Mapping[str, Any]) -> bool:
    """Whether any part of a config takes weights from outside the run."""
    return any(_argument(node) is not None for node in nodes(config))


def with_weights(config: Mapping[str, Any], moved: Mapping[str, str]) -> Tree:
    """A copy of a config in which some weights have another path; a `sha256` beside the path still holds.

    Args:
        config: Plain data.
        moved: Place -> path. The place is a part that takes weights, such as `tokenizer`, or one of several,
            such as `tokenizer.weights[1]`.

    Raises:
        ConfigError: If no weights belong to a place.
    """
    tree: Tree = plain(config, "")
    for key, path in moved.items():
        _set_weights(tree, key, str(path))
    return tree


def with_frozen_weights(config: Mapping[str, Any], files: Sequence[str], *, is_strict: bool = True) -> Tree:
    """A copy of a config in which a pretrained tokenizer without weights gets some.

    It is the section `tokenizer` of a page that trains a tokenizer, or a part of it: the frozen tokenizer for which a
    decoder is trained. A page that trains a model over a tokenizer is left as it is, because the files may be the
    model's.

    Args:
        config: Plain data.
        files: Weight files; none changes nothing.
        is_strict: Whether the files must hold exactly the entries of the tokenizer.
    """
    tree: Tree = plain(config, "")
    for node in nodes(tree.get("tokenizer")) if files and trained_section(tree) == "tokenizer" else ():
        if node["type"] in PRETRAINED_TOKENIZER and not node.get("weights"):
            assert isinstance(node, dict)  # a copy, made by `plain`
            node["weights"] = list(files)
            if not is_strict:
                node["strict"] = False
            break
    return tree


def with_pages_written_out(value: Any, tokenizer_of: Callable[[str], Any], place: str = "") -> Any:
    """The value with a tokenizer's node in place of each page that `pretrained_tokenizer(config=PAGE)` names.

    Args:
        value: Plain data.
        tokenizer_of: Gives the section `tokenizer` of a page.
        place: Where the value is in its config.

    Raises:
        ConfigError: If a page cannot be used, or the tokenizer is given twice.
    """
    if isinstance(value, list):
        return [with_pages_written_out(v, tokenizer_of, f"{place}[{i}]") for i, v in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    node = {
        key: with_pages_written_out(child, tokenizer_of, f"{place}.{key}".lstrip("."))
        for key, child in value.items()
    }
    if node.get("type") in PRETRAINED_TOKENIZER and "config" in node:
        page = node.pop("config")
        if page is not None and node.get("tokenizer") is not None:
            raise ConfigError(f"{place}: config and tokenizer say the same; give one of them")
        if page is not None and not isinstance(page, str):
            raise ConfigError(f"{place}.config: expected the path of a page, got {shown(page)}")
        if page is not None:
            node["tokenizer"] = tokenizer_of(page)
    return node


def _argument(node: Any) -> str | None:
    """The argument of a node that names weights, if it has one."""
    kind = node.get("type") if isinstance(node, Mapping) else None
    return WEIGHTS_OF.get(kind) if isinstance(kind, str) else None


def _set_weights(tree: Tree, key: str, path: str) -> None:
    node: Any = tree
    holder: Any = None
    steps = split_place(f".{key.removeprefix('.')}")
    for i, step in enumerate(steps):
        inside = (
            node if isinstance(node, Mapping) else dict(enumerate(node)) if isinstance(node, list) else {}
        )
        if (argument := _argument(node)) is not None:
            holder = (argument, i)
        if step not in inside:
            hint = suggest(str(step), map(str, inside))
            raise ConfigError(f"--weights {key}: the config has no such place{hint}")
        parent, node = node, inside[step]
    if (argument := _argument(node)) is not None:
        parent, steps = node, [argument]
        node = parent.get(argument)
    elif holder is None or steps[holder[1]] != holder[0]:
        raise ConfigError(f"--weights {key}: expected a part that takes weights, or its weights")
    if isinstance(node, list) and len(node) != 1:
        raise ConfigError(
            f"--weights {key}: expected one of {len(node)} weights, such as {key}.{steps[-1]}[0]"
        )
    if isinstance(node, list):
        node[0] = path
    else:
        parent[steps[-1]] = path
