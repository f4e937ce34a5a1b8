"""Sizes of a generator, which a page may leave to its tokenizer and its training data."""

from collections.abc import Mapping
from typing import Any

from vq import signatures
from vq.config.checking import Tree

SIZES = ("vocabulary_size", "num_classes", "grid")
"""The arguments of a generator that may be left open. `vq.generators.vocabulary` fills them in."""


def without_open_sizes(config: Mapping[str, Any]) -> Tree:
    """A copy of a config in which a generator's sizes that are None are left out, which means the same."""
    tree, node = dict(config), config.get("generator")
    if isinstance(node, Mapping):
        tree["generator"] = {
            key: value for key, value in node.items() if key not in SIZES or value is not None
        }
    return tree


def open_sizes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the sizes that the generator of a config needs and is not given."""
    node = config.get("generator")
    if not isinstance(node, Mapping):
        return ()
    kind = str(node.get("type"))
    found = signatures.signature(kind if "." in kind else f"vq.generators.{kind}")
    return () if found is None else tuple(key for key in SIZES if key in found.required and key not in node)
