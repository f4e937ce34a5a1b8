"""Exchanges token stores with other projects: `vq tokens export STORE ...`, `vq tokens import CODES ...`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vq import cli

FORMATS = ("parquet", "webdataset", "llamagen")

EXPORT = """\
Writes every view of a token store that vq tokenize made, in a format that other readers know.

parquet     shard_00000.parquet, ...: one row per view of an image, with the columns key, label, view, indices. The
            metadata of the schema describe the tokens, under "vq_tokens".
webdataset  shard-00000.tar, ...: KEY.indices.npy (views, then the axes of the indices) and KEY.cls. KEY is the key
            of the image, all but letters, digits, _ - ~ written as %XX (urllib.parse.unquote decodes it).
llamagen    NAME_codes/0.npy (1, views, indices) and NAME_labels/0.npy (1,), ..., int64. Keys are not kept. LlamaGen's
            training reads imagenet256_codes, needs every number up to 1281166, and reads more than the first view
            only below a folder whose name contains "flip".

tokens.json beside a WebDataset or LlamaGen's files describes the tokens. The store is verified first; nothing is
overwritten, and the output folder appears only when it is complete."""

IMPORT = """\
Makes a token store of the files of LlamaGen's code extraction: X_codes/0.npy (1, views, indices) and X_labels/0.npy
(1,), .... A tokens.json beside the two folders, as vq tokens export writes it, supplies what the files do not state.
Nothing is overwritten, and the store appears only when it is complete."""


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "tokens",
        "Exchanges the token stores that vq tokenize makes with other projects.",
        "vq tokens export work_dirs/fsq/240_digits/tokens/train --to parquet --out tokens_parquet\n"
        "  vq tokens import CODES --from llamagen --out store",
    )
    commands = parser.add_subparsers(dest="action", required=True, metavar="export|import", prog=parser.prog)
    _add_export(commands)
    _add_import(commands)
    return parser


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = cli.subparser(
        commands,
        "export",
        "write a token store as Parquet, WebDataset or LlamaGen's files",
        EXPORT,
        "vq tokens export work_dirs/fsq/240_digits/tokens/train --to parquet --out tokens_parquet",
    )
    export.add_argument("store", type=Path, metavar="STORE", help="the folder that vq tokenize wrote")
    export.add_argument("--to", choices=FORMATS, required=True, help="the format")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    export.add_argument(
        "--name",
        default="imagenet256",
        help="llamagen: the prefix of the folders NAME_codes and NAME_labels (default: %(default)s)",
    )


def _add_import(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    importer = cli.subparser(
        commands,
        "import",
        "make a token store of LlamaGen's files",
        IMPORT,
        "vq tokens import CODES --from llamagen --vocabulary-size 16384 --out store",
    )
    importer.add_argument("codes", type=Path, metavar="CODES", help="the folder with X_codes and X_labels")
    importer.add_argument(
        "--from", dest="source", choices=("llamagen",), required=True, help="the format of the files"
    )
    importer.add_argument("--out", type=Path, required=True, metavar="DIR", help="the store to write")
    importer.add_argument(
        "--vocabulary-size",
        type=cli.positive,
        metavar="K",
        help="the number of different indices (default: as in tokens.json, or 16384)",
    )
    importer.add_argument(
        "--grid",
        type=cli.positive,
        nargs="+",
        metavar="N",
        help="rows and columns of the indices (default: as in tokens.json, or a square)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the number of images."""
    args = arguments().parse_args(argv)
    if args.action == "export":
        from vq.interop.token_files import export_tokens

        count = export_tokens(args.store, args.to, args.out, name=args.name)
    else:
        from vq.interop.llamagen_tokens import Grid, import_llamagen

        grid = Grid(axes=tuple(args.grid) if args.grid else None, vocabulary_size=args.vocabulary_size)
        count = import_llamagen(args.codes, args.out, grid)
    cli.say(f"{args.out}: {count} images")
    return count


if __name__ == "__main__":
    cli.main(main)
