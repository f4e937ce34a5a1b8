"""Writes a token store as Parquet, WebDataset or LlamaGen's files, and makes a store of LlamaGen's files.

    python -m tools.export_tokens work_dirs/tokens/NAME --to parquet --out OUT
    python -m tools.export_tokens --from-llamagen CODES --vocabulary-size 16384 --out STORE

parquet     shard_00000.parquet ...: columns key, label, view, indices; a row for each view of an image. What the
            manifest says of the tokens stands in the schema's metadata under "vq_tokens".
webdataset  shard-00000.tar ...: KEY.indices.npy (views, then the axes of the indices) and KEY.cls; KEY is the
            image's key with all but letters, digits, _ - ~ written as %XX (urllib.parse.unquote undoes it).
llamagen    NAME_codes/0.npy (1, views, indices) and NAME_labels/0.npy (1,), int64. Keys are not kept.

The last two get what the manifest says as tokens.json; --from-llamagen reads it where it is there. LlamaGen's
training reads imagenet256_codes, wants every number up to 1281166, and takes other views than the first only below
a folder whose name holds "flip". OUT.partial is written first and renamed when whole.
"""

import argparse
import importlib.util
import io
import itertools
import json
import math
import re
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Int64
from torch import Tensor

sys.path.insert(
    0, str(Path(__file__).parents[1])
)  # as a script, from any folder, it finds the tools beside it
from tools.llamagen_tokens import (
    LLAMAGEN_VOCABULARY,
    NOTES,
    OF_THE_SHARDS,
    Grid,
    import_llamagen,
)
from tools.new_folder import new_folder
from vq import cli
from vq.data.token_store import (
    TokenStore,
    TokenStoreError,
    read_notes,
    unpack,
)
from vq.text import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The images of a shard, in memory."""

    number: int
    keys: list[str]
    labels: list[int]
    indices: Int64[Tensor, "images views *axes"]


def shards(store: TokenStore) -> Iterator[Shard]:
    """A store's shards, each read as a whole; one without images is left out: readers fail on an empty file."""
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
        UsageError: If the format is unknown, `out` holds files, the store has no image, or a package is missing.
        TokenStoreError: If the store is damaged.
    """
    if to not in WRITERS:
        raise cli.UsageError(f"export_tokens: expected a format of {', '.join(WRITERS)}, got {to!r}")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise cli.UsageError(f"export_tokens: expected a name of letters, digits, _ . -, got {name!r}")
    with new_folder(out) as partial:
        store = TokenStore(directory)
        store.verify()
        if len(store) == 0:
            raise cli.UsageError(f"{directory}: expected at least one image, got none; tokenize more images")
        WRITERS[to](store, partial, name)
    return len(store)


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
        raise cli.UsageError("export_tokens: expected STORE --to FORMAT, or --from-llamagen DIR; see --help")
    try:
        if args.from_llamagen is None:
            count = export(args.store, args.to, args.out, name=args.name)
        else:
            grid = Grid(axes=tuple(args.grid) if args.grid else None, vocabulary_size=args.vocabulary_size)
            count = import_llamagen(args.from_llamagen, args.out, grid)
    except TokenStoreError as error:
        raise cli.UsageError(str(error)) from error
    print(printable(f"{args.out}: {count} images"))
    return count


if __name__ == "__main__":
    cli.main(main)
