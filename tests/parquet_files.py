"""Parquet files of small images, as `datasets` and other programs write them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet
from tar_shards import png

UNEVEN = ((5, 3), (1,), (7, 2, 4))
"""Images in each row group of three files."""


def images(contents: Sequence[bytes | None], paths: Sequence[str | None] | None = None) -> pa.Array:
    """A column as the feature `Image` of `datasets` stores it."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [
        None if content is None and path is None else {"bytes": content, "path": path}
        for content, path in zip(contents, paths or [None] * len(contents), strict=True)
    ]
    return pa.array(rows, type=kind)


def table(columns: dict[str, Any], names: Sequence[str] | None = None, column: str = "label") -> pa.Table:
    """A table; with `names`, the metadata of `datasets` declare a column to hold these classes."""
    made = pa.table(columns)
    if names is None:
        return made
    features = {column: {"names": list(names), "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(path: Path, made: pa.Table, sizes: Sequence[int] | None = None, **options: Any) -> Path:
    """Writes a table with row groups of these sizes, by default one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with parquet.ParquetWriter(path, made.schema, **options) as writer:
        start = 0
        for size in sizes or (len(made),):
            writer.write_table(made.slice(start, size), row_group_size=max(1, size))
            start += size
    assert start == len(made)
    return path


def write_numbered(
    folder: Path, groups: Sequence[Sequence[int]] = UNEVEN, names: Sequence[str] | None = ("a", "b", "c")
) -> list[Path]:
    """Writes files whose images are numbered in order; the class of an image is its number modulo 3."""
    paths, number = [], 0
    for file, sizes in enumerate(groups):
        numbers = range(number, number + sum(sizes))
        columns = {
            "image": images([png(n) for n in numbers]),
            "label": pa.array([n % 3 for n in numbers], type=pa.int64()),
            "caption": pa.array([f"number {n}" for n in numbers]),
        }
        paths.append(
            write(folder / f"train-{file:05d}-of-{len(groups):05d}.parquet", table(columns, names), sizes)
        )
        number = numbers.stop
    return paths


def numbers_in(dataset: Any) -> list[int]:
    """The number that each image shows."""
    return [int(dataset.read(i)[0, 0, 0]) for i in range(len(dataset))]
