"""The registries (what there is), and `build` (a config node becomes an object, its children first).

The decorator `@QUANTIZERS.register_module()` leaves a class as it is: every class of this project
can be used in plain Python, without a config. This is the only importer of `mmengine.registry`.
"""

import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.registry import Registry

from vq.errors import UserError


class ConfigError(UserError, ValueError):
    """A config that cannot be used. The message starts with the place in the config."""


def _registry(name: str, *locations: str) -> Registry:
    return Registry(name, scope="vq", locations=list(locations))


QUANTIZERS = _registry("quantizer", "vq.quantizers")
CODEBOOKS = _registry("codebook", "vq.quantizers")
QUANTIZER_PARTS = _registry("quantizer part", "vq.quantizers")
ENCODERS = _registry("encoder", "vq.networks")
DECODERS = _registry("decoder", "vq.networks")
LAYERS = _registry("layer", "vq.layers")
DISCRIMINATORS = _registry("discriminator", "vq.networks")
TOKENIZERS = _registry("tokenizer", "vq.tokenizers")
GENERATORS = _registry("generator", "vq.generators")
LOSSES = _registry("loss", "vq.losses")
ADVERSARIAL_PARTS = _registry("adversarial part", "vq.losses")
METRICS = _registry("metric", "vq.metrics")
DATASETS = _registry("dataset", "vq.data")
TRANSFORMS = _registry("transform", "vq.data")
LOADERS = _registry("loader", "vq.data")
STEPS = _registry("train step", "vq.engine")
SCHEDULES = _registry("schedule", "vq.engine")
CALLBACKS = _registry("callback", "vq.engine")
ENGINES = _registry("engine part", "vq.engine")

SLOTS: dict[str, Registry] = {
    "quantizer": QUANTIZERS,
    "codebook": CODEBOOKS,
    "init": QUANTIZER_PARTS,
    "revival": QUANTIZER_PARTS,
    "estimator": QUANTIZER_PARTS,
    "distance": QUANTIZER_PARTS,
    "regularisers": QUANTIZER_PARTS,
    "annealing": QUANTIZER_PARTS,
    "encoder": ENCODERS,
    "decoder": DECODERS,
    "bottom_encoder": ENCODERS,
    "top_encoder": ENCODERS,
    "top_quantizer": QUANTIZERS,
    "bottom_quantizer": QUANTIZERS,
    "top_decoder": DECODERS,
    "patches": LAYERS,
    "transformer": LAYERS,
    "positions": LAYERS,
    "attention": LAYERS,
    "tokenizer": TOKENIZERS,
    "generator": GENERATORS,
    "contestants": QUANTIZERS,
    "tokenizers": TOKENIZERS,
    "losses": LOSSES,
    "discriminator": DISCRIMINATORS,
    "objective": ADVERSARIAL_PARTS,
    "penalties": ADVERSARIAL_PARTS,
    "metrics": METRICS,
    "dataset": DATASETS,
    "transforms": TRANSFORMS,
    "train_data": LOADERS,
    "val_data": LOADERS,
    "train_step": STEPS,
    "step": STEPS,
    "adversary": ENGINES,
    "schedule": SCHEDULES,
    "trainer": ENGINES,
    "evaluator": ENGINES,
}
"""Which registry a config key draws from. Below any other key stands a class by its full name."""

COLLECTIONS = ("losses", "penalties", "contestants", "tokenizers", "annealing")
"""The keys whose entries are named parts: `losses=dict(l1=dict(type=...), ...)`."""

REGISTRIES: dict[str, Registry] = {registry.name: registry for registry in (*SLOTS.values(), CALLBACKS)}
"""Every registry by its name (`--list quantizer`)."""


def build(node: Mapping[str, Any], *, path: str, registered_only: bool = False, **runtime: Any) -> Any:
    """Builds the object that a config node describes, its children first.

    Classes never see a config: a nested node arrives in `__init__` as the built object.

    Args:
        node: `dict(type="module.Class" or "ShortName", **arguments)`.
        path: The node's place in the config, such as `tokenizer.quantizer`; errors start with it,
            and its last key says which registry a short name is looked up in (`SLOTS`).
        registered_only: Refuse every class that is not in a registry of this project. Set for a
            config that came with a checkpoint: that file is data and may not name arbitrary code.
        **runtime: Arguments that exist only at run time; they replace a node's own keys.

    Raises:
        ConfigError: If the class is unknown, an argument is unknown or missing, the class refuses
            a value, or the result does not belong into its slot.
    """
    target = resolve(node.get("type"), path, registered_only=registered_only)
    arguments = {
        key: build_value(value, path=f"{path}.{key}", registered_only=registered_only)
        for key, value in node.items()
        if key != "type" and key not in runtime
    }
    arguments |= runtime
    _check_arguments(target, arguments, path)
    try:
        return target(**arguments)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {target.__name__} refuses its arguments: {error}") from error
    except FileNotFoundError as error:  # weights or statistics; the message says what brings them
        raise ConfigError(f"{path}: {target.__name__} lacks a file: {error}") from error


