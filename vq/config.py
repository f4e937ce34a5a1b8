"""Loads a config: a Python page that names classes, checked key by key before anything is built.

A config is code that *describes*: `from vq.quantizers import VectorQuantizer` binds the class's
full name (nothing is imported), and `dict(type=VectorQuantizer, ...)` is a node. The result is plain
data, the same whether it comes from the page or from the JSON in a checkpoint.

This is the only importer of `mmengine.config`. Its `Config` holds, prints and dumps the result; its
file loader is not used: it accepts misspelt keys, lets the file's content pick between two config
languages, and cannot fill in a config's options before the file runs.
"""

import ast
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from vq import signatures
from vq.registry import ConfigError, argument_problems, slot_of, suggest

SECTIONS = (
    "train_data",
    "val_data",
    "tokenizer",
    "generator",
    "train_step",
    "trainer",
    "evaluator",
    "checkpointer",
    "contestants",
    "tokenizers",
)
"""The top-level keys of a config, in the order in which a page gives them."""

NAMED_PARTS = ("contestants", "tokenizers")
"""The sections that are named parts, not one part: `contestants = dict(fsq=dict(type=...), ...)`."""

Tree = dict[str, Any]


def load(
    path: str | Path, *, options: Mapping[str, Any] | None = None, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Reads and checks a config.

    Args:
        path: A Python page, or the JSON that a run or a checkpoint keeps.
        options: Values for the names that the page declares in `options = dict(...)`, filled in
            before it runs.
        overrides: `.path.to[0].key` -> value, assigned after it ran.

    Returns:
        An `mmengine.Config` of plain data; `.text` is the page verbatim and `.filename` its path.

    Raises:
        ConfigError: With the place, the nearest valid name, and for a page the line.
    """
    file = Path(path)
    if not file.is_file():
        siblings = [str(p) for p in sorted(file.parent.glob("*.py"))] if file.parent.is_dir() else []
        raise ConfigError(f"{path}: there is no such config{suggest(str(path), siblings)}")
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        if options:
            raise ConfigError(f"{path}: a JSON config has no options; use --override")
        tree, page = json.loads(text), None
    else:
        page = _Page(file, text)
        tree = page.run(options or {})
    for key, value in (overrides or {}).items():
        _assign(tree, key, value)
    try:
        tree = _plain(tree, "")
        check(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}{page.line_of(str(error)) if page else ''}: {error}") from None
    return Config(tree, cfg_text=text, filename=str(path), format_python_code=False)


def check(tree: Mapping[str, Any]) -> None:
    """Compares every key of a config with the classes it names, without importing them.

    Raises:
        ConfigError: For an unknown section, class or argument, with the nearest valid one.
    """
    for key, value in tree.items():
        if key not in SECTIONS:
            raise ConfigError(f"unknown section {key!r}{suggest(key, SECTIONS)}")
        for place, part in value.items() if key in NAMED_PARTS else [(key, value)]:
            if not isinstance(part, Mapping) or "type" not in part:
                raise ConfigError(f"{place}: expected dict(type=..., ...), got {part!r}")
        _check_value(value, key)


def save(config: Config, directory: Path) -> None:
    """Writes the page verbatim (`config.py`) and resolved (`config.json`, `config_resolved.py`).

    A resumed run may come with another config: what was there is kept as `config.json.1` and so on.
    """
    if str(config.filename).endswith(".py"):
        write_and_keep(directory / "config.py", config.text)
    write_and_keep(directory / "config.json", to_json(config))
    write_and_keep(directory / "config_resolved.py", config.pretty_text)


def write_and_keep(path: Path, text: str) -> None:
    """Writes a file; one of another content that has the name is renamed, not lost."""
    if path.exists():
        if path.read_text(encoding="utf-8") == text:
            return
        taken = len(list(path.parent.glob(f"{path.name}.*")))
        path.rename(path.with_name(f"{path.name}.{taken + 1}"))
    path.write_text(text, encoding="utf-8")


def to_json(config: Config) -> str:
    """The resolved config as JSON, keys in the order of the page."""
    return json.dumps(config.to_dict(), indent=2)


def parse_literal(text: str) -> Any:
    """The value of a Python literal, `dict(key=literal)` included; nothing is ever evaluated.

    Example:
        >>> parse_literal("dict(strict=False, sizes=[1, -2.5])")
        {'strict': False, 'sizes': [1, -2.5]}
    """
    try:
        return _literal(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError):
        raise ConfigError(
            f"{text!r} is not a literal (a number, 'text', None, True, [..], (..), dict(key=..)); "
            f"for a string without quotes write key::text"
        ) from None


def parse_assignments(words: list[str]) -> Tree:
    """`key:literal` and `key::text` words from the command line as a dict.

    Example:
        >>> parse_assignments([".trainer.max_steps:8", "teacher::clip"])
        {'.trainer.max_steps': 8, 'teacher': 'clip'}
    """
    result: Tree = {}
    for word in words:
        key, colon, value = word.partition(":")
        if not colon or not key:
            raise ConfigError(f"{word!r}: expected key:literal or key::text")
        result[key] = value[1:] if value.startswith(":") else parse_literal(value)
    return result


class _Page:
    """One config file: its syntax tree, run with class names in place of imports."""

    def __init__(self, file: Path, text: str) -> None:
        self.file = file
        try:
            self.tree = ast.parse(text, filename=str(file))
        except SyntaxError as error:
            raise ConfigError(f"{file}:{error.lineno}: not valid Python: {error.msg}") from None

    def run(self, options: Mapping[str, Any]) -> Tree:
        """The page's sections."""
        self._fill_options(options)
        module = ast.Module(body=[self._statement(node) for node in self.tree.body], type_ignores=[])
        namespace: Tree = {"__file__": str(self.file), "__name__": "config"}
        try:
            exec(compile(ast.fix_missing_locations(module), str(self.file), "exec"), namespace)
        except Exception as error:
            line = _line_in(error, str(self.file))
            raise ConfigError(f"{self.file}:{line}: {type(error).__name__}: {error}") from error
        return {name: namespace[name] for name in self._sections()}

    def line_of(self, message: str) -> str:
        """`:line` of the keyword that an error message quotes first, if the page has it; else ''."""
        for quoted in message.split("'")[1::2]:
            for node in ast.walk(self.tree):
                if isinstance(node, ast.keyword) and node.arg == quoted:
                    return f":{node.value.lineno}"
                if isinstance(node, ast.Name | ast.Constant) and quoted in (
                    getattr(node, "id", None),
                    getattr(node, "value", None),
                ):
                    return f":{node.lineno}"
        return ""

    def _sections(self) -> list[str]:
        """The assigned top-level names that are sections; any other must be read somewhere."""
        assigned = [
            (target.id, node.lineno)
            for node in self.tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        ]
        read = {n.id for n in ast.walk(self.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        for name, line in assigned:
            if name not in SECTIONS and name not in read and name != "options":
                raise ConfigError(
                    f"{self.file}:{line}: {name!r} is not a section, and nothing reads it{suggest(name, SECTIONS)}"
                )
        return [section for section in SECTIONS if section in dict(assigned)]

    def _fill_options(self, options: Mapping[str, Any]) -> None:
        declared = [
            keyword
            for node in self.tree.body
            if isinstance(node, ast.Assign)
            and any(isinstance(t, ast.Name) and t.id == "options" for t in node.targets)
            and isinstance(node.value, ast.Call)
            for keyword in node.value.keywords
        ]
        names = [keyword.arg or "" for keyword in declared]
        for name, value in options.items():
            if name not in names:
                hint = suggest(name, names) if names else "; it declares none (options = dict(...))"
                raise ConfigError(f"{self.file}: the config has no option {name!r}{hint}")
            keyword = declared[names.index(name)]
            keyword.value = ast.copy_location(ast.parse(repr(value), mode="eval").body, keyword.value)

    def _statement(self, node: ast.stmt) -> ast.stmt:
        """An import of a class becomes an assignment of its full name; all else stays."""
        place = f"{self.file}:{node.lineno}"
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] not in sys.stdlib_module_names:
                    raise ConfigError(
                        f"{place}: write `from {alias.name} import Name`; a config names classes"
                    )
        if (
            not isinstance(node, ast.ImportFrom)
            or (node.module or "").partition(".")[0] in sys.stdlib_module_names
        ):
            return node
        module = node.module or ""
        if node.level or not signatures.has_module(module):
            raise ConfigError(f"{place}: there is no module {'.' * node.level + module!r}")
        for alias in node.names:
            if signatures.has_name(module, alias.name) is False:
                hint = suggest(alias.name, signatures.public_names(module))
                raise ConfigError(f"{place}: {module} has no {alias.name!r}{hint}")
        names = [ast.Name(id=alias.asname or alias.name, ctx=ast.Store()) for alias in node.names]
        values = [ast.Constant(f"{module}.{alias.name}") for alias in node.names]
        assignment = ast.Assign(
            targets=[ast.Tuple(elts=list(names), ctx=ast.Store())],
            value=ast.Tuple(elts=list(values), ctx=ast.Load()),
        )
        return ast.copy_location(assignment, node)


def _check_value(value: Any, path: str) -> None:
    if isinstance(value, Mapping):
        if "type" in value:
            _check_node(value, path)
        for key, child in value.items():
            _check_value(child, f"{path}.{key}")
    elif isinstance(value, list):
        for i, child in enumerate(value):
            _check_value(child, f"{path}[{i}]")


def _check_node(node: Mapping[str, Any], path: str) -> None:
    signature = _signature(node, path)
    if signature is None:
        return
    given = [key for key in node if key != "type"]
    # What is missing may come at run time (parameters, world size), so only `build` can tell.
    if problem := argument_problems(node["type"].rpartition(".")[2], given, list(signature.names), []):
        raise ConfigError(f"{path}: {problem}")


def _signature(node: Mapping[str, Any], path: str) -> signatures.Signature | None:
    name = node["type"]
    if not isinstance(name, str):
        raise ConfigError(f"{path}.type: expected the name of a class, got {name!r}")
    if "." not in name:
        registry = slot_of(path)
        if registry is None:
            raise ConfigError(f"{path}.type: give {name!r} by its full dotted name")
        (location,) = registry._locations
        if signatures.has_name(location, name) is False:
            known = [n for n in signatures.public_names(location) if n[:1].isupper()]
            raise ConfigError(f"{path}.type: no {registry.name} is called {name!r}{suggest(name, known)}")
        name = f"{location}.{name}"
    module, _, attribute = name.rpartition(".")
    if not signatures.has_module(module):
        raise ConfigError(f"{path}.type: there is no module {module!r}")
    if signatures.has_name(module, attribute) is False:
        raise ConfigError(
            f"{path}.type: {module} has no {attribute!r}{suggest(attribute, signatures.public_names(module))}"
        )
    return signatures.signature(name)


def _assign(tree: Tree, key: str, value: Any) -> None:
    """Sets `.path.to[0].key`; the place must exist, or be an argument of the class it stands in."""
    steps = _steps(key)
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
            valid = _valid_keys(node, path)
            if not is_last or step not in valid:
                raise ConfigError(
                    f"override {key}: {path or 'the config'} has no key {step!r}{suggest(step, valid)}"
                )
        if is_last:
            node[step] = value
        else:
            node, path = node[step], place


def _valid_keys(node: Mapping[str, Any], path: str) -> list[str]:
    if not path:
        return list(SECTIONS)
    signature = _signature(node, path) if "type" in node else None
    return ["type", *signature.names] if signature else list(node)


def _steps(key: str) -> list[str | int]:
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


def _plain(value: Any, path: str) -> Any:
    """The value with tuples as lists, so that a config equals its own JSON; anything else is refused."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{path}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{path}[{i}]") for i, v in enumerate(value)]
    raise ConfigError(f"{path}: a config holds plain data, got {type(value).__name__} {value!r}")


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id != "dict" or node.args:
            raise ValueError
        return {_keyword(k): _literal(k.value) for k in node.keywords}
    if isinstance(node, ast.List | ast.Tuple):
        values = [_literal(v) for v in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict):
        keys = [_literal(k) if k is not None else None for k in node.keys]
        return dict(zip(keys, map(_literal, node.values), strict=True))
    return ast.literal_eval(node)


def _keyword(node: ast.keyword) -> str:
    if node.arg is None:
        raise ValueError
    return node.arg


def _line_in(error: BaseException, file: str) -> int:
    line = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
