"""The registries of all classes that a config may name, and `build`, which makes objects of config nodes.

The decorator `@QUANTIZERS.register_module()` leaves a class as it is: every class of this project
can be used in plain Python, without a config. This is the only importer of `mmengine.registry`.

Data may name registered classes only. A name that a page gives is a `CodeName`, which `build` imports from anywhere;
JSON and the metadata of weight files hold plain strings, which are only looked up in the registries.
"""

import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack, get_args, get_origin

from vq import signatures, slots
from vq.errors import ConfigError, UserError
from vq.packages import no_cache_folder
from vq.slots import CodeName, argument_problems, check_depth, filled_in, runtime_hint
from vq.text import shown, suggest

with no_cache_folder():
    from mmengine.registry import Registry

REGISTRIES: dict[str, Registry] = {
    kind.name: Registry(kind.name, scope="vq", locations=[kind.package])
    for kind in dict.fromkeys((*slots.SLOTS.values(), slots.CALLBACK))
}
"""Every registry by the name of its kind, such as `quantizer`."""

QUANTIZERS = REGISTRIES["quantizer"]
CODEBOOKS = REGISTRIES["codebook"]
QUANTIZER_PARTS = REGISTRIES["quantizer part"]
ENCODERS = REGISTRIES["encoder"]
DECODERS = REGISTRIES["decoder"]
LAYERS = REGISTRIES["layer"]
FEATURE_NETWORKS = REGISTRIES["feature network"]
TEACHERS = REGISTRIES["teacher"]
DISCRIMINATORS = REGISTRIES["discriminator"]
TOKENIZERS = REGISTRIES["tokenizer"]
GENERATORS = REGISTRIES["generator"]
SAMPLING_PARTS = REGISTRIES["sampling part"]
PROBES = REGISTRIES["probe"]
PROBE_FEATURES = REGISTRIES["probe features"]
LOSSES = REGISTRIES["loss"]
ADVERSARIAL_PARTS = REGISTRIES["adversarial part"]
METRICS = REGISTRIES["metric"]
DATASETS = REGISTRIES["dataset"]
TRANSFORMS = REGISTRIES["transform"]
LOADERS = REGISTRIES["loader"]
STEPS = REGISTRIES["train step"]
SCHEDULES = REGISTRIES["schedule"]
CALLBACKS = REGISTRIES["callback"]
ENGINES = REGISTRIES["engine part"]
OPTIMIZERS = REGISTRIES["optimizer"]

SLOTS: dict[str, Registry] = {key: REGISTRIES[kind.name] for key, kind in slots.SLOTS.items()}
"""Which registry a config key draws from. Below any other key, a class is given by its full name."""


def build(
    node: Mapping[str, Any], *, path: str, shared: Mapping[str, Any] | None = None, **runtime: Any
) -> Any:
    """Builds the object that a config node describes, its children first.

    Classes never see a config: a nested node arrives in `__init__` as the built object. If its class needs what only
    the class around it knows (an optimizer its parameters), it arrives as a function of that. The names of all
    arguments are compared with the class before anything inside the node is built.

    Args:
        node: `dict(type="module.Class" or "ShortName", **arguments)`. Python code may give the class itself.
        path: The node's place in the config, such as `tokenizer.quantizer`; errors start with it,
            and its last key says which registry a short name is looked up in (`SLOTS`).
        shared: Values that exist only at run time, for the node and all nodes inside it. Each takes those that
            `RUNTIME` lists for its place and its class has as arguments.
        **runtime: Arguments of this node alone that exist only at run time. A node that has one of them too is refused.

    Raises:
        ConfigError: If the class is unknown, or not registered and not named by code; an argument is unknown, missing
            or given at run time; the class refuses a value; the class is of the wrong kind for its place; or the
            node is nested too deeply.
    """
    factory, _ = _factory(node, path, shared or {}, runtime, is_nested=False)
    return factory()


