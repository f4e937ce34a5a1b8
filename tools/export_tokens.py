"""Writes a token store as Parquet, WebDataset or LlamaGen's files, and makes a store of LlamaGen's files.

    python -m tools.export_tokens work_dirs/tokens/NAME --to parquet --out OUT
    python -m tools.export_tokens --from-llamagen CODES --vocabulary-size 16384 --out STORE

parquet     shard_00000.parquet ...: columns key, label, view, indices; a row for each view of an image. What the
            manifest says of the tokens stands in the schema's metadata under "vq_tokens".
webdataset  shard-00000.tar ...: KEY.indices.npy (views, then the axes of the indices) and KEY.cls; KEY is the
            image's key with all but letters, digits, _ - ~ written as %XX (urllib.parse.unquote undoes it).
llamagen    NAME_codes/0.npy (1, views, indices) and NAME_labels/0.npy (1,), int64. Keys are not kept.

The last two get what the manifest says as tokens.json. LlamaGen's training reads imagenet256_codes, wants every
number up to 1281166, and takes other views than the first only below a folder whose name holds "flip".
OUT.partial is written first and renamed when whole.
"""

import argparse
import importlib.util
import io
import itertools
import json
import math
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from vq import cli
from vq.data.token_store import (
    ShardFiles,
    TokenStore,
    TokenStoreError,
    bytes_per_index,
    read_notes,
    unpack,
    write_manifest,
    write_shard,
)

NOTES = "tokens.json"
OF_THE_SHARDS = ("format", "convention", "num_images", "num_undecodable", "shards")
LLAMAGEN_VOCABULARY = 16384
IMAGES_PER_SHARD = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The images of a shard, in memory."""

    number: int
    keys: list[str]
    labels: list[int]
    indices: Int64[Tensor, "images views *axes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What LlamaGen's files do not say.

    Args:
        axes: Rows and columns of an image's indices; None for a square.
        vocabulary_size: The number of different indices; None for LlamaGen's.
    """

    axes: tuple[int, ...] | None = None
    vocabulary_size: int | None = None


def shards(store: TokenStore) -> Iterator[Shard]:
    """A store's shards, each read as a whole."""
    for number, files in enumerate(store.shards):
        notes = read_notes(files)
        indices = unpack(files.tokens.read_bytes(), store.width)
        yield Shard(
            number=number,
            keys=notes["keys"],
            labels=notes["labels"],
            indices=indices.view(len(notes["keys"]), store.views, *store.axes),
        )


def describe(store: TokenStore) -> dict[str, Any]:
    """What a manifest says of the tokens, but not of the files they stand in."""
    return {name: value for name, value in store.manifest.items() if name not in OF_THE_SHARDS}


def write_parquet(store: TokenStore, out: Path, name: str) -> None:
    """A Parquet file a shard, a row a view.

    Raises:
        UsageError: If pyarrow is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise cli.UsageError(
            "export_tokens: Parquet needs the package pyarrow, which is not installed: pip install 'vq[export]'"
        )
    import pyarrow
    import pyarrow.parquet

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
        ends = pyarrow.array(np.arange(rows + 1, dtype=np.int32) * size)
        table = pyarrow.table(
            [
                pyarrow.array(np.repeat(np.array(shard.keys, dtype=object), views), type=columns["key"]),
                pyarrow.array(np.repeat(np.array(shard.labels, dtype=np.int64), views)),
                pyarrow.array(np.tile(np.arange(views, dtype=np.int32), len(shard.keys))),
                pyarrow.ListArray.from_arrays(ends, flat),
            ],
            schema=schema,
        )
        pyarrow.parquet.write_table(table, out / f"shard_{shard.number:05d}.parquet")


def write_webdataset(store: TokenStore, out: Path, name: str) -> None:
    """A tar file a shard, a sample an image.

    Raises:
        UsageError: If a key is empty, or the same as another: a reader could not tell the samples apart.
    """
    integer = np.int32 if store.manifest["vocabulary_size"] <= 2**31 else np.int64
    seen: set[str] = set()
    for shard in shards(store):
        with tarfile.open(out / f"shard-{shard.number:05d}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for key, label, indices in zip(shard.keys, shard.labels, shard.indices, strict=True):
                if not key or key in seen:
                    raise cli.UsageError(
                        f"{store.directory}: expected keys of their own for WebDataset, got {key!r} "
                        f"{'twice' if key else 'for an image'}; export with --to parquet"
                    )
                seen.add(key)
                safe = quote(key, safe="").replace(".", "%2E")
                _add(tar, f"{safe}.cls", str(label).encode())
                _add(tar, f"{safe}.indices.npy", _npy(indices.numpy().astype(integer)))
    (out / NOTES).write_text(json.dumps(describe(store), indent=1), encoding="utf-8")


def write_llamagen(store: TokenStore, out: Path, name: str) -> None:
    """Two files an image, numbered in the store's order."""
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


