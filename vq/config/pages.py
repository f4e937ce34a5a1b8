"""Runs a page: its options are filled in, and each imported class becomes the full name of that class."""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vq import signatures
from vq.config.checking import SECTIONS, Tree, plain
from vq.config.lines import line_of
from vq.errors import ConfigError
from vq.text import suggest

BASE = "_base_"
"""The name that a page gives to the page it starts from."""


class Page:
    """One page, parsed.

    Args:
        file: Its path, for messages.
        text: Its source.

    Attributes:
        tree: Its syntax tree.
        base: The page that it starts from, as `_base_` names it; None if it stands alone.
        options: The names that it declares in `options = dict(...)`.

    Raises:
        ConfigError: If the text is not Python, or names its base in another way than by one first statement.
    """

    def __init__(self, file: Path, text: str) -> None:
        self.file = file
        try:
            self.tree = ast.parse(text, filename=str(file))
        except SyntaxError as error:
            line = "" if error.lineno is None else f":{error.lineno}"
            raise ConfigError(f"{file}{line}: not valid Python: {error.msg}") from None
        except (ValueError, RecursionError, MemoryError) as error:  # a null byte, a thousand brackets
            raise ConfigError(f"{file}: not valid Python: {error}") from None
        self.base = self._base_name()
        self.options = [name for name, _, _ in self._declarations()]

    def run(self, options: Mapping[str, Any], base_options: Sequence[str] = ()) -> tuple[Tree, Tree]:
        """Runs the page.

        Args:
            options: Values for some of the options that the page declares.
            base_options: The options of its base, which the page need not read itself.

        Returns:
            The sections, and the values of those options that the base declares too, as plain data.

        Raises:
            ConfigError: With the file and the line.
        """
        self._fill_options(options)
        module = ast.Module(body=[self._statement(node) for node in self.tree.body], type_ignores=[])
        namespace: Tree = {"__file__": str(self.file), "__name__": "config"}
        try:
            exec(compile(ast.fix_missing_locations(module), str(self.file), "exec"), namespace)
        except (Exception, SystemExit) as error:
            line = _line_in(error, str(self.file))
            choice = self._choice(error, line, namespace) if isinstance(error, KeyError) else ""
            raise ConfigError(
                f"{self.file}:{line}: {choice or f'{type(error).__name__}: {error}'}"
            ) from error
        used = namespace.get("options", {})
        self._check_options(options, used, base_options)
        self._check_names()
        try:
            sections = {name: plain(namespace[name], name) for name in SECTIONS if name in namespace}
            shared = [name for name in self.options if name in base_options]
            return sections, {name: plain(used[name], f"options.{name}") for name in shared}
        except ConfigError as error:
            raise ConfigError(f"{self.file}{line_of(self.tree, str(error))}: {error}") from None

    def line(self, name: str) -> int:
        """The first line on which a name or a keyword of this name occurs."""
        lines = [
            node.lineno
            for node in ast.walk(self.tree)
            if (isinstance(node, ast.Name) and node.id == name)
            or (isinstance(node, ast.keyword) and node.arg == name)
        ]
        return min(lines, default=1)

    def _base_name(self) -> str | None:
        body = self.tree.body[1:] if ast.get_docstring(self.tree) is not None else self.tree.body
        names = [node for node in ast.walk(self.tree) if isinstance(node, ast.Name) and node.id == BASE]
        match body[:1]:
            case [ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(base)))] if (
                name == BASE and len(names) == 1
            ):
                return base
        if names:
            raise ConfigError(
                f"{self.file}:{self.line(BASE)}: expected {BASE} once, as the first statement below the "
                f'docstring, such as {BASE} = "8192_imagenet_ddp.py"'
            )
        return None

    def _declarations(self) -> list[tuple[str, ast.keyword | ast.Dict, int]]:
        """Each option that `options = dict(...)` or `{...}` declares: its name, and where its value stands."""
        found: list[tuple[str, ast.keyword | ast.Dict, int]] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign):
                targets = node.targets
            elif isinstance(node, ast.AnnAssign):
                targets = [node.target]
            else:
                continue
            if not any(isinstance(t, ast.Name) and t.id == "options" for t in targets):
                continue
            if isinstance(node.value, ast.Call):
                found += [(keyword.arg or "", keyword, 0) for keyword in node.value.keywords]
            elif isinstance(node.value, ast.Dict):
                keys = [str(getattr(key, "value", "")) for key in node.value.keys]
                found += [(key, node.value, i) for i, key in enumerate(keys)]
        return found

    def _fill_options(self, options: Mapping[str, Any]) -> None:
        for name, place, i in self._declarations():
            if name not in options:
                continue
            literal = ast.parse(repr(options[name]), mode="eval").body
            if isinstance(place, ast.keyword):
                place.value = ast.copy_location(literal, place.value)
            else:
                place.values[i] = ast.copy_location(literal, place.values[i])

    def _choice(self, error: KeyError, line: int, namespace: Tree) -> str:
        """Between which values an option chooses, if `error` comes from `some_dict[options["name"]]` on this line."""
        for node in ast.walk(self.tree):
            match node:
                case ast.Subscript(
                    value=choices,
                    slice=ast.Subscript(value=ast.Name(id="options"), slice=ast.Constant(value=str(name))),
                ) if node.lineno <= line <= (node.end_lineno or line):
                    value = namespace["options"].get(name)
                    if error.args == (value,) and (keys := _keys(choices, namespace)):
                        return f"options.{name}: expected one of {', '.join(keys)}, got {value!r}"
        return ""

    def _check_options(self, given: Mapping[str, Any], used: Any, base_options: Sequence[str]) -> None:
        """Refuses an option that the page replaces, or that nothing reads."""
        for name, value in given.items():
            if not isinstance(used, Mapping) or used.get(name) != value:
                raise ConfigError(
                    f"{self.file}: the page replaces its option {name!r} after it was set to {value!r}"
                )
        read = self._options_read()
        if read is None:
            return
        for name in given if self.base is None else self.options:
            if name in read or name in base_options:
                continue
            if self.base is None:
                raise ConfigError(f"{self.file}: the page declares the option {name!r} but does not read it")
            raise ConfigError(
                f"{self.file}:{self.line(name)}: the page does not read its option {name!r}, and its base "
                f"{self.base} has no such option{suggest(name, base_options)}"
            )

    def _options_read(self) -> set[Any] | None:
        """What the page reads as `options["name"]`; None if it reads the options as a whole, or computes a name."""
        subscripts = [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Name)
            and node.value.id == "options"
        ]
        reads = [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Name) and node.id == "options" and isinstance(node.ctx, ast.Load)
        ]
        constants = {node.slice.value for node in subscripts if isinstance(node.slice, ast.Constant)}
        is_computed = len(constants) < len({ast.unparse(node.slice) for node in subscripts})
        return None if is_computed or len(reads) > len(subscripts) else constants

    def _check_names(self) -> None:
        """Refuses a top-level name that is no section and that nothing reads: a misspelt section, most likely."""
        read = {n.id for n in ast.walk(self.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        for name, line in _assigned_names(self.tree.body):
            if name not in (*SECTIONS, "options", *read) and not name.startswith("_"):
                hint = suggest(name, SECTIONS)
                raise ConfigError(
                    f"{self.file}:{line}: {name!r} is not a section, and nothing reads it{hint}"
                )

    def _statement(self, node: ast.stmt) -> ast.stmt:
        """An import of a class becomes an assignment of its full name; any other statement stays as it is."""
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


def _keys(node: ast.expr, namespace: Mapping[str, Any]) -> list[str]:
    """The keys of a dict that a page writes in place, or calls by a name."""
    if isinstance(node, ast.Dict):
        return [ast.unparse(key) for key in node.keys if key is not None]
    return [repr(key) for key in namespace[node.id]] if isinstance(node, ast.Name) else []


def _line_in(error: BaseException, file: str) -> int:
    line = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
