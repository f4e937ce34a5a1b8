"""Reads the arguments of a class from its source text, without importing anything.

A misspelt key must be reported at once, but importing torch takes seconds. So configs are checked
against the *text* of the classes they name; `vq.registry.build` checks the real signature again.
"""

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from vq.moved import MOVED

_MAX_HOPS = 12  # re-exports followed before giving up
_PLAIN_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
}
_SEQUENCES = ("Sequence", "list", "tuple", "Collection", "Iterable")
_MAPPINGS = ("Mapping", "dict")
_NO_ARGUMENTS = ("ABC", "object", "nn.Module", "torch.nn.Module", "Generic")  # as bases add none


@dataclass(frozen=True, slots=True)
class Annotation:
    """The annotation of an argument, and the module whose names it uses."""

    expression: ast.expr
    module: str


@dataclass(frozen=True, slots=True)
class Signature:
    """The arguments of a class or function.

    The keys of a TypedDict count as arguments where there is `**name: Unpack[TheTypedDict]`.

    Attributes:
        names: Of all arguments, in order.
        required: Names of the arguments without a default.
        annotations: Name -> annotation, for arguments that have one.
    """

    names: tuple[str, ...]
    required: tuple[str, ...]
    annotations: Mapping[str, Annotation] = field(default_factory=dict)

    def expected(self, name: str, value: object) -> str | None:
        """The annotation of an argument as text if a plain value contradicts it; None if it fits or nothing tells.

        Functions, which no config can have, are left out of the text.
        """
        annotation = self.annotations.get(name)
        if annotation is None or _fits(annotation.expression, value, annotation.module):
            return None
        members = [text for text in _alternatives(annotation.expression) if not text.startswith("Callable[")]
        return " | ".join(members) or ast.unparse(annotation.expression)


@dataclass(frozen=True, slots=True)
class _Definition:
    module: str
    node: ast.ClassDef | ast.FunctionDef


def has_module(module: str) -> bool:
    """Whether a module with this full name can be found (it is not imported)."""
    return _file(module) is not None


def public_names(module: str) -> list[str]:
    """The names that a module defines or re-exports, without a leading underscore."""
    tree = _parse(module)
    return [] if tree is None else sorted({name for name in _bindings(tree) if not name.startswith("_")})


def has_name(module: str, name: str) -> bool | None:
    """Whether `module` offers `name`; None if its text cannot tell (a star import, a binary module)."""
    tree = _parse(module)
    if tree is None:
        return None
    bindings = _bindings(tree)
    if name in bindings or _file(f"{module}.{name}") is not None:
        return True
    return None if "*" in bindings or "__getattr__" in bindings else False


def moved_to(dotted: str) -> str | None:
    """The name under which its package offers a class whose module has moved; None if it does not offer it.

    A stored config keeps the full names of the version that wrote it. Modules move inside their package, and the
    package itself goes on offering the class.

    Example:
        >>> moved_to("vq.engine.schedules.WarmupCosine")
        'vq.engine.WarmupCosine'
        >>> moved_to("vq.engine.schedules.L1Loss")
    """
    package, name = ".".join(dotted.split(".")[:2]), dotted.rpartition(".")[2]
    return f"{package}.{name}" if has_name(package, name) else None


@lru_cache(maxsize=4096)
def signature(dotted: str) -> Signature | None:
    """The arguments of the class or function with this full name.

    Returns:
        None if the text does not tell, or if any keyword is taken (`**kwargs` without `Unpack`).
    """
    module, _, name = dotted.rpartition(".")
    return _signature_of(_find(module, name))


def _signature_of(definition: _Definition | None) -> Signature | None:
    if definition is None:
        return None
    if isinstance(definition.node, ast.FunctionDef):
        return _from_arguments(definition.node.args, definition.module, skip=0)
    for item in definition.node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _from_arguments(item.args, definition.module, skip=1)
        if isinstance(item, ast.FunctionDef) and item.name == "__new__":
            return None
    if any("dataclass" in ast.unparse(decorator) for decorator in definition.node.decorator_list):
        fields = [item for item in _fields(definition.node) if "ClassVar" not in ast.unparse(item.annotation)]
        return Signature(
            names=tuple(_name(item) for item in fields),
            required=tuple(_name(item) for item in fields if item.value is None),
            annotations={_name(item): Annotation(item.annotation, definition.module) for item in fields},
        )
    return _inherited(definition)


