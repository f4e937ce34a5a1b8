"""What a config must look like: its sections, plain data, and arguments that the named classes take.

Nothing is imported: `vq.signatures` reads what a class takes from its source text.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from vq import signatures
from vq.errors import ConfigError
from vq.slots import CodeName, argument_problems, check_depth, filled_in, kind_of, runtime_hint
from vq.text import shown, suggest

SECTIONS = (
    "train_data",
    "val_data",
    "tokenizer",
    "generator",
    "probe",
    "train_step",
    "trainer",
    "evaluator",
    "checkpointer",
    "comparison",
    "contestants",
)
"""The top-level keys of a config, in the order in which a page gives them."""

CONTESTANTS = "contestants"
"""The section that is not a part: it has a name and changes of the page for each (`vq.config.contestants`)."""

OVER_TOKENIZER = ("generator", "probe")
"""The sections of a model that is trained over a frozen tokenizer; a page has at most one of them."""

Tree = dict[str, Any]


def trained_section(config: Mapping[str, Any]) -> str:
    """The name of the section that a page trains: `generator` or `probe` if there is one, else `tokenizer`."""
    return next((name for name in OVER_TOKENIZER if name in config), "tokenizer")


def check(tree: Mapping[str, Any]) -> None:
    """Checks each key of a config, and the type of each plain value, against the classes it names.

    Raises:
        ConfigError: For an unknown section, class or argument, with the nearest valid one; for a value that an
            annotation contradicts; and for an argument that the command fills in.
    """
    if len(both := [name for name in OVER_TOKENIZER if name in tree]) > 1:
        raise ConfigError(
            f"a page trains one model, but this one has the sections {' and '.join(both)}; remove one"
        )
    for key, value in tree.items():
        if key not in SECTIONS:
            raise ConfigError(f"unknown section {shown(key)}{suggest(key, SECTIONS)}")
        if key == CONTESTANTS:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{key}: expected dict(name=dict(...), ...), got {shown(value)}")
            continue
        if not isinstance(value, Mapping) or "type" not in value:
            raise ConfigError(f"{key}: expected dict(type=..., ...), got {shown(value)}")
        _check_value(value, key)


def nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every `dict(type=...)` of a config, the outer before the inner."""
    if isinstance(value, Mapping):
        if "type" in value:
            yield value
        value = list(value.values())
    for child in value if isinstance(value, list) else ():
        yield from nodes(child)


def plain(value: Any, path: str) -> Any:
    """A copy of a value with lists for tuples, so that a config equals its own JSON.

    Parts that share a variable of the page become separate parts, so that an override changes one of them.

    Raises:
        ConfigError: For anything that JSON cannot hold.
    """
    check_depth(path)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(f"{path}: expected text as the keys of a dict, got {shown(key)}")
        return {k: plain(v, f"{path}.{k}" if path else k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, f"{path}[{i}]") for i, v in enumerate(value)]
    raise ConfigError(f"{path}: a config holds plain data, got {type(value).__name__} {shown(value)}")


def valid_keys(node: Mapping[str, Any], path: str) -> list[str]:
    """The keys that a dict at the place `path` may have; the empty path is the whole config."""
    if not path:
        return list(SECTIONS)
    signature = _signature(node, path) if "type" in node else None
    return ["type", *signature.names] if signature else list(node)


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
    at_run_time = filled_in(path)
    for key in given:
        if key in at_run_time and key in signature.names:
            raise ConfigError(f"{path}.{key}: {runtime_hint(path, key)}")
    names = [name for name in signature.names if name not in at_run_time]
    # What is missing may come at run time, so only `build` can tell.
    if problem := argument_problems(node["type"].rpartition(".")[2], given, names, []):
        raise ConfigError(f"{path}: {problem}")
    for key in given:
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
    if not isinstance(name, CodeName) and not signatures.has_name(module, attribute):
        name = signatures.moved_to(name) or name  # a stored config may be older than the present modules
        module, _, attribute = name.rpartition(".")
    if not signatures.has_module(module):
        raise ConfigError(f"{path}.type: there is no module {module!r}")
    if signatures.has_name(module, attribute) is False:
        hint = suggest(attribute, signatures.public_names(module))
        raise ConfigError(f"{path}.type: {module} has no {attribute!r}{hint}")
    return signatures.signature(name)
