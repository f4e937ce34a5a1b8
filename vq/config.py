"""Loads a config: a Python page that names classes, checked key by key before anything is built.

A config is code that *describes*: `from vq.quantizers import VectorQuantizer` binds the class's
full name (nothing is imported), and `dict(type=VectorQuantizer, ...)` is a node. The result is plain
data, the same whether it comes from the page or from the JSON in a checkpoint.

This is the only importer of `mmengine.config`. Its `Config` holds, prints and dumps the result; its
file loader is not used: it accepts misspelt keys, lets the file's content pick between two config
languages, and cannot fill in a config's options before the file runs.
"""

import ast
import codecs
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from vq import signatures
from vq.errors import ConfigError
from vq.files import write_atomically
from vq.slots import RUNTIME, CodeName, argument_problems, check_depth, kind_of, runtime_hint
from vq.text import shown, suggest

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

MAX_CHARACTERS = 4_000_000
"""The longest JSON that is read; the project's longest config has 20 thousand characters."""

MAX_PAGES = 4
"""How many pages may each name the next one as the page of their tokenizer."""

PRETRAINED_TOKENIZER = ("vq.tokenizers.pretrained_tokenizer", "vq.tokenizers.pretrained.pretrained_tokenizer")
"""The full names of the function whose `config` may be a page."""

WEIGHTS_OF: dict[str, str] = {
    **dict.fromkeys(PRETRAINED_TOKENIZER, "weights"),
    **dict.fromkeys(("vq.quantizers.FileInit", "vq.quantizers.parts.initialization.FileInit"), "path"),
    **dict.fromkeys(
        ("vq.networks.TimmViTFeatures", "vq.networks.frozen.timm_vit.TimmViTFeatures"), "weights"
    ),
}
"""What refers to weights outside a run, and in which argument; `sha256` beside it says which weights are meant."""

Tree = dict[str, Any]


def load(
    path: str | Path, *, options: Mapping[str, Any] | None = None, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Reads and checks a config.

    A page (`.py`) is code, and runs: give only one that you trust. The classes that it names are `CodeName`s, which
    `vq.registry.build` imports. A `.json` is data: nothing of it runs, and it may name registered classes only.

    Args:
        path: A page, or the JSON that a run or a checkpoint keeps.
        options: Values for the names that the page declares in `options = dict(...)`, filled in
            before it runs.
        overrides: `.path.to[0].key` -> value, assigned after it ran. Only that one place changes.

    Returns:
        An `mmengine.Config` of plain data; `.text` is the page verbatim and `.filename` its path. Where a page says
        `pretrained_tokenizer(config=PAGE)`, the tokenizer of that page is written out, and no page is named any more.

    Raises:
        ConfigError: With the place, the nearest valid name, and for a page the line.
    """
    return _load(path, options or {}, overrides or {}, ())


def _load(
    path: str | Path, options: Mapping[str, Any], overrides: Mapping[str, Any], inside: tuple[Path, ...]
) -> Config:
    file, text = Path(path), read_text(path)
    if file.resolve() in inside or len(inside) > MAX_PAGES:
        raise ConfigError(
            f"{path}: names itself as the page of its tokenizer, or {MAX_PAGES} pages in a row do"
        )
    page = _Page(file, text) if file.suffix == ".py" else None
    if page is None and options:
        raise ConfigError(f"{path}: a JSON config has no options; use --override")
    tree = _parse_json(file, text) if page is None else page.run(options)
    try:
        tree = _plain(tree, "")
        for key, value in overrides.items():
            _assign(tree, key, _plain(value, key))
        if page is not None:
            tree = _with_code_names(tree)
            tree = _with_pages_written_out(tree, (*inside, file.resolve()))
        check(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}{page.line_of(str(error)) if page else ''}: {error}") from None
    return Config(tree, cfg_text=text, filename=str(path), format_python_code=False)


def read_text(path: str | Path) -> str:
    """The text of a config file.

    Raises:
        ConfigError: If there is no such file, its name does not end in .py or .json, or it is not UTF-8.
    """
    file = Path(path)
    if not file.is_file():
        siblings = [str(p) for p in sorted(file.parent.glob("*.py"))] if file.parent.is_dir() else []
        what = "is a folder, expected a config (.py or .json)" if file.is_dir() else "there is no such config"
        raise ConfigError(f"{path}: {what}{suggest(str(path), siblings)}")
    if file.suffix not in (".py", ".json"):
        raise ConfigError(f"{path}: expected a page (.py) or a resolved config (.json)")
    try:
        content = file.read_bytes()
        if content.startswith(codecs.BOM_UTF8) and file.suffix == ".json":
            raise ConfigError(f"{path}: begins with a byte order mark; save it as UTF-8 without one")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None


def _parse_json(file: Path, text: str) -> Tree:
    tree = parse_json(text, str(file))
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{file}: expected an object with the sections of a config, got a {type(tree).__name__}"
        )
    return tree


def parse_json(text: str, place: str) -> Any:
    """The value of a JSON text.

    Raises:
        ConfigError: If it is cut or not JSON, holds a key twice, or is nested too deeply.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"{place}: expected at most {MAX_CHARACTERS:,} characters of JSON, got {len(text):,}"
        )
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{place}:{error.lineno}: not valid JSON, or cut: {error.msg}") from None
    except RecursionError:
        raise ConfigError(f"{place}: nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> Tree:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(repeated)} stands twice in one object")
    return found