def _fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    """The annotated names in the body of a dataclass or TypedDict."""
    return [
        item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]


def _name(item: ast.AnnAssign) -> str:
    return ast.unparse(item.target)


def _inherited(definition: _Definition) -> Signature | None:
    """The constructor of a class that has none of its own."""
    for given in definition.node.bases if isinstance(definition.node, ast.ClassDef) else []:
        base = given.value if isinstance(given, ast.Subscript) else given  # Base[T] -> Base
        if ast.unparse(base) in _NO_ARGUMENTS:
            continue
        return _signature_of(_find(definition.module, base.id)) if isinstance(base, ast.Name) else None
    return Signature((), ())


def _from_arguments(arguments: ast.arguments, module: str, *, skip: int) -> Signature | None:
    keys = Signature((), ())
    if arguments.kwarg is not None:
        unpacked = _unpacked(arguments.kwarg.annotation, module)
        if unpacked is None:
            return None
        keys = unpacked
    positional = [a.arg for a in arguments.posonlyargs + arguments.args][skip:]
    with_default = len(arguments.defaults)
    required = positional[: len(positional) - with_default]
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    required += [a.arg for a, default in pairs if default is None]
    names = tuple(positional + [a.arg for a in arguments.kwonlyargs])
    everything = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
    annotations = {a.arg: Annotation(a.annotation, module) for a in everything if a.annotation is not None}
    return Signature(names + keys.names, (*required, *keys.required), {**annotations, **keys.annotations})


def _unpacked(annotation: ast.expr | None, module: str) -> Signature | None:
    """The keys of the TypedDict in `Unpack[TheTypedDict]`, as arguments; None for any other annotation."""
    if (
        not isinstance(annotation, ast.Subscript)
        or ast.unparse(annotation.value).rpartition(".")[2] != "Unpack"
    ):
        return None
    found = _find(module, annotation.slice.id) if isinstance(annotation.slice, ast.Name) else None
    return None if found is None else _keys_of(found)


def _keys_of(definition: _Definition) -> Signature | None:
    """The keys of a TypedDict, those of its bases first."""
    if not isinstance(definition.node, ast.ClassDef):
        return None
    is_total = not any(k.arg == "total" and ast.unparse(k.value) == "False" for k in definition.node.keywords)
    names: list[str] = []
    required: list[str] = []
    annotations: dict[str, Annotation] = {}
    for base in definition.node.bases:
        if ast.unparse(base).rpartition(".")[2] == "TypedDict":
            continue
        found = _find(definition.module, base.id) if isinstance(base, ast.Name) else None
        inherited = None if found is None else _keys_of(found)
        if inherited is None:
            return None
        names += inherited.names
        required += inherited.required
        annotations |= inherited.annotations
    for item in _fields(definition.node):
        expression, is_required = item.annotation, is_total
        wrapper = ast.unparse(expression.value) if isinstance(expression, ast.Subscript) else ""
        if isinstance(expression, ast.Subscript) and wrapper in ("Required", "NotRequired"):
            expression, is_required = expression.slice, wrapper == "Required"
        names.append(_name(item))
        required += [_name(item)] * is_required
        annotations[_name(item)] = Annotation(expression, definition.module)
    return Signature(tuple(names), tuple(required), annotations)


def _fits(annotation: ast.expr, value: object, module: str) -> bool:
    """Whether a plain value may have this annotation; True where the annotation says nothing about plain values."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.Constant):
        return annotation.value is not None or value is None
    if isinstance(value, Mapping) and "type" in value:
        return True  # what is built of it is seen later
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _fits(annotation.left, value, module) or _fits(annotation.right, value, module)
    if isinstance(annotation, ast.Subscript):
        return _fits_subscript(annotation, value, module)
    name = ast.unparse(annotation)
    if name in _PLAIN_TYPES:
        return type(value) in _PLAIN_TYPES[name]
    return not _is_part(name, module)


def _alternatives(annotation: ast.expr) -> list[str]:
    """The members of a union, as text."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _alternatives(annotation.left) + _alternatives(annotation.right)
    return [ast.unparse(annotation)]


