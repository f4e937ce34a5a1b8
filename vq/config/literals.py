"""Values from the command line: Python literals, which are parsed and never evaluated."""

import ast
from typing import Any

from vq.errors import ConfigError
from vq.text import shown


def parse_literal(text: str) -> Any:
    """The value of a Python literal, `dict(key=literal)` included.

    Raises:
        ConfigError: If the text is anything else.

    Example:
        >>> parse_literal("dict(strict=False, sizes=[1, -2.5])")
        {'strict': False, 'sizes': [1, -2.5]}
    """
    try:
        return _literal(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ConfigError(
            f"{shown(text)} is not a literal (a number, 'text', None, True, [..], (..), dict(key=..)); "
            f"for a string without quotes write key::text"
        ) from None


def parse_assignments(words: list[str]) -> dict[str, Any]:
    """`key:literal` and `key::text` words from the command line as a dict.

    Raises:
        ConfigError: If a word has no colon, its value is not a literal, or a key is given twice.

    Example:
        >>> parse_assignments([".trainer.max_steps:8", "teacher::clip"])
        {'.trainer.max_steps': 8, 'teacher': 'clip'}
    """
    result: dict[str, Any] = {}
    for word in words:
        key, colon, value = word.partition(":")
        if not colon or not key:
            raise ConfigError(f"{word!r}: expected key:literal or key::text")
        if key in result:
            raise ConfigError(f"{word!r}: {key} is given twice; give it once")
        result[key] = value[1:] if value.startswith(":") else parse_literal(value)
    return result


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id != "dict" or node.args:
            raise ValueError
        names = [_keyword(k) for k in node.keywords]
        if len(set(names)) < len(names):
            raise ValueError("a key stands twice")
        return dict(zip(names, [_literal(k.value) for k in node.keywords], strict=True))
    if isinstance(node, ast.List | ast.Tuple):
        values = [_literal(v) for v in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict):
        keys = [_literal(k) if k is not None else None for k in node.keys]
        if len(set(keys)) < len(keys):
            raise ValueError("a key stands twice")
        return dict(zip(keys, map(_literal, node.values), strict=True))
    return ast.literal_eval(node)


def _keyword(node: ast.keyword) -> str:
    if node.arg is None:
        raise ValueError
    return node.arg
