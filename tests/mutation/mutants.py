"""Finds the places of a source file where one small change makes a mutant, and writes the changed text.

A mutant replaces one expression or one statement. Only code that computes is changed: docstrings, annotations,
decorators, `raise` statements, f-strings, `__repr__` and calls of a logger stay as they are.
"""

import ast
import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_TWINS = ["min max", "amin amax", "argmin argmax", "minimum maximum", "any all", "floor ceil"]
TWINS = {a: b for pair in _TWINS for a, b in (pair.split(), pair.split()[::-1])}
SILENT = ("__repr__", "__str__", "extra_repr", "example")  # `example` makes the subject of the contract tests
LOGGERS = ("logger", "warnings")
TINY = 1e-3


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change of one file.

    Attributes:
        path: The file, relative to the root of the repository.
        line: The first line of the statement that is changed.
        lines: The first and last line of that statement (of a compound one, of its header); `scope`, if the
            statement runs at import, such as the default of an argument.
        scope: The lines of the function around it, else of the class, else of the file.
        function: The qualified name of the function or class around it; empty at the top level.
        kind: The rule that made it.
        before: The source of the expression or statement.
        after: What replaces it.
        number: Which of the equal changes of this function it is, counted from 0.
        start: Where `before` begins, in bytes.
        stop: Where it ends.
    """

    path: str
    line: int
    lines: tuple[int, int]
    scope: tuple[int, int]
    function: str
    kind: str
    before: str
    after: str
    number: int
    start: int
    stop: int

    @property
    def key(self) -> str:
        """A name that stays the same when other lines of the file change."""
        return f"{self.path}::{self.function}::{self.before}::{self.after}::{self.number}"

    def apply(self, source: str) -> str:
        """The text of the file with this change."""
        data = source.encode()
        return (data[: self.start] + self.after.encode() + data[self.stop :]).decode()


def find(path: str, source: str) -> list[Mutant]:
    """All mutants of a file, in the order of their places."""
    finder = _Finder(path, source)
    finder.visit(ast.parse(source))
    return sorted(finder.found, key=lambda mutant: (mutant.start, mutant.stop, mutant.after))


def draw(mutants: dict[str, list[Mutant]], count: int, seed: int) -> list[Mutant]:
    """Draws `count` mutants without replacement, from each file in proportion to how many it has.

    At most one mutant is drawn from a place, as long as there are places enough.
    """
    total = sum(map(len, mutants.values()))
    shares = {path: count * len(found) / total for path, found in mutants.items()}
    numbers = {path: int(share) for path, share in shares.items()}
    by_remainder = sorted(shares, key=lambda path: (numbers[path] - shares[path], path))
    for path in by_remainder[: count - sum(numbers.values())]:
        numbers[path] += 1
    drawn = []
    for path, found in sorted(mutants.items()):
        order = list(found)
        random.Random(f"{seed}:{path}").shuffle(order)
        places = Counter[tuple[int, int]]()
        ranked = []
        for mutant in order:
            ranked.append((places[mutant.start, mutant.stop], mutant))
            places[mutant.start, mutant.stop] += 1
        ranked.sort(key=lambda pair: pair[0])  # stable: the order within a rank is that of the draw
        drawn += [mutant for _, mutant in ranked[: numbers[path]]]
    return drawn


class _Finder(ast.NodeVisitor):
    """Walks a syntax tree and collects its mutants."""

    def __init__(self, path: str, source: str) -> None:
        self.path, self.found = path, list[Mutant]()
        self.lines = source.encode().splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))
        self.data = source.encode()
        self.names: list[str] = []
        self.scopes = [(1, len(self.lines))]
        self.statement = (1, 1)
        self.runs_at_import = True
        self.returns: list[str] = []
        self.seen = Counter[tuple[str, str, str]]()

    def add(self, node: ast.expr | ast.stmt, kind: str, after: str) -> None:
        start = self.starts[node.lineno - 1] + node.col_offset
        stop = self.starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        before, function = self.data[start:stop].decode(), ".".join(self.names)
        same = (function, before, after)
        self.found.append(
            Mutant(
                path=self.path, line=self.statement[0],
                lines=self.scopes[-1] if self.runs_at_import else self.statement, scope=self.scopes[-1],
                function=function, kind=kind, before=before, after=after, number=self.seen[same],
                start=start, stop=stop,
            )
        )  # fmt: skip
        self.seen[same] += 1

    def replace(self, node: ast.expr, kind: str, change: Callable[[ast.expr], object]) -> None:
        """Adds a mutant: a copy of an expression, changed, in parentheses."""
        changed = copy.deepcopy(node)
        change(changed)
        self.add(node, kind, f"({ast.unparse(changed)})")

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
            return
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            end = body[0].lineno - 1 if body else node.end_lineno or 0
            self.statement = (node.lineno, max(end, node.lineno))
        if isinstance(node, ast.If | ast.IfExp | ast.While) and ast.unparse(node.test) != "TYPE_CHECKING":
            self._condition(node.test)
        super().visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            kept = self.statement
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self.visit(child)
                    self.statement = kept

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name not in SILENT:
            self.returns.append("" if node.returns is None else ast.unparse(node.returns))
            with self._inside(node):
                self.visit(node.args)
                kept, self.runs_at_import = self.runs_at_import, False
                for statement in node.body:
                    self.visit(statement)
                self.runs_at_import = kept
            self.returns.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        with self._inside(node):
            self.generic_visit(node)

    @contextmanager
    def _inside(self, node: ast.FunctionDef | ast.ClassDef) -> Iterator[None]:
        self.names.append(node.name)
        self.scopes.append((node.body[0].lineno, node.end_lineno or 0))
        yield
        self.scopes.pop()
        self.names.pop()

    def visit_Compare(self, node: ast.Compare) -> None:
        for i, operator in enumerate(node.ops):
            new = COMPARISONS[type(operator)]()
            self.replace(node, "comparison", lambda copied, i=i, new=new: copied.ops.__setitem__(i, new))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        is_text = any(isinstance(side, ast.JoinedStr) for side in (node.left, node.right))
        if type(node.op) in OPERATORS and not is_text:
            new = OPERATORS[type(node.op)]()
            self.replace(node, "arithmetic", lambda copied: setattr(copied, "op", new))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        new = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self.replace(node, "and/or", lambda copied: setattr(copied, "op", new))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            self.add(node, "dropped sign or not", f"({ast.unparse(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.add(node, "True/False", str(not value))
        elif isinstance(value, int):
            step = 1 if value == 0 or node.col_offset % 2 else -1
            self.add(node, "integer", f"({value + step})")
        elif isinstance(value, float):
            new = 1.0 if value == 0 else value * (2 if abs(value) >= TINY else 1000)
            self.add(node, "float", f"({new!r})")

    def _condition(self, test: ast.expr) -> None:
        """Negates a condition that no other rule changes."""
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant | ast.NamedExpr):
            self.add(test, "negated condition", f"(not {ast.unparse(test)})")

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._condition(test)
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and self.returns[-1] not in ("", "None"):
            if self.returns[-1] == "bool":
                self._condition(node.value)
            elif ast.unparse(node.value) != "None":
                self.add(node.value, "returned None", "None")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.add(node, "dropped statement", "pass")
        if type(node.op) in OPERATORS:
            changed = copy.deepcopy(node)
            changed.op = OPERATORS[type(node.op)]()
            self.add(node, "arithmetic", ast.unparse(changed))
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant) or _is_logged(node.value):
            return
        if isinstance(node.value, ast.Call):
            self.add(node, "dropped statement", "pass")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if _is_logged(node):
            return
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in TWINS:
            attribute = "attr" if isinstance(node.func, ast.Attribute) else "id"
            self.replace(node, "min/max", lambda copied: setattr(copied.func, attribute, TWINS[name]))
        if name in ("isinstance", "issubclass"):  # the union of types is not arithmetic
            self.visit(node.args[0])
            return
        for i, keyword in enumerate(node.keywords):
            if keyword.arg is not None:
                self.replace(node, "dropped keyword", lambda copied, i=i: copied.keywords.pop(i))
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if _is_type(node):
            return
        self.generic_visit(node)


def _is_logged(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[0] in LOGGERS


def _is_type(node: ast.Subscript) -> bool:
    """Whether it names a type, such as `dict[str, int]` or `Float[Tensor, "n"]`."""
    base = ast.unparse(node.value)
    return base in ("dict", "list", "set", "tuple", "type") or base.rpartition(".")[2][:1].isupper()
