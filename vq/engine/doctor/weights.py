"""Checks that pretrained weights and reference statistics are there, before a training or a validation needs them."""

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from vq.config import PRETRAINED_TOKENIZER, WEIGHTS_OF
from vq.engine.doctor.building import FAULTS
from vq.engine.doctor.case import Case
from vq.engine.doctor.findings import Finding, first_lines, from_error, ok
from vq.files import sha256_of
from vq.known_weights import AS_PUBLISHED, located
from vq.metrics.statistics import reference_path
from vq.metrics.statistics_file import read_statistics
from vq.registry import build
from vq.tokenizers.checkpoint import CheckpointError, find_weights, load_weights

SLOTS = ("losses", "metrics", "discriminator", "augmentation", "penalties")
"""The keys below which parts with weights of their own are small enough to be built."""


def check_weights(case: Case) -> Iterator[Finding]:
    """Builds each loss, metric and discriminator, and looks up the files of teachers and pretrained tokenizers."""
    seen: dict[str, bool] = {}
    faults: list[Finding] = []
    num_found = 0
    for place, node in _nodes(case.tree, ""):
        key = json.dumps(node, sort_keys=True, default=str)
        if key in seen or not (_is_built(place) or node["type"] in WEIGHTS_OF):
            continue
        seen[key] = True
        try:
            num_found += _find(place, node)
        except FAULTS as error:
            faults += [from_error(place, error), *_missing_reference(place, node, error)]
    yield from _without_repeats(faults)
    if not faults and num_found:
        yield ok("weights", f"all there ({num_found} losses, metrics and files)")


def _missing_reference(place: str, node: Mapping[str, Any], error: Exception) -> Iterator[Finding]:
    """The missing statistics that a metric compares with, if another error came before them."""
    reference = node.get("reference")
    if isinstance(reference, str):
        try:
            read_statistics(reference_path(reference))
        except FAULTS as missing:
            if str(missing) not in str(error):
                yield from_error(f"{place}.reference", missing)


def check_given_weights(case: Case) -> Iterator[Finding]:
    """Whether the files of `--load-model-from` are intact, and hold the weights of the model."""
    if not (given := case.options.weights):
        return
    try:
        files = [find_weights(path) for path in given]
        if case.step.error is None:
            with warnings.catch_warnings(
                action="ignore"
            ):  # nothing is copied, because the model has no values
                load_weights(
                    case.step.value.step.model,
                    files,
                    allow_missing=case.options.allow_missing,
                    allow_unexpected=case.options.allow_unexpected,
                )
    except FAULTS as error:
        yield from_error("--load-model-from", error)
    else:
        yield ok("--load-model-from", f"{first_lines(map(str, files))}: intact, of this model")


def _nodes(value: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every node of a config with its place, the outer before the inner."""
    if isinstance(value, Mapping):
        if "type" in value:
            yield place, value
        for key, child in value.items():
            yield from _nodes(child, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from _nodes(child, f"{place}[{i}]")


def _is_built(place: str) -> bool:
    """Whether the node of a place is a small part that may have weights."""
    parts = [part.partition("[")[0] for part in place.split(".")]
    return parts[-1] in SLOTS or (len(parts) > 1 and parts[-2] in SLOTS)


def _find(place: str, node: Mapping[str, Any]) -> int:
    """Raises if the weights of a node are missing or not the recorded ones; returns 1."""
    if node["type"] in PRETRAINED_TOKENIZER:
        return _check_tokenizer(place, node)
    if node["type"] in WEIGHTS_OF:
        return _check_file(place, node, WEIGHTS_OF[node["type"]])
    with torch.device("meta"):
        build(node, path=place)
    return 1


def _check_tokenizer(place: str, node: Mapping[str, Any]) -> int:
    try:
        files = [find_weights(path) for path in node.get("weights") or []]
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; train it first, or give its path with --weights {place}=PATH"
        ) from error
    if not files:
        build(node, path=place)  # raises with the options that give them
    for file, expected in zip(files, node.get("sha256") or [], strict=False):
        _check_sha256(file, expected)
    return len(files)


def _check_file(place: str, node: Mapping[str, Any], argument: str) -> int:
    given = node.get(argument, AS_PUBLISHED)
    if given is None:
        return 0
    file = Path(str(given)) if argument != "weights" else located(str(given), node.get("name"))
    if file is None or not file.is_file():
        build(node, path=place)  # raises with the command that fetches them
        return 1
    _check_sha256(file, node.get("sha256"))
    return 1


def _check_sha256(file: Path, expected: Any) -> None:
    if isinstance(expected, str) and (found := sha256_of(file)) != expected:
        raise ValueError(
            f"{file}: expected the SHA-256 {expected[:16]}..., got {found[:16]}...; --weights KEY=PATH gives the path "
            f"of a file that has moved"
        )


def _without_repeats(faults: list[Finding]) -> Iterator[Finding]:
    """Of faults with equal words, such as one missing file that several metrics read, the first."""
    said: set[str] = set()
    for fault in faults:
        words = fault.what.partition(": ")[2] or fault.what
        if words not in said:
            said.add(words)
            yield fault
