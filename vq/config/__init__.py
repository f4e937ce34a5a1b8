"""Loads a config: a Python page that names classes, checked key by key before anything is built.

A page is code that *describes*: `from vq.quantizers import VectorQuantizer` binds the full name of the class (nothing
is imported), and `dict(type=VectorQuantizer, ...)` is a node. The result is plain data, the same whether it comes from
the page or from the JSON in a checkpoint. A page may start from another one (`vq.config.bases`).

This is the only importer of `mmengine.config`. Its `Config` holds, prints and dumps a config that has passed every
check, and is imported only then. Its file loader is not used: it accepts misspelt keys, lets the content of a file
choose between two config languages, and cannot fill in options before the file runs.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.config.bases import load_page
from vq.config.checking import (
    CONTESTANTS,
    OVER_TOKENIZER,
    SECTIONS,
    Tree,
    check,
    nodes,
    plain,
    trained_section,
)
from vq.config.contestants import check_contestants, contestant_arguments, contestant_tree
from vq.config.files import MAX_CHARACTERS, parse_json, read_text, write_and_keep
from vq.config.literals import parse_assignments, parse_literal
from vq.config.overrides import assign
from vq.config.packaged import find_config
from vq.config.pretrained import (
    PRETRAINED_TOKENIZER,
    WEIGHTS_OF,
    refers_to_weights,
    with_frozen_weights,
    with_pages_written_out,
    with_weights,
    without_first_weights,
)
from vq.config.vocabulary import open_sizes, without_open_sizes
from vq.config.writing import page_text, written_pages
from vq.errors import ConfigError
from vq.packages import no_cache_folder
from vq.slots import CodeName

if TYPE_CHECKING:
    from mmengine.config import Config

__all__ = [
    "CONTESTANTS",
    "MAX_CHARACTERS",
    "OVER_TOKENIZER",
    "PRETRAINED_TOKENIZER",
    "SECTIONS",
    "WEIGHTS_OF",
    "ConfigError",
    "check",
    "contestant_arguments",
    "contestant_tree",
    "find_config",
    "load",
    "nodes",
    "open_sizes",
    "page_text",
    "parse_assignments",
    "parse_json",
    "parse_literal",
    "read_text",
    "refers_to_weights",
    "replaced",
    "save",
    "to_json",
    "trained_section",
    "with_frozen_weights",
    "with_weights",
    "without_first_weights",
    "write_and_keep",
]

MAX_PAGES = 4
"""The longest chain of pages in which each names the next one as the page of its tokenizer."""


def load(
    path: str | Path, *, options: Mapping[str, Any] | None = None, overrides: Mapping[str, Any] | None = None
) -> "Config":
    """Reads and checks a config.

    A page (`.py`) is code, and runs: give only one that you trust. The classes that it names are `CodeName`s, which
    `vq.registry.build` imports. A `.json` is data: nothing of it runs, and it may name registered classes only.

    Args:
        path: A page, the name of a page that comes with vq (`fsq/1000_emoji`), or the JSON that a run or a checkpoint
            keeps.
        options: Values for the names that the page, or the page it starts from, declares in `options = dict(...)`;
            they are filled in before the page runs.
        overrides: `.path.to[0].key` -> value, assigned after the page ran. Only that one place changes.

    Returns:
        An `mmengine.Config` of plain data that stands alone: what comes from a base, and the tokenizer of a page that
        `pretrained_tokenizer(config=PAGE)` names, are written out. `.text` is the page verbatim, `.filename` its path.

    Raises:
        ConfigError: With the place, the nearest valid name, and for a page the file and the line.
    """
    file = find_config(path)
    text = read_text(file)
    return _config(_resolved(file, text, options or {}, overrides or {}, ()), text, str(file))


def replaced(config: "Config", tree: Tree) -> "Config":
    """The config of the same file with other content."""
    return _config(tree, config.text, config.filename)


def save(config: "Config", directory: Path) -> None:
    """Writes the page verbatim (`config.py`), and the resolved config as data and as pages.

    The resolved config stands alone; the page may start from another one. It is written as `config.json`, as
    `config_resolved.py`, and under the page's own name: `vqgan.py` for `configs/decoder/vqgan.py`. A resumed run may
    come with another config: the earlier files are kept as `config.json.1` and so on.
    """
    file, tree = Path(config.filename), config.to_dict()
    is_page = file.suffix == ".py"
    if is_page:
        write_and_keep(directory / "config.py", config.text)
    write_and_keep(directory / "config.json", to_json(config))
    if not is_page and CONTESTANTS in tree:
        return  # A page may name any class, and nothing has checked the classes that this data names there.
    pages = {directory / "config_resolved.py", *written_pages(directory)}
    pages |= {directory / file.name} if is_page else set()
    for page in pages - {directory / "config.py"}:
        if not (page.exists() and file.exists() and page.samefile(file)):
            write_and_keep(page, page_text(tree))


def to_json(config: "Config") -> str:
    """The resolved config as JSON, with the keys in the order of the page."""
    return json.dumps(config.to_dict(), indent=2)


def _config(tree: Tree, text: str, filename: str) -> "Config":
    with no_cache_folder():
        from mmengine.config import Config  # takes longer than all checks together

    return Config(tree, cfg_text=text, filename=filename, format_python_code=False)


def _resolved(
    file: Path,
    text: str,
    options: Mapping[str, Any],
    overrides: Mapping[str, Any],
    outer: tuple[Path, ...],
) -> Tree:
    """The sections of a config, checked; `outer` are the pages that led to this one as the page of their tokenizer."""
    if file.resolve() in outer:
        raise ConfigError(f"{file}: names itself as the page of its tokenizer")
    if len(outer) > MAX_PAGES:
        raise ConfigError(
            f"{outer[0]}: expected at most {MAX_PAGES} pages that each name the next one as the page of their "
            f"tokenizer, got more"
        )
    if file.suffix != ".py":
        return _resolved_json(file, text, options, overrides)
    page = load_page(file, text, options)

    def tokenizer_of(name: str) -> Any:
        inner = find_config(name)
        tree = _resolved(inner, read_text(inner), {}, {}, (*outer, file.resolve()))
        if "tokenizer" not in tree:
            raise ConfigError(f"{name}: expected a config with a section 'tokenizer', got none")
        return tree["tokenizer"]

    try:
        tree, into_other_pages = _with_early_overrides(page.sections, overrides)
        tree = with_pages_written_out(tree, tokenizer_of)
        tree = without_open_sizes(_with_overrides(tree, _with_code_names(into_other_pages)))
        check(tree)
        check_contestants(tree)
    except ConfigError as error:
        raise ConfigError(f"{page.where(error, overrides)}: {error}") from None
    return tree


def _resolved_json(file: Path, text: str, options: Mapping[str, Any], overrides: Mapping[str, Any]) -> Tree:
    if options:
        raise ConfigError(f"{file}: a JSON config has no options; use --override")
    tree = parse_json(text, str(file))
    if not isinstance(tree, dict):
        kind = type(tree).__name__
        raise ConfigError(f"{file}: expected an object with the sections of a config, got a {kind}")
    try:
        tree = without_open_sizes(_with_overrides(tree, overrides))
        check(tree)
        check_contestants(tree)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    return tree


def _with_overrides(sections: Tree, overrides: Mapping[str, Any]) -> Tree:
    tree: Tree = plain(sections, "")
    for key, value in overrides.items():
        assign(tree, key, plain(value, key))
    return tree


def _with_early_overrides(sections: Tree, overrides: Mapping[str, Any]) -> tuple[Tree, Tree]:
    """The sections with the overrides of places that exist, and the other overrides.

    Those may be for places in the page of a pretrained tokenizer, which is written out after the first ones.
    """
    tree, others = _with_overrides(sections, {}), {}
    for key, value in overrides.items():
        try:
            assign(tree, key, plain(value, key))
        except ConfigError:
            others[key] = value
    return _with_code_names(tree), others


def _with_code_names(value: Any) -> Any:
    """The value with every `type` marked as named by code."""
    if isinstance(value, Mapping):
        return {
            k: CodeName(v) if k == "type" and isinstance(v, str) else _with_code_names(v)
            for k, v in value.items()
        }
    return [_with_code_names(v) for v in value] if isinstance(value, list) else value