def build_value(value: Any, *, path: str, registered_only: bool = False) -> Any:
    """Builds whatever nodes stand inside a value: a node, or a dict or list that holds some."""
    if isinstance(value, Mapping):
        if "type" in value:
            return build(value, path=path, registered_only=registered_only)
        return {
            k: build_value(v, path=f"{path}.{k}", registered_only=registered_only) for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        built = [
            build_value(v, path=f"{path}[{i}]", registered_only=registered_only) for i, v in enumerate(value)
        ]
        return tuple(built) if isinstance(value, tuple) else built
    return value


def resolve(name: Any, path: str, *, registered_only: bool = False) -> Any:
    """The class or function that a node's `type` names.

    Args:
        name: A full dotted name, or a short name of the registry that `path` draws from.
        path: The node's place.
        registered_only: See `build`.
    """
    if not isinstance(name, str):
        raise ConfigError(f"{path}.type: expected the name of a class, got {name!r}")
    registry = slot_of(path)
    if "." in name:
        module, _, attribute = name.rpartition(".")
        if registered_only and not module.startswith("vq."):
            raise ConfigError(
                f"{path}.type: {name} is not a class of vq, and this config is not trusted code"
            )
        target = _import(module, attribute, path)
        if registered_only and target not in registered_classes():
            raise ConfigError(f"{path}.type: {name} is not in any registry of vq")
        if registry is not None:
            _check_slot(target, registry, path)
        return target
    if registry is None:
        raise ConfigError(
            f"{path}.type: give {name!r} by its full dotted name; this place has no short names"
        )
    target = registry.get(name)
    if target is None:
        known = sorted(registry.module_dict)
        raise ConfigError(f"{path}.type: no {registry.name} is called {name!r}{suggest(name, known)}")
    return target


def _check_slot(target: Any, registry: Registry, path: str) -> None:
    for other in REGISTRIES.values():
        if target in other.module_dict.values() and target not in registry.module_dict.values():
            raise ConfigError(f"{path}: expected a {registry.name}, got {target.__name__}, a {other.name}")


def slot_of(path: str) -> Registry | None:
    """The registry that the place `path` draws from: that of its nearest key named in `SLOTS`."""
    keys = [key.partition("[")[0] for key in path.split(".")]
    if keys[-1] in SLOTS:
        return SLOTS[keys[-1]]
    # `train_step.losses.lpips`: the entries of a named collection belong to the collection.
    return SLOTS.get(keys[-2]) if len(keys) > 1 and keys[-2] in COLLECTIONS else None


def registered_classes() -> set[Any]:
    """Every class in any registry of this project."""
    for registry in REGISTRIES.values():
        registry.import_from_location()
    return {target for registry in REGISTRIES.values() for target in registry.module_dict.values()}


def suggest(name: str, known: Iterable[str]) -> str:
    """The tail of an error message: the nearest valid name, or the list of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; valid here: {', '.join(known)}" if known else ""


def argument_problems(
    class_name: str, given: Iterable[str], names: list[str], required: Iterable[str]
) -> str:
    """What is wrong with the names of some arguments, one line each; empty if nothing is."""
    problems = [f"unknown argument {name!r}{suggest(name, names)}" for name in given if name not in names]
    problems += [f"missing argument {name!r}" for name in required if name not in set(given)]
    if not problems:
        return ""
    lines = "".join(f"\n  {problem}" for problem in problems)
    return f"cannot build {class_name}{lines}\n  {class_name} takes: {', '.join(names)}"


def _check_arguments(target: Any, arguments: Mapping[str, Any], path: str) -> None:
    parameters = list(inspect.signature(target).parameters.values())
    if getattr(target.__init__, "__qualname__", "") == "Module.__init__":
        parameters = []  # torch's own constructor swallows anything
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    names = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
    required = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    if problem := argument_problems(target.__name__, list(arguments), names, required):
        raise ConfigError(f"{path}: {problem}")


def _import(module: str, attribute: str, path: str) -> Any:
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