def _factory(
    node: Any, path: str, shared: Mapping[str, Any], runtime: Mapping[str, Any], *, is_nested: bool
) -> "tuple[partial[Any], bool]":
    """The class of a node with its arguments, and whether these are all.

    Only those of a nested node may be incomplete: without arguments of `RUNTIME`, which the class around it knows.
    """
    check_depth(path)
    if not isinstance(node, Mapping):
        raise ConfigError(f"{path}: expected dict(type=..., ...), got {shown(node)}")
    target = resolve(node.get("type"), path)
    takes = arguments_of(target, path)
    at_run_time = filled_in(path)
    known = {name: shared[name] for name in at_run_time if name in shared and takes.accepts(name)} | dict(
        runtime
    )
    unknown = [name for name in at_run_time if is_nested and name in takes.is_required and name not in known]
    for key in node:
        if key in known or key in unknown:
            raise ConfigError(f"{path}.{key}: {runtime_hint(path, key)}")
    given = [key for key in node if key != "type"]
    if not takes.is_open:
        required = [name for name, needed in takes.is_required.items() if needed and name not in unknown]
        if problem := argument_problems(_name(target), [*given, *known], list(takes.is_required), required):
            raise ConfigError(f"{path}: {problem}")
    arguments = {key: build_value(node[key], path=f"{path}.{key}", shared=shared) for key in given}
    return partial(_construct, node["type"], target, path, **arguments, **known), not unknown


def _construct(name_in_node: Any, target: Any, path: str, /, *args: Any, **kwargs: Any) -> Any:
    """Calls a class; what it refuses is a `ConfigError` that starts with the place of the node."""
    try:
        return target(*args, **kwargs)
    except UserError as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"{path}: {error}") from error
    except FileNotFoundError as error:  # weights or statistics; the message says where to get them
        raise ConfigError(f"{path}: {_name(target)} lacks a file: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {_name(target)} refuses its arguments: {error}") from error
    except Exception as error:  # a value from a file can make a class raise any error
        if isinstance(name_in_node, CodeName):
            raise
        raise ConfigError(
            f"{path}: {_name(target)} refuses its arguments: {type(error).__name__}: {error}"
        ) from error


def build_value(value: Any, *, path: str, shared: Mapping[str, Any] | None = None) -> Any:
    """Builds whatever nodes are inside a value: a node, or a dict or list that holds some.

    A node whose class takes arguments of `RUNTIME` that are not in `shared` becomes a function of these.
    """
    check_depth(path)
    if isinstance(value, Mapping):
        if "type" in value:
            factory, is_complete = _factory(value, path, shared or {}, {}, is_nested=True)
            return factory() if is_complete else factory
        return {k: build_value(v, path=f"{path}.{k}", shared=shared) for k, v in value.items()}
    if isinstance(value, list | tuple):
        built = [build_value(v, path=f"{path}[{i}]", shared=shared) for i, v in enumerate(value)]
        return tuple(built) if isinstance(value, tuple) else built
    return value


def resolve(name: Any, path: str) -> Any:
    """The class or function that a node's `type` names.

    Args:
        name: A full dotted name, or a short name of the registry that `path` draws from. Only a `CodeName` may
            name a class outside the registries.
        path: The node's place.

    Raises:
        ConfigError: If there is no such class, or it is of the wrong kind for this place.
    """
    if callable(name):
        return name
    if not isinstance(name, str):
        raise ConfigError(f"{path}.type: expected the name of a class, got {shown(name)}")
    registry = slot_of(path)
    if "." in name:
        target = _import(name, path) if isinstance(name, CodeName) else _registered(name, path)
        if registry is not None:
            _check_slot(target, registry, path)
        return target
    if registry is None:
        raise ConfigError(
            f"{path}.type: give {shown(name)} by its full dotted name; this place has no short names"
        )
    registry.import_from_location()
    target = registry.module_dict.get(name)  # `Registry.get` would import a module of this name
    if target is None:
        known = sorted(registry.module_dict)
        raise ConfigError(f"{path}.type: no {registry.name} is called {shown(name)}{suggest(name, known)}")
    return target


