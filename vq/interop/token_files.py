"""Writes a token store as files for other readers: Parquet, WebDataset, or the layout of LlamaGen."""

import io
import itertools
import json
import math
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from vq import packages
from vq.data.stores.token_shards import read_notes, unpack
from vq.data.stores.token_store import TokenStore
from vq.errors import UserError
from vq.files import new_folder

NOTES = "tokens.json"
"""The file in which the tokens of a WebDataset, or of LlamaGen's files, are described."""

SHARD_KEYS = ("format", "convention", "num_images", "num_undecodable", "shards")
"""The keys of a store's manifest that describe its shards, not its tokens."""


class TokenFilesError(UserError, ValueError):
    """Token files that cannot be written, or that are not a complete set in the expected layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The tokens of the images of one shard, in memory.

    Attributes:
        number: The number of the shard among those with images.
        keys: The key of each image.
        labels: The label of each image.
        indices: The indices of each image and view.
    """

    number: int
    keys: list[str]
    labels: list[int]
    indices: Int64[Tensor, "images views *axes"]


def shards(store: TokenStore) -> Iterator[Shard]:
    """Reads a store shard by shard. Shards without images are skipped, because readers fail on an empty file."""
    counts = [shard["count"] for shard in store.manifest["shards"]]
    filled = [files for files, count in zip(store.shards, counts, strict=True) if count]
    for number, files in enumerate(filled):
        notes = read_notes(files)
        indices = unpack(files.tokens.read_bytes(), store.width)
        yield Shard(
            number=number,
            keys=notes["keys"],
            labels=notes["labels"],
            indices=indices.view(len(notes["keys"]), store.views, *store.axes),
        )


def describe(store: TokenStore) -> dict[str, Any]:
    """Returns the entries of the manifest that describe the tokens, without those about the files."""
    return {name: value for name, value in store.manifest.items() if name not in SHARD_KEYS}


def write_parquet(store: TokenStore, out: Path, name: str) -> None:
    """Writes one Parquet file per shard, with one row per view of an image.

    Args:
        store: The store.
        out: The folder for the files.
        name: The name of the data set, which is not used.

    Raises:
        MissingPackageError: If pyarrow is not installed.
    """
    pyarrow = packages.require("pyarrow", needed_by="vq tokens export --to parquet")
    from pyarrow import parquet

    integer = pyarrow.int32() if store.manifest["vocabulary_size"] <= 2**31 else pyarrow.int64()
    columns = {
        "key": pyarrow.string(),
        "label": pyarrow.int64(),
        "view": pyarrow.int32(),
        "indices": pyarrow.list_(integer),
    }
    schema = pyarrow.schema(list(columns.items()), metadata={"vq_tokens": json.dumps(describe(store))})
    size, views = math.prod(store.axes), store.views
    for shard in shards(store):
        rows = len(shard.keys) * views
        flat = pyarrow.array(shard.indices.reshape(-1).numpy(), type=pyarrow.int64()).cast(integer)
        ends = pyarrow.array(np.arange(rows + 1) * size, type=pyarrow.int32())
        table = pyarrow.table(
            [
                pyarrow.array(np.repeat(np.array(shard.keys, dtype=object), views), type=columns["key"]),
                pyarrow.array(np.repeat(np.array(shard.labels, dtype=np.int64), views)),
                pyarrow.array(np.tile(np.arange(views, dtype=np.int32), len(shard.keys))),
                pyarrow.ListArray.from_arrays(ends, flat),
            ],
            schema=schema,
        )
        parquet.write_table(table, out / f"shard_{shard.number:05d}.parquet")


def write_webdataset(store: TokenStore, out: Path, name: str) -> None:
    """Writes one tar file per shard, with one sample per image.

    Args:
        store: The store.
        out: The folder for the files.
        name: The name of the data set, which is not used.

    Raises:
        TokenFilesError: If a key is empty or not unique, so that a reader could not tell the samples apart.
    """
    integer = np.int32 if store.manifest["vocabulary_size"] <= 2**31 else np.int64
    seen: set[str] = set()
    for shard in shards(store):
        with tarfile.open(out / f"shard-{shard.number:05d}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for key, label, indices in zip(shard.keys, shard.labels, shard.indices, strict=True):
                if not key or key in seen:
                    raise TokenFilesError(
                        f"{store.directory}: WebDataset needs unique keys, got {key!r} "
                        f"{'twice' if key else 'for an image'}; export with --to parquet"
                    )
                seen.add(key)
                safe = quote(key, safe="").replace(".", "%2E")
                _add(tar, f"{safe}.cls", str(label).encode())
                _add(tar, f"{safe}.indices.npy", _npy(indices.numpy().astype(integer)))
    (out / NOTES).write_text(json.dumps(describe(store), indent=1), encoding="utf-8")


def write_llamagen(store: TokenStore, out: Path, name: str) -> None:
    """Writes two files per image, numbered in the order of the store.

    Args:
        store: The store.
        out: The folder for the files.
        name: The name of the data set, with which the names of the folders begin.
    """
    codes, labels = out / f"{name}_codes", out / f"{name}_labels"
    codes.mkdir()
    labels.mkdir()
    number = itertools.count()
    for shard in shards(store):
        for label, indices in zip(shard.labels, shard.indices, strict=True):
            file = f"{next(number)}.npy"
            np.save(codes / file, indices.reshape(1, store.views, -1).numpy())
            np.save(labels / file, np.array([label], dtype=np.int64))
    (out / NOTES).write_text(json.dumps(describe(store), indent=1), encoding="utf-8")


WRITERS: dict[str, Callable[[TokenStore, Path, str], None]] = {
    "parquet": write_parquet,
    "webdataset": write_webdataset,
    "llamagen": write_llamagen,
}


def export_tokens(directory: Path, to: str, out: Path, *, name: str = "imagenet256") -> int:
    """Writes a store in another format, after its checksums have been verified.

    Args:
        directory: The folder of the store.
        to: The format: `parquet`, `webdataset` or `llamagen`.
        out: A folder that is empty or does not exist.
        name: The name of the data set, for the folders of LlamaGen's layout.

    Returns:
        The number of images.

    Raises:
        UserError: If the format is unknown, `out` is not empty, the store has no image, or a package is missing.
        TokenStoreError: If the store is damaged.
    """
    if to not in WRITERS:
        raise TokenFilesError(f"--to: expected one of {', '.join(WRITERS)}, got {to!r}")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise TokenFilesError(f"--name: expected a name of letters, digits, _ . -, got {name!r}")
    with new_folder(out) as partial:
        store = TokenStore(directory)
        store.verify()
        if len(store) == 0:
            raise TokenFilesError(f"{directory}: expected at least one image, got none; tokenize more images")
        WRITERS[to](store, partial, name)
    return len(store)


def _npy(values: NDArray[np.integer]) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # without a time or an owner, so that equal stores give equal bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