def check(tree: Mapping[str, Any]) -> None:
    """Checks each key of a config, and the type of each plain value, against the classes it names.

    No class is imported.

    Raises:
        ConfigError: For an unknown section, class or argument, with the nearest valid one; for a value that an
            annotation contradicts; and for an argument that the command fills in.
    """
    for key, value in tree.items():
        if key not in SECTIONS:
            raise ConfigError(f"unknown section {shown(key)}{suggest(key, SECTIONS)}")
        if key in NAMED_PARTS and not isinstance(value, Mapping):
            raise ConfigError(f"{key}: expected dict(name=dict(type=..., ...), ...), got {shown(value)}")
        for place, part in value.items() if key in NAMED_PARTS else [(key, value)]:
            if not isinstance(part, Mapping) or "type" not in part:
                raise ConfigError(f"{place}: expected dict(type=..., ...), got {shown(part)}")
        _check_value(value, key)


def nodes(value: Any) -> Iterator[Tree]:
    """Every `dict(type=...)` of a config, the outer before the inner."""
    if isinstance(value, Mapping):
        if "type" in value:
            yield value  # type: ignore[misc]
        value = list(value.values())
    for child in value if isinstance(value, list) else ():
        yield from nodes(child)


def refers_to_weights(config: Mapping[str, Any]) -> bool:
    """Whether any part of a config takes weights from outside the run."""
    return any(node["type"] in WEIGHTS_OF for node in nodes(config) if isinstance(node["type"], str))


def with_weights(config: Mapping[str, Any], moved: Mapping[str, str]) -> Tree:
    """A copy of a config in which some weights have another path; a `sha256` beside the path still holds.

    Args:
        config: Plain data.
        moved: Place -> path. The place is a part that takes weights, such as `tokenizer`, or one of several,
            such as `tokenizer.weights[1]`.

    Raises:
        ConfigError: If no weights belong to a place.
    """
    tree: Tree = _plain(config, "")
    for key, path in moved.items():
        _set_weights(tree, key, str(path))
    return tree


def _set_weights(tree: Tree, key: str, path: str) -> None:
    node: Any = tree
    holder: Any = None
    steps = _steps(f".{key.removeprefix('.')}")
    for i, step in enumerate(steps):
        inside = (
            node if isinstance(node, Mapping) else dict(enumerate(node)) if isinstance(node, list) else {}
        )
        if isinstance(inside.get("type"), str) and inside["type"] in WEIGHTS_OF:
            holder = (WEIGHTS_OF[inside["type"]], i)
        if step not in inside:
            raise ConfigError(
                f"--weights {key}: the config has no such place{suggest(str(step), map(str, inside))}"
            )
        parent, node = node, inside[step]
    if isinstance(node, Mapping) and isinstance(node.get("type"), str) and node["type"] in WEIGHTS_OF:
        parent, steps = node, [WEIGHTS_OF[node["type"]]]
        node = parent.get(steps[0])
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