def _registered(name: str, path: str) -> Any:
    """The registered class of this name; only modules that the registries import are imported."""
    for target in registered_classes():
        if name == f"{target.__module__}.{target.__qualname__}":
            return target
    for other in (
        name,
        signatures.moved_to(name),
    ):  # a re-export, then the package of a module that has moved
        module, _, attribute = (other or "").rpartition(".")
        target = vars(sys.modules[module]).get(attribute) if _is_of_registries(module) else None
        if target is not None and any(target is known for known in registered_classes()):
            return target
    module, _, attribute = name.rpartition(".")
    if module.startswith("vq.") and not signatures.has_module(module):
        raise ConfigError(f"{path}.type: there is no module {shown(module)} (for {shown(name)})")
    if module.startswith("vq.") and signatures.has_name(module, attribute) is False:
        hint = suggest(attribute, signatures.public_names(module))
        raise ConfigError(f"{path}.type: {module} has no {shown(attribute)}{hint}")
    raise ConfigError(
        f"{path}.type: {shown(name)[1:-1]} is not a class of vq's registries, and a config in a file (JSON, weights) "
        f"may name only those; for a class of your own, give the page (.py) that names it as CONFIG"
    )


def _is_of_registries(module: str) -> bool:
    return module.partition(".")[0] in ("vq", "torch") and module in sys.modules


def _check_slot(target: Any, registry: Registry, path: str) -> None:
    if any(target is own for own in registry.module_dict.values()):
        return
    for other in REGISTRIES.values():
        if any(target is theirs for theirs in other.module_dict.values()):
            raise ConfigError(f"{path}: expected a {registry.name}, got {_name(target)}, a {other.name}")


def slot_of(path: str) -> Registry | None:
    """The registry that the place `path` draws from, if it draws from one."""
    kind = slots.kind_of(path)
    return None if kind is None else REGISTRIES[kind.name]


def registered_classes() -> list[Any]:
    """Every class that a config from a file may name: those in any registry but that of the callbacks."""
    registries = [registry for registry in REGISTRIES.values() if registry is not CALLBACKS]
    for registry in registries:
        registry.import_from_location()
    return [target for registry in registries for target in registry.module_dict.values()]


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a class or function.

    The keys of a TypedDict count as arguments where there is `**name: Unpack[TheTypedDict]`.

    Attributes:
        is_required: Name -> whether the argument has no default, in order.
        is_open: Whether any other keyword is accepted too (`**kwargs`).
    """

    is_required: Mapping[str, bool]
    is_open: bool = False

    def accepts(self, name: str) -> bool:
        """Whether there may be an argument of this name."""
        return self.is_open or name in self.is_required


def arguments_of(target: Any, path: str) -> Arguments:
    """The arguments of the class or function that a config names at a place.

    Raises:
        ConfigError: If the target is neither a class nor a function.
    """
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        raise ConfigError(f"{path}.type: {_name(target)} is not a class or function") from None
    if getattr(target.__init__, "__qualname__", "") == "Module.__init__":
        return Arguments({})  # torch's own constructor accepts any argument
    found: dict[str, bool] = {}
    is_open = False
    for parameter in parameters:
        if parameter.kind is not parameter.VAR_KEYWORD:
            if parameter.kind is not parameter.VAR_POSITIONAL:
                found[parameter.name] = parameter.default is parameter.empty
        elif get_origin(parameter.annotation) is Unpack:
            (keys,) = get_args(parameter.annotation)
            found |= {name: name in keys.__required_keys__ for name in keys.__annotations__}
        else:
            is_open = True
    return Arguments(found, is_open)


def _name(target: Any) -> str:
    return getattr(target, "__name__", None) or shown(target)


def _import(name: str, path: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{path}.type: there is no module {error.name!r} (for {module}.{attribute})"
        ) from error
    if not hasattr(imported, attribute):
        public = [name for name in dir(imported) if not name.startswith("_")]
        raise ConfigError(f"{path}.type: {module} has no {attribute!r}{suggest(attribute, public)}")
    return getattr(imported, attribute)
