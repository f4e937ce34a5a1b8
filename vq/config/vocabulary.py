"""A generator's number of codes, which a page may leave to its tokenizer."""

from collections.abc import Mapping
from typing import Any

from vq import signatures
from vq.config.checking import Tree

KEY = "vocabulary_size"


def without_open_vocabulary(config: Mapping[str, Any]) -> Tree:
    """A copy of a config in which a generator's `vocabulary_size=None` is left out, which means the same."""
    tree, node = dict(config), config.get("generator")
    if isinstance(node, Mapping) and KEY in node and node[KEY] is None:
        tree["generator"] = {key: value for key, value in node.items() if key != KEY}
    return tree


def leaves_vocabulary_open(config: Mapping[str, Any]) -> bool:
    """Whether a config has a generator that takes `vocabulary_size` and is not given it."""
    node = config.get("generator")
    if not isinstance(node, Mapping) or KEY in node:
        return False
    kind = str(node.get("type"))
    found = signatures.signature(kind if "." in kind else f"vq.generators.{kind}")
    return found is not None and KEY in found.required
