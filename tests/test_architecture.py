"""Rules of the package structure: imports point down only, and functions, constructors and folders stay small."""

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

LAYERS = [
    {
        "ops",
        "optimizers",
        "registry",
        "config",
        "distributed",
        "download",
        "known_weights",
        "moved",
        "pretrained",
        "signatures",
        "slots",
        "errors",
        "files",
        "packages",
        "text",
        "torchscript",
        "zoo",
    },
    {"layers"},
    {"networks"},
    {"quantizers", "losses", "metrics", "data"},
    {"interop"},
    {"tokenizers"},
    {"generators", "probes", "exporting"},
    {"engine"},
]
COMMANDS = len(LAYERS)  # vq/train.py and its siblings
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ROOT = Path(__file__).parents[1] / "vq"
FILES = sorted(ROOT.rglob("*.py"))


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "vq":
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in LEVEL)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vq."):
            yield node.lineno, str(node.module).split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    home = package_of(path)
    if home == "__init__":
        return
    for line, target in imported(path):
        both_are_commands = LEVEL.get(home, COMMANDS) == COMMANDS
        allowed = target == home or both_are_commands or LEVEL.get(target, COMMANDS) < LEVEL[home]
        # The modules of the lowest level work together: registry, config and signatures.
        allowed = allowed or LEVEL.get(home) == LEVEL.get(target) == 0
        assert allowed, f"{path.relative_to(ROOT.parent)}:{line}: vq.{home} may not import vq.{target}"


def _runs(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module that run: all but those under `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _runs(child)


@pytest.mark.parametrize("module", ["mmengine.config", "mmengine.registry"])
def test_mmengine_is_imported_by_two_modules_only(module: str) -> None:
    users = [
        str(path.relative_to(ROOT))
        for path in FILES
        if any(
            isinstance(n, ast.ImportFrom) and n.module == module for n in _runs(ast.parse(path.read_text()))
        )
    ]
    assert users == [{"mmengine.config": "config/__init__.py", "mmengine.registry": "registry.py"}[module]]


def test_nothing_is_evaluated_and_no_pickle_is_trusted() -> None:
    for path in [*FILES, *(ROOT.parent / "tools").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                place = f"{path}:{node.lineno}: {name}"
                assert name not in ("eval", "pickle.load", "pickle.loads", "np.load(allow_pickle=True)"), (
                    place
                )
                if name == "exec":  # a config page is code, and is the only code that is run
                    assert path == ROOT / "config" / "pages.py", place
                if name == "torch.load":
                    assert any(
                        k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords
                    ), place


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_functions_have_at_most_50_lines() -> None:
    """The whole text of a function counts: its decorators excepted, its docstring included."""
    too_long = [
        f"{path.relative_to(ROOT.parent)}:{node.lineno}: {node.name} has {length} lines"
        for path in FILES
        for node in functions(path)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > 50
    ]
    assert not too_long, "\n".join(too_long)


def test_constructors_have_at_most_8_arguments() -> None:
    too_many = [
        f"{path.relative_to(ROOT.parent)}:{node.lineno}: a constructor with {count} arguments"
        for path in FILES
        for node in functions(path)
        if node.name == "__init__" and (count := len(node.args.args) + len(node.args.kwonlyargs) - 1) > 8
    ]
    assert not too_many, "\n".join(too_many)


JAXTYPING = {"Bool", "Float", "Float32", "Float64", "Int", "Int64", "Shaped", "UInt8"}


def has_bare_tensor(annotation: ast.expr) -> bool:
    """Whether `Tensor` stands anywhere in an annotation but inside a jaxtyping shape."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) in JAXTYPING:
        return False
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return has_bare_tensor(ast.parse(annotation.value, mode="eval").body)
    if ast.unparse(annotation) in ("Tensor", "torch.Tensor"):
        return True
    return any(has_bare_tensor(c) for c in ast.iter_child_nodes(annotation) if isinstance(c, ast.expr))


def public_functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    """Functions and methods whose name, and the names of the classes around them, have no leading underscore."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child)
        elif isinstance(child, ast.FunctionDef) and (child.name[0] != "_" or child.name.endswith("__")):
            yield child


def test_public_tensors_have_a_shape() -> None:
    bare = []
    for path in FILES:
        for function in public_functions(ast.parse(path.read_text())):
            arguments = function.args
            named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            named += [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]
            annotations = {argument.arg: argument.annotation for argument in named}
            annotations["return"] = function.returns
            bare += [
                f"{path.relative_to(ROOT.parent)}:{function.lineno}: {function.name}: {name} is a Tensor "
                f"without a shape"
                for name, annotation in annotations.items()
                if annotation is not None and has_bare_tensor(annotation)
            ]
    assert not bare, "\n".join(bare)


def test_the_shapes_of_every_package_that_names_some_are_checked_at_run_time() -> None:
    lines = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    checked = re.search(r"--jaxtyping-packages=(\S+)", lines["addopts"])
    assert checked is not None
    for path in sorted(ROOT.rglob("*.py")):
        if "jaxtyping" in path.read_text():
            package = path.relative_to(ROOT).parts[0].removesuffix(".py")
            assert f"vq.{package}" in checked.group(1).split(","), path


def test_a_tensor_without_a_shape_is_found() -> None:
    for annotation, is_bare in {
        "Tensor": True,
        "torch.Tensor | None": True,
        "list[Tensor]": True,
        "Callable[[Float[Tensor, 'n']], Tensor]": True,
        "'Tensor'": True,
        "Float[Tensor, '*lead dim'] | None": False,
        "dict[str, Int[Tensor, '']]": False,
    }.items():
        assert has_bare_tensor(ast.parse(annotation, mode="eval").body) == is_bare, annotation


def test_folders_have_at_most_18_files() -> None:
    """The top level is excepted: it holds the commands."""
    counts = Counter(path.parent for path in FILES if path.parent != ROOT)
    assert not {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > 18}


def test_quantizers_call_public_methods_of_what_they_hold() -> None:
    """A wrapper or a codebook may call a private method of itself only, so that any inner part will do."""
    private = [
        f"{path.relative_to(ROOT.parent)}:{node.lineno}: {ast.unparse(node)}"
        for folder in ("wrappers", "codebooks")
        for path in sorted((ROOT / "quantizers" / folder).glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__")
        if ast.unparse(node.value) not in ("self", "cls", "super()")
    ]
    assert not private, "\n".join(private)


ENGINE_PACKAGES = [
    "strategies",
    "steps",
    "evaluation",
    "callbacks",
    "loop",
    "reporting",
    "assembly",
    "doctor",
    "jobs",
    "comparison",
    "on_ray",
]
"""From the lowest to the highest: a package imports only itself and those before it."""


def engine_imports(path: Path) -> Iterator[tuple[int, str]]:
    """The packages of the engine that a file imports, wherever the import stands; "" for `vq.engine` itself."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module == "vq.engine":
            names = [f"vq.engine.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("vq.engine"):
                package = f"{name}..".split(".")[2]
                yield node.lineno, package if package in ENGINE_PACKAGES else ""


def test_imports_inside_the_engine_point_down() -> None:
    files = [path for path in FILES if path.parent.parent == ROOT / "engine"]
    assert {path.parent.name for path in files} == set(ENGINE_PACKAGES)
    wrong = [
        f"{path.relative_to(ROOT.parent)}:{line}: engine.{path.parent.name} may not import engine.{package}"
        for path in files
        for line, package in engine_imports(path)
        if package not in ENGINE_PACKAGES[: ENGINE_PACKAGES.index(path.parent.name) + 1]
    ]
    assert not wrong, "\n".join(wrong)