def _is_part(name: str, module: str) -> bool:
    """Whether an annotation names a class of ours or of torch, for which a config has dict(type=...)."""
    if name in ("nn.Module", "torch.nn.Module"):
        return True
    found = _find(module, name) if name.isidentifier() else None
    if found is None or not isinstance(found.node, ast.ClassDef):
        return False
    return found.module.partition(".")[0] in (module.partition(".")[0], "torch")


def _fits_subscript(annotation: ast.Subscript, value: object, module: str) -> bool:
    name = annotation.value.id if isinstance(annotation.value, ast.Name) else ""
    inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    if name == "Literal":
        allowed = [item.value for item in inner if isinstance(item, ast.Constant)]
        return len(allowed) < len(inner) or any(value == a and type(value) is type(a) for a in allowed)
    if name in _SEQUENCES:
        if not isinstance(value, list | tuple):
            return False
        is_fixed = name == "tuple" and not (
            isinstance(inner[-1], ast.Constant) and inner[-1].value is Ellipsis
        )
        if is_fixed:
            return len(value) == len(inner) and all(
                _fits(each, item, module) for each, item in zip(inner, value, strict=True)
            )
        return all(_fits(inner[0], item, module) for item in value)
    if name == "Callable":
        return False  # a config has dict(type=...) for it
    if name in _MAPPINGS:
        return isinstance(value, Mapping) and all(_fits(inner[-1], item, module) for item in value.values())
    return True


@lru_cache(maxsize=4096)
def _find(module: str, name: str, hops: int = 0) -> _Definition | None:
    """The definition behind `module.name`, followed through re-exports."""
    tree = _parse(module)
    if tree is None or hops > _MAX_HOPS:
        return None
    stars = []
    for node in _statements(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return _Definition(module, node)
        if isinstance(node, ast.ImportFrom):
            source = _absolute(node, module)
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find(source, alias.name, hops + 1)
                if alias.name == "*":
                    stars.append(source)
    for source in stars:
        if found := _find(source, name, hops + 1):
            return found
    return None


def _absolute(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    file = _file(module)
    package = module.split(".")
    drop = node.level - 1 if file is not None and file.name == "__init__.py" else node.level
    return ".".join([*package[: len(package) - drop], *([node.module] if node.module else [])])


def _statements(tree: ast.Module) -> list[ast.stmt]:
    """The statements of a module, with those under a top-level `if` or `try`."""
    found: list[ast.stmt] = []
    queue = list(tree.body)
    while queue:
        node = queue.pop(0)
        found.append(node)
        if isinstance(node, ast.If | ast.Try):
            queue += [*node.body, *node.orelse]
    return found


def _bindings(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in _statements(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


@lru_cache(maxsize=512)
def _parse(module: str) -> ast.Module | None:
    file = _file(module)
    if file is None or file.suffix != ".py":
        return None
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


@lru_cache(maxsize=512)
def _file(module: str) -> Path | None:
    top, *rest = MOVED.get(module, module).split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        return None
    try:
        spec = importlib.util.find_spec(top)  # a top-level module is found without being imported
    except (ImportError, ValueError):
        return None
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        return None
    # A folder of modules without an __init__.py has no file itself.
    folders = [Path(folder) / "__init__.py" for folder in spec.submodule_search_locations or ()]
    file = folders[0] if spec.origin is None else Path(spec.origin)
    for part in rest:
        if file.name != "__init__.py":
            return None
        package, single = file.parent / part / "__init__.py", file.parent / f"{part}.py"
        if package.is_file():
            file = package
        elif single.is_file():
            file = single
        else:
            return None
    return None if spec.origin is None and not file.is_file() else file
