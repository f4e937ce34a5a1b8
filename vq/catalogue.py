"""The classes that a config may name, read from the source text. Nothing is imported, so that `vq list` is fast."""

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NoReturn

from vq.text import printable, suggest


@dataclass(frozen=True, slots=True)
class Group:
    """A group of classes.

    Attributes:
        packages: The sub-packages of `vq` that define them.
        registries: The registries that hold them, by their names in `vq.registry`.
        summary: What the classes are.
    """

    packages: tuple[str, ...]
    registries: tuple[str, ...]
    summary: str


GROUPS: dict[str, Group] = {
    "quantizers": Group(("quantizers",), ("QUANTIZERS",), "vectors to codes and their indices"),
    "codebooks": Group(("quantizers",), ("CODEBOOKS",), "the codes of a VectorQuantizer, and how they learn"),
    "quantizer-parts": Group(
        ("quantizers",),
        ("QUANTIZER_PARTS",),
        "estimators, distances, initializations, revivals, regularisers, annealing",
    ),
    "tokenizers": Group(("tokenizers",), ("TOKENIZERS",), "images to indices and back"),
    "networks": Group(
        ("networks",),
        ("ENCODERS", "DECODERS", "FEATURE_NETWORKS", "TEACHERS", "DISCRIMINATORS"),
        "encoders, decoders, feature networks, teachers and discriminators",
    ),
    "encoders": Group(("networks",), ("ENCODERS",), "images to features"),
    "decoders": Group(("networks",), ("DECODERS",), "features to images"),
    "feature-networks": Group(("networks",), ("FEATURE_NETWORKS",), "frozen networks for losses and metrics"),
    "teachers": Group(("networks",), ("TEACHERS",), "frozen networks that compute a feature per patch"),
    "discriminators": Group(("networks",), ("DISCRIMINATORS",), "discriminators of adversarial training"),
    "layers": Group(("layers", "generators"), ("LAYERS",), "patches, positions, attention, transformers"),
    "generators": Group(("generators",), ("GENERATORS",), "classes to indices"),
    "sampling": Group(("generators",), ("SAMPLING_PARTS",), "guidance of a generator"),
    "probes": Group(("probes",), ("PROBES", "PROBE_FEATURES"), "images to classes, over frozen features"),
    "losses": Group(("losses",), ("LOSSES",), "terms of the reconstruction loss"),
    "adversarial": Group(
        ("losses",), ("ADVERSARIAL_PARTS",), "objectives and penalties of adversarial training"
    ),
    "metrics": Group(("metrics",), ("METRICS",), "scores of a whole set"),
    "datasets": Group(("data",), ("DATASETS",), "sources of images and tokens"),
    "transforms": Group(("data",), ("TRANSFORMS",), "resizing, cropping and augmentation"),
    "loaders": Group(("data",), ("LOADERS",), "batches of a data set"),
    "steps": Group(("engine",), ("STEPS",), "training steps"),
    "schedules": Group(("engine",), ("SCHEDULES",), "learning-rate schedules"),
    "callbacks": Group(("engine",), ("CALLBACKS",), "what a training logs and stores"),
    "engine": Group(("engine",), ("ENGINES",), "trainer, evaluators, checkpointer, adversary"),
    "optimizers": Group((), ("OPTIMIZERS",), "LARS, and the optimizers of PyTorch"),
}
"""Each group by the word that `vq list` takes."""


def classes(group: str) -> dict[str, str]:
    """The classes of a group and the first line of each docstring, sorted by name.

    Args:
        group: A key of `GROUPS`.
    """
    if group == "optimizers":
        file = Path(__file__).with_name("optimizers.py")
        own = _summaries(file)
        names = sorted(_exported(file))
        return {name: own.get(name, f"The class torch.optim.{name} of PyTorch.") for name in names}
    found = GROUPS[group]
    files = [file for package in found.packages for file in Path(__file__).with_name(package).rglob("*.py")]
    return dict(sorted(pair for file in files for pair in _registered(file, found.registries)))


def _registered(file: Path, registries: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The classes of a file with a decorator such as `@QUANTIZERS.register_module()`."""
    decorators = {f"{registry}.register_module" for registry in registries}
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            calls = (d.func if isinstance(d, ast.Call) else d for d in node.decorator_list)
            if any(ast.unparse(call) in decorators for call in calls):
                yield node.name, (ast.get_docstring(node) or "").partition("\n")[0]


def _summaries(file: Path) -> dict[str, str]:
    """The classes that a file defines, and the first line of each docstring."""
    found = [node for node in ast.parse(file.read_bytes()).body if isinstance(node, ast.ClassDef)]
    return {node.name: (ast.get_docstring(node) or "").partition("\n")[0] for node in found}


def _exported(file: Path) -> list[str]:
    """The names in `__all__` of a module."""
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def matching(entries: Mapping[str, str], pattern: str) -> dict[str, str]:
    """The entries whose names match a wildcard pattern; case does not matter.

    Example:
        >>> matching({"fsq/240_digits": "FSQ", "vq/1024_emoji": "VQ"}, "FSQ/*")
        {'fsq/240_digits': 'FSQ'}
    """
    return {name: text for name, text in entries.items() if fnmatchcase(name.lower(), pattern.lower())}


def nothing_matches(pattern: str, names: Iterable[str]) -> str:
    """The end of a message about a pattern without a match: a pattern that has one, or the nearest name.

    Example:
        >>> nothing_matches("fsq", ["fsq/240_digits", "vq/1024_emoji"])
        "; did you mean '*fsq*'?"
    """
    names = list(names)
    wider = f"*{pattern.strip('*')}*"
    if wider != pattern and matching(dict.fromkeys(names, ""), wider):
        return f"; did you mean {wider!r}?"
    near = suggest(pattern, names)
    return near if near.startswith("; did you mean") else ""


def end_without_match(what: str, pattern: str, names: Iterable[str]) -> NoReturn:
    """Ends a command whose pattern matches nothing, with exit code 1."""
    sys.stderr.write(f"{printable(f'{what} {pattern!r}{nothing_matches(pattern, names)}')}\n")
    sys.exit(1)


def table(entries: Mapping[str, str]) -> list[str]:
    """One line per entry: its name and its text in two columns."""
    width = max(map(len, entries), default=0)
    return [f"{name:<{width}}  {text}".rstrip() for name, text in entries.items()]
