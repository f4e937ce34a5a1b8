"""Converts the token files of LlamaGen to a store: X_codes/0.npy of (1, views, indices), X_labels/0.npy of (1,), ...

This is the layout of LlamaGen's extract_codes_c2i.py, commit 5a50452. The files state neither the grid nor the
vocabulary nor the tokenizer. An optional tokens.json next to the two folders states them (axes, vocabulary_size,
class_names, tokenizer_sha256, ...).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vq.data.stores.token_manifest import write_manifest
from vq.data.stores.token_shards import ShardFiles, bytes_per_index, write_shard
from vq.files import new_folder, read_json, read_npy
from vq.interop.token_files import NOTES, SHARD_KEYS, TokenFilesError

LLAMAGEN_VOCABULARY = 16384
IMAGES_PER_SHARD = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The properties of tokens that LlamaGen's files do not state.

    Attributes:
        axes: The (rows, columns) of the index map of an image; None for a square.
        vocabulary_size: The number of codes; None for LlamaGen's default.
    """

    axes: tuple[int, ...] | None = None
    vocabulary_size: int | None = None


def import_llamagen(directory: Path, out: Path, grid: Grid | None = None) -> int:
    """Converts LlamaGen's files to a store. The key of an image is the number of its files.

    Args:
        directory: The folder that contains one pair of folders X_codes and X_labels.
        out: A folder that is empty or does not exist.
        grid: The properties that the files do not state. Those that are None are read from tokens.json if it exists.

    Returns:
        The number of images.

    Raises:
        UserError: If `out` is not empty, or the files are not a complete set in LlamaGen's layout.
    """
    with new_folder(out) as partial:
        codes, labels = _folders(directory)
        count, highest = _count(codes, labels), 0
        manifest = _manifest(directory, _load(codes / "0.npy"), grid or Grid(), count)
        for shard, start in enumerate(range(0, count, IMAGES_PER_SHARD)):
            rows = range(start, min(start + IMAGES_PER_SHARD, count))
            files = ShardFiles(directory=partial, number=shard)
            highest = max(highest, _import_shard(codes, labels, rows, manifest, files))
        manifest["class_names"] = manifest["class_names"] or [str(label) for label in range(highest + 1)]
        write_manifest(partial, manifest, -(-count // IMAGES_PER_SHARD))
    return count


def _import_shard(
    codes: Path, labels: Path, rows: range, manifest: Mapping[str, Any], files: ShardFiles
) -> int:
    """Writes one shard, and returns its highest label."""
    axes, views, classes = manifest["axes"], int(manifest["views"]), manifest["class_names"]
    shape = (1, views, math.prod(axes))
    indices = [_codes(codes / f"{row}.npy", shape, manifest["vocabulary_size"]) for row in rows]
    found = [_label(labels / f"{row}.npy", len(classes) or None) for row in rows]
    write_shard(
        files,
        torch.from_numpy(np.stack(indices)).view(len(rows), views, *axes),
        labels=found,
        keys=[str(row) for row in rows],
        undecodable=[],
        width=int(manifest["bytes_per_index"]),
    )
    return max(found)


def _notes(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file) if file.exists() else {}
        notes = {name: value for name, value in found.items() if name not in SHARD_KEYS}
        notes["axes"] = [int(size) for size in notes.get("axes", [])]
        notes["vocabulary_size"] = int(notes.get("vocabulary_size", LLAMAGEN_VOCABULARY))
        notes["class_names"] = [str(name) for name in notes.get("class_names", [])]
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise TokenFilesError(f"{file}: cannot be read: {error}; repair or remove it") from error
    return notes


def _manifest(directory: Path, first: Any, grid: Grid, count: int) -> dict[str, Any]:
    notes = _notes(directory / NOTES)
    if first.ndim != 3 or first.size == 0:
        raise TokenFilesError(
            f"{directory}: expected codes of shape (1, views, indices) as LlamaGen writes them, got {first.shape}"
        )
    size = int(first.shape[2])
    axes = list(grid.axes or notes["axes"] or [math.isqrt(size)] * 2)
    if math.prod(axes) != size or min(axes) < 1:
        raise TokenFilesError(
            f"{directory}: expected a grid of {size} indices, got {' x '.join(map(str, axes))}; give --grid H W"
        )
    vocabulary = notes["vocabulary_size"] if grid.vocabulary_size is None else grid.vocabulary_size
    if not 0 < vocabulary <= 2**32:
        raise TokenFilesError(f"{directory}: expected a --vocabulary-size of 1 to 2^32, got {vocabulary}")
    return {
        "tokenizer_sha256": "unknown: imported from LlamaGen's files",
        **notes,
        "vocabulary_size": vocabulary,
        "bytes_per_index": bytes_per_index(vocabulary),
        "axes": axes,
        "views": int(first.shape[1]),
        "num_source_images": count,
        "images_per_shard": IMAGES_PER_SHARD,
    }


def _folders(directory: Path) -> tuple[Path, Path]:
    pairs = [
        (codes, labels)
        for codes in sorted(directory.glob("*_codes"))
        if (labels := codes.with_name(f"{codes.name.removesuffix('_codes')}_labels")).is_dir()
    ]
    if len(pairs) != 1:
        raise TokenFilesError(
            f"{directory}: expected one pair of folders X_codes and X_labels as LlamaGen writes them, got "
            f"{[codes.name for codes, _ in pairs] or 'none'}; give the folder that holds them"
        )
    return pairs[0]


def _count(codes: Path, labels: Path) -> int:
    counts = []
    for folder in (codes, labels):
        there = {file.name for file in folder.glob("*.npy")}
        missing = {f"{number}.npy" for number in range(max(1, len(there)))} - there
        if missing:
            raise TokenFilesError(
                f"{folder}: expected 0.npy, 1.npy, ... without a gap, got {len(there)} files without "
                f"{min(missing)}; run the extraction again"
            )
        counts.append(len(there))
    if counts[0] != counts[1]:
        raise TokenFilesError(
            f"{codes}: expected as many codes as labels, got {counts[0]} and {counts[1]}; run the extraction again"
        )
    return counts[0]


def _load(file: Path) -> Any:
    try:
        found = read_npy(file)
    except (OSError, ValueError) as error:
        raise TokenFilesError(f"{file}: cannot be read: {error}; run the extraction again") from error
    if not np.issubdtype(found.dtype, np.integer):
        raise TokenFilesError(f"{file}: expected integers, got {found.dtype}; run the extraction again")
    return found


def _codes(file: Path, shape: tuple[int, ...], vocabulary: int) -> Any:
    found = _load(file)
    if found.shape != shape:
        raise TokenFilesError(f"{file}: expected the shape {shape} of the first file, got {found.shape}")
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= vocabulary:
        raise TokenFilesError(
            f"{file}: expected indices in [0, {vocabulary}), got {low} to {high}; give --vocabulary-size"
        )
    return found[0].astype(np.int64)


def _label(file: Path, classes: int | None) -> int:
    found = _load(file)
    if found.size != 1 or not 0 <= int(found.reshape(-1)[0]) < (classes or math.inf):
        raise TokenFilesError(f"{file}: expected one label in [0, {classes or 'classes'}), got {found}")
    return int(found.reshape(-1)[0])
