"""Overrides: `.path.to[0].key` names one place of a config, and its value replaces what is there."""

from collections.abc import Mapping
from typing import Any

from vq.config.checking import Tree, valid_keys
from vq.errors import ConfigError
from vq.text import suggest


def assign(tree: Tree, key: str, value: Any) -> None:
    """Sets one place of a config.

    Args:
        tree: Plain data, which is changed.
        key: The place, such as `.path.to[0].key`. It must exist, or be an argument of the class that it belongs to.
        value: What replaces it, whole.

    Raises:
        ConfigError: If there is no such place, with the nearest valid key.
    """
    steps = split_place(key)
    node: Any = tree
    path = ""
    for i, step in enumerate(steps):
        is_last = i == len(steps) - 1
        place = f"{path}[{step}]" if isinstance(step, int) else f"{path}.{step}".lstrip(".")
        if isinstance(step, int):
            if not isinstance(node, list | tuple) or not -len(node) <= step < len(node):
                size = f"a list of {len(node)}" if isinstance(node, list | tuple) else repr(node)
                raise ConfigError(f"override {key}: {place} does not exist; {path} is {size}")
        elif not isinstance(node, Mapping):
            raise ConfigError(f"override {key}: {path} is {node!r}, which has no key {step!r}")
        elif step not in node:
            valid = valid_keys(node, path)
            if not is_last or step not in valid:
                where = path or "the config"
                raise ConfigError(f"override {key}: {where} has no key {step!r}{suggest(step, valid)}")
        if is_last:
            node[step] = value
        else:
            node, path = node[step], place


def split_place(key: str) -> list[str | int]:
    """The keys and indices of a place: `.a[0].b` is `["a", 0, "b"]`.

    Raises:
        ConfigError: If it has no leading dot, or an index is not a number.
    """
    steps: list[str | int] = []
    for part in key.removeprefix(".").split("."):
        name, *indices = part.replace("]", "").split("[")
        try:
            steps += ([name] if name else []) + [int(index) for index in indices]
        except ValueError:
            raise ConfigError(
                f"override {key}: an index must be a number, as in .metrics[0].network"
            ) from None
    if not key.startswith((".", "[")) or not steps:
        raise ConfigError(f"override {key}: expected .path.to[0].key with a leading dot")
    return steps
