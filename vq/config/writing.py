"""Writes a resolved config as a page: imports of its classes, then every section as a dict."""

import keyword
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vq import signatures
from vq.config.checking import SECTIONS, nodes

HEADER = '''\
"""The complete config of a run: its page, the page's base, and the options and overrides of the command line.

vq wrote this file. It is a page like any other one: it needs no other page, and it declares no options.
"""
'''
WIDTH = 110
_RESERVED = (*SECTIONS, "options", "dict", "float")
_INDENT = 4


def page_text(tree: Mapping[str, Any]) -> str:
    """The text of a page that describes a config. Loading the page gives the same config.

    Args:
        tree: The sections of a config that has passed `check`, as plain data.
    """
    names = _local_names(tree)
    sections = [
        f"{section} = {_text(value, names, column=len(section) + 3, indent=0)}\n"
        for section, value in tree.items()
    ]
    return "\n".join([HEADER, *([_imports(names)] if names else []), *sections])


def written_pages(directory: Path) -> list[Path]:
    """The pages in a folder that `page_text` wrote."""
    return sorted(
        file for file in directory.glob("*.py") if file.read_bytes().startswith(HEADER.encode("utf-8"))
    )


def _local_names(tree: Mapping[str, Any]) -> dict[str, str]:
    """The name under which the page imports each class: full name -> name on the page."""
    found: dict[str, str] = {}
    kinds = {str(kind) for node in nodes(tree) if isinstance(kind := node["type"], str)}
    for full in sorted(kinds, key=lambda kind: (kind.rpartition(".")[2], kind)):
        module, _, name = _present_name(full).rpartition(".")
        if not _can_be_imported(module, name):
            continue
        local, number = name, 1
        while local in found.values() or local in _RESERVED:
            number += 1
            local = f"{name}_{number}"
        found[full] = local
    return found


def _present_name(full: str) -> str:
    """The full name of a class, or the present one if the config was stored before its module moved."""
    module, _, name = full.rpartition(".")
    return full if signatures.has_name(module, name) else signatures.moved_to(full) or full


def _can_be_imported(module: str, name: str) -> bool:
    """Whether `from module import name` binds the full name of a class when the page runs."""
    is_standard = module.partition(".")[0] in sys.stdlib_module_names  # such an import is a real one
    return bool(module) and not is_standard and name.isidentifier() and signatures.has_module(module)


def _imports(names: Mapping[str, str]) -> str:
    """The import statements: other packages first, the modules of each in alphabetical order."""
    modules: dict[str, list[str]] = {}
    for full, local in names.items():
        module, _, name = _present_name(full).rpartition(".")
        modules.setdefault(module, []).append(name if name == local else f"{name} as {local}")
    groups = [
        [_import(module, modules[module]) for module in sorted(modules) if (module[:3] == "vq.") is is_own]
        for is_own in (False, True)
    ]
    return "\n".join("".join(group) for group in groups if group)


def _import(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(sorted(names))}\n"
    if len(line) <= WIDTH:
        return line
    rows = "".join(f"    {name},\n" for name in sorted(names))
    return f"from {module} import (\n{rows})\n"


def _text(value: Any, names: Mapping[str, str], *, column: int, indent: int) -> str:
    """A value as source text, on one line if it fits between `column` and the right margin."""
    parts = _parts(value, names)
    line = _on_one_line(value, names)
    if parts is None or len(line) + column < WIDTH:
        return line
    opening, items, closing = parts
    inner = indent + _INDENT
    rows = [
        " " * inner + prefix + _text(item, names, column=inner + len(prefix), indent=inner) + ",\n"
        for prefix, item in items
    ]
    return f"{opening}\n{''.join(rows)}{' ' * indent}{closing}"


def _on_one_line(value: Any, names: Mapping[str, str]) -> str:
    parts = _parts(value, names)
    if parts is None:
        return _plain(value)
    opening, items, closing = parts
    return opening + ", ".join(prefix + _on_one_line(item, names) for prefix, item in items) + closing


def _parts(value: Any, names: Mapping[str, str]) -> tuple[str, list[tuple[str, Any]], str] | None:
    """The brackets of a dict or a list and its entries, each with the text before it; None for other values."""
    if isinstance(value, list) and value:
        return "[", [("", item) for item in value], "]"
    if not isinstance(value, Mapping) or not value:
        return None
    entries = [(key, _Name(names[str(v)]) if key == "type" and v in names else v) for key, v in value.items()]
    if all(_is_keyword(key) for key in value):
        return "dict(", [(f"{key}=", item) for key, item in entries], ")"
    return "{", [(f"{_plain(key)}: ", item) for key, item in entries], "}"


class _Name(str):
    """A name that the page imports, in contrast to a string."""

    __slots__ = ()


def _is_keyword(key: str) -> bool:
    return key.isidentifier() and not keyword.iskeyword(key)


def _plain(value: Any) -> str:
    """A value without entries as source text."""
    if isinstance(value, _Name):
        return str(value)
    if isinstance(value, str):
        is_simple = value.isprintable() and '"' not in value and "\\" not in value
        return f'"{value}"' if is_simple else repr(str(value))
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return "dict()" if isinstance(value, Mapping) else repr(value)