def export(directory: Path, to: str, out: Path, *, name: str = "imagenet256") -> int:
    """Writes a store in another format, once its checksums were found right.

    Args:
        directory: The store.
        to: parquet, webdataset or llamagen.
        out: A folder that is empty or not there yet.
        name: The name of the data set, for LlamaGen's folders.

    Returns:
        The number of images.

    Raises:
        UsageError: If the format is unknown, `out` holds files, or a package is missing.
        TokenStoreError: If the store is damaged.
    """
    if to not in WRITERS:
        raise cli.UsageError(f"export_tokens: expected a format of {', '.join(WRITERS)}, got {to!r}")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise cli.UsageError(f"export_tokens: expected a name of letters, digits, _ . -, got {name!r}")
    _refuse_to_overwrite(out)
    store = TokenStore(directory)
    store.verify()
    partial = _partial(out)
    WRITERS[to](store, partial, name)
    partial.replace(out)
    return len(store)


def import_llamagen(directory: Path, out: Path, grid: Grid | None = None) -> int:
    """Makes a store of LlamaGen's files. The keys are the files' numbers.

    Args:
        directory: Holds one pair of folders X_codes and X_labels.
        out: A folder that is empty or not there yet.
        grid: What the files do not say; tokens.json, if it is there, says what this leaves open.

    Returns:
        The number of images.

    Raises:
        UsageError: If `out` holds files, or the files are not a whole set in LlamaGen's layout.
    """
    _refuse_to_overwrite(out)
    codes, labels = _llamagen_folders(directory)
    count = _count(codes, labels)
    manifest = _import_manifest(directory, _load(codes / "0.npy"), grid or Grid())
    partial, width = _partial(out), int(manifest["bytes_per_index"])
    shape = (1, int(manifest["views"]), math.prod(manifest["axes"]))
    classes, highest = manifest.get("class_names"), 0
    numbers = range(0, count, IMAGES_PER_SHARD)
    for shard, start in enumerate(numbers):
        rows = range(start, min(start + IMAGES_PER_SHARD, count))
        indices = [_codes(codes / f"{row}.npy", shape, manifest["vocabulary_size"]) for row in rows]
        found = [_label(labels / f"{row}.npy", len(classes) if classes else None) for row in rows]
        highest = max(highest, *found)
        write_shard(
            ShardFiles(directory=partial, number=shard),
            torch.from_numpy(np.stack(indices)).view(len(rows), shape[1], *manifest["axes"]),
            labels=found,
            keys=[str(row) for row in rows],
            undecodable=[],
            width=width,
        )
    manifest["class_names"] = classes or [str(label) for label in range(highest + 1)]
    manifest |= {"num_source_images": count, "images_per_shard": IMAGES_PER_SHARD}
    write_manifest(partial, manifest, len(numbers))
    partial.replace(out)
    return count


def _import_manifest(directory: Path, first: Any, grid: Grid) -> dict[str, Any]:
    try:
        notes = json.loads((directory / NOTES).read_text(encoding="utf-8"))
        notes = {name: value for name, value in notes.items() if name not in OF_THE_SHARDS}
        stated, vocabulary = notes.get("axes"), int(notes.get("vocabulary_size", LLAMAGEN_VOCABULARY))
    except FileNotFoundError:
        notes, stated, vocabulary = {}, None, LLAMAGEN_VOCABULARY
    except (ValueError, TypeError, AttributeError) as error:
        raise cli.UsageError(f"{directory / NOTES}: cannot be read: {error}; mend or remove it") from error
    if first.ndim != 3 or first.size == 0:
        raise cli.UsageError(
            f"{directory}: expected codes of shape (1, views, indices) as LlamaGen writes them, got {first.shape}"
        )
    size = int(first.shape[2])
    axes = list(grid.axes or stated or [math.isqrt(size)] * 2)
    if math.prod(axes) != size:
        raise cli.UsageError(
            f"{directory}: expected a grid of {size} indices, got {' x '.join(map(str, axes))}; give --grid H W"
        )
    vocabulary = grid.vocabulary_size or vocabulary
    views = int(first.shape[1])
    return {
        "tokenizer_sha256": "unknown: imported from LlamaGen's files",
        **notes,
        "vocabulary_size": vocabulary,
        "bytes_per_index": bytes_per_index(vocabulary),
        "axes": axes,
        "views": views,
    }