def replaced(config: Config, tree: Tree) -> Config:
    """The config of the same file with other content."""
    return Config(tree, cfg_text=config.text, filename=config.filename, format_python_code=False)


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
    write_atomically(path, text)


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
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ConfigError(
            f"{shown(text)} is not a literal (a number, 'text', None, True, [..], (..), dict(key=..)); "
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
        if key in result:
            raise ConfigError(f"{word!r}: {key} is given twice; give it once")
        result[key] = value[1:] if value.startswith(":") else parse_literal(value)
    return result


class _Page:
    """One config file: its syntax tree, run with class names in place of imports."""

    def __init__(self, file: Path, text: str) -> None:
        self.file = file
        try:
            self.tree = ast.parse(text, filename=str(file))
        except SyntaxError as error:
            line = "" if error.lineno is None else f":{error.lineno}"
            raise ConfigError(f"{file}{line}: not valid Python: {error.msg}") from None
        except (ValueError, RecursionError, MemoryError) as error:  # a null byte, a thousand brackets
            raise ConfigError(f"{file}: not valid Python: {error}") from None

    def run(self, options: Mapping[str, Any]) -> Tree:
        """The page's sections."""
        self._fill_options(options)
        module = ast.Module(body=[self._statement(node) for node in self.tree.body], type_ignores=[])
        namespace: Tree = {"__file__": str(self.file), "__name__": "config"}
        try:
            exec(compile(ast.fix_missing_locations(module), str(self.file), "exec"), namespace)
        except (Exception, SystemExit) as error:
            line = _line_in(error, str(self.file))
            raise ConfigError(f"{self.file}:{line}: {type(error).__name__}: {error}") from error
        self._check_options(options, namespace)
        self._check_names()
        return {section: namespace[section] for section in SECTIONS if section in namespace}

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

    def _check_names(self) -> None:
        """Refuses a top-level name that is no section and that nothing reads: a misspelt section, most likely."""
        read = {n.id for n in ast.walk(self.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        for name, line in _assigned_names(self.tree.body):
            if name not in (*SECTIONS, "options", *read) and not name.startswith("_"):
                raise ConfigError(
                    f"{self.file}:{line}: {name!r} is not a section, and nothing reads it{suggest(name, SECTIONS)}"
                )

    def _declarations(self) -> list[tuple[str, ast.keyword | ast.Dict, int]]:
        """Each option that `options = dict(...)` or `{...}` declares: its name, and where its value stands."""
        found: list[tuple[str, ast.keyword | ast.Dict, int]] = []
        for node in ast.walk(self.tree):
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            if not any(isinstance(t, ast.Name) and t.id == "options" for t in targets):
                continue
            value = node.value  # type: ignore[attr-defined]
            if isinstance(value, ast.Call):
                found += [(keyword.arg or "", keyword, 0) for keyword in value.keywords]
            elif isinstance(value, ast.Dict):
                keys = [str(getattr(key, "value", "")) for key in value.keys]
                found += [(key, value, i) for i, key in enumerate(keys)]
        return found

    def _fill_options(self, options: Mapping[str, Any]) -> None:
        declared = self._declarations()
        names = [name for name, _, _ in declared]
        for name, value in options.items():
            if name not in names:
                hint = suggest(name, names) if names else "; it declares none (options = dict(...))"
                raise ConfigError(f"{self.file}: the config has no option {name!r}{hint}")
            _, place, i = declared[names.index(name)]
            literal = ast.parse(repr(value), mode="eval").body
            if isinstance(place, ast.keyword):
                place.value = ast.copy_location(literal, place.value)
            else:
                place.values[i] = ast.copy_location(literal, place.values[i])

    def _check_options(self, options: Mapping[str, Any], namespace: Tree) -> None:
        """Refuses an option that the page replaces, or does not read."""
        used = namespace.get("options")
        for name, value in options.items():
            if not isinstance(used, Mapping) or used.get(name) != value:
                raise ConfigError(
                    f"{self.file}: the page replaces its option {name!r} after it was set to {value!r}"
                )
        subscripts = [
            node for node in ast.walk(self.tree)
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "options"
        ]  # fmt: skip
        reads = [n for n in ast.walk(self.tree) if isinstance(n, ast.Name) and n.id == "options"]
        constants = {node.slice.value for node in subscripts if isinstance(node.slice, ast.Constant)}
        if sum(isinstance(n.ctx, ast.Load) for n in reads) > len(subscripts) or len(constants) < len(
            {ast.unparse(node.slice) for node in subscripts}
        ):
            return  # read as a whole, or by a computed name
        for name in options:
            if name not in constants:
                raise ConfigError(f"{self.file}: the page declares the option {name!r} but does not read it")

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


def _assigned_names(body: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    """The names that statements bind, with their lines; not those that functions, classes and comprehensions bind."""
    queue: list[ast.AST] = list(body)
    while queue:
        node = queue.pop(0)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        own_names = ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.ListComp | ast.DictComp | ast.SetComp
        if not isinstance(node, own_names | ast.GeneratorExp | ast.AsyncFunctionDef):
            queue += ast.iter_child_nodes(node)


def _with_code_names(value: Any) -> Any:
    """The value with every `type` marked as named by code."""
    if isinstance(value, Mapping):
        return {
            k: CodeName(v) if k == "type" and isinstance(v, str) else _with_code_names(v)
            for k, v in value.items()
        }
    return [_with_code_names(v) for v in value] if isinstance(value, list) else value


def _with_pages_written_out(value: Any, inside: tuple[Path, ...]) -> Any:
    """The value with the tokenizer of a page in place of `pretrained_tokenizer(config=PAGE)`."""
    if isinstance(value, list):
        return [_with_pages_written_out(v, inside) for v in value]
    if not isinstance(value, Mapping):
        return value
    node = {key: _with_pages_written_out(child, inside) for key, child in value.items()}
    if node.get("type") in PRETRAINED_TOKENIZER and "config" in node:
        page = node.pop("config")
        if page is not None and node.get("tokenizer") is not None:
            raise ConfigError("pretrained_tokenizer: config and tokenizer say the same; give one of them")
        if page is not None:
            tree = _load(page, {}, {}, inside).to_dict()
            if "tokenizer" not in tree:
                raise ConfigError(f"{page}: expected a config with a section 'tokenizer', got none")
            node["tokenizer"] = tree["tokenizer"]
    return node


def _check_value(value: Any, path: str) -> None:
    check_depth(path)
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
    slot = path.rpartition(".")[2].partition("[")[0]
    filled_in = RUNTIME.get("train_step" if slot == "step" else slot, {})
    for key in given:
        if key in filled_in and key in signature.names:
            raise ConfigError(f"{path}.{key}: {runtime_hint(path, key)}")
        if expected := signature.expected(key, node[key]):
            raise ConfigError(f"{path}.{key}: expected {expected}, got {shown(node[key])}")


def _signature(node: Mapping[str, Any], path: str) -> signatures.Signature | None:
    name = node["type"]
    if not isinstance(name, str):
        raise ConfigError(f"{path}.type: expected the name of a class, got {shown(name)}")
    if "." not in name:
        kind = kind_of(path)
        if kind is None:
            raise ConfigError(f"{path}.type: give {name!r} by its full dotted name")
        if signatures.has_name(kind.package, name) is False:
            known = [n for n in signatures.public_names(kind.package) if n[:1].isupper()]
            raise ConfigError(f"{path}.type: no {kind.name} is called {name!r}{suggest(name, known)}")
        name = f"{kind.package}.{name}"
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
    """A copy of the value with tuples as lists, so that a config equals its own JSON; anything else is refused.

    Parts that share a variable of the page become parts of their own, so that an override changes one of them.
    """
    check_depth(path)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(f"{path}: expected text as the keys of a dict, got {shown(key)}")
        return {k: _plain(v, f"{path}.{k}" if path else k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{path}[{i}]") for i, v in enumerate(value)]
    raise ConfigError(f"{path}: a config holds plain data, got {type(value).__name__} {shown(value)}")


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


def _line_in(error: BaseException, file: str) -> int:
    line = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