def _llamagen_folders(directory: Path) -> tuple[Path, Path]:
    pairs = [
        (codes, labels)
        for codes in sorted(directory.glob("*_codes"))
        if (labels := codes.with_name(f"{codes.name.removesuffix('_codes')}_labels")).is_dir()
    ]
    if len(pairs) != 1:
        raise cli.UsageError(
            f"{directory}: expected one pair of folders X_codes and X_labels as LlamaGen writes them, got "
            f"{[codes.name for codes, _ in pairs] or 'none'}; give the folder that holds them"
        )
    return pairs[0]


def _count(codes: Path, labels: Path) -> int:
    counts = []
    for folder in (codes, labels):
        there = {file.name for file in folder.glob("*.npy")}
        wanted = {f"{number}.npy" for number in range(len(there))}
        if not there or there != wanted:
            example = min(wanted - there, default="none")
            raise cli.UsageError(
                f"{folder}: expected 0.npy, 1.npy, ... without a gap, got {len(there)} files without "
                f"{example if there else '0.npy'}; run the extraction again"
            )
        counts.append(len(there))
    if counts[0] != counts[1]:
        raise cli.UsageError(
            f"{codes}: expected as many codes as labels, got {counts[0]} and {counts[1]}; run the extraction again"
        )
    return counts[0]


def _load(file: Path) -> Any:
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise cli.UsageError(f"{file}: cannot be read: {error}; run the extraction again") from error
    if not np.issubdtype(found.dtype, np.integer):
        raise cli.UsageError(f"{file}: expected integers, got {found.dtype}; run the extraction again")
    return found


def _codes(file: Path, shape: tuple[int, ...], vocabulary: int) -> Any:
    found = _load(file)
    if found.shape != shape:
        raise cli.UsageError(f"{file}: expected the shape {shape} of the first file, got {found.shape}")
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= vocabulary:
        raise cli.UsageError(
            f"{file}: expected indices in [0, {vocabulary}), got {low} to {high}; give --vocabulary-size"
        )
    return found[0].astype(np.int64)


def _label(file: Path, classes: int | None) -> int:
    found = _load(file)
    if found.size != 1 or not 0 <= int(found.reshape(-1)[0]) < (classes or math.inf):
        raise cli.UsageError(f"{file}: expected one label in [0, {classes or 'classes'}), got {found}")
    return int(found.reshape(-1)[0])


def _refuse_to_overwrite(out: Path) -> None:
    for place in (out, out.with_name(f"{out.name}.partial")):
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise cli.UsageError(
                f"{place}: expected a folder that is empty or not there, got one that holds files; nothing is "
                f"overwritten: remove it, or give another --out"
            )


def _partial(out: Path) -> Path:
    partial = out.with_name(f"{out.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    return partial


def _npy(values: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # of no time and no owner: the same store gives the same bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, nargs="?", metavar="STORE", help="what vq.tokenize wrote")
    parser.add_argument("--to", choices=list(WRITERS), help="the format")
    parser.add_argument(
        "--from-llamagen", type=Path, metavar="DIR", help="make a store of these files instead"
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to make; nothing is overwritten")
    parser.add_argument(
        "--name", default="imagenet256", help="llamagen: of the folders NAME_codes, NAME_labels (%(default)s)"
    )
    parser.add_argument(
        "--vocabulary-size",
        type=int,
        metavar="K",
        help=f"--from-llamagen: different indices (default: as tokens.json says, or {LLAMAGEN_VOCABULARY})",
    )
    parser.add_argument(
        "--grid",
        type=int,
        nargs="+",
        metavar="N",
        help="--from-llamagen: rows and columns (default: as tokens.json says, or a square)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the number of images."""
    args = arguments().parse_args(argv)
    if (args.store is None) == (args.from_llamagen is None) or (args.store is None) != (args.to is None):
        raise cli.UsageError(
            "export_tokens: expected STORE --to FORMAT, or --from-llamagen DIR; see python -m tools.export_tokens --help"
        )
    try:
        if args.from_llamagen is None:
            count = export(args.store, args.to, args.out, name=args.name)
        else:
            grid = Grid(axes=tuple(args.grid) if args.grid else None, vocabulary_size=args.vocabulary_size)
            count = import_llamagen(args.from_llamagen, args.out, grid)
    except TokenStoreError as error:
        raise cli.UsageError(str(error)) from error
    print(f"{args.out}: {count} images")
    return count


if __name__ == "__main__":
    cli.main(main)
