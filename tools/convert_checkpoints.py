r"""Converts the tokenizer weights of another project to a file that `vq.load` reads.

    python tools/convert_checkpoints.py taming last.ckpt \
        --config configs/vqgan/1024_imagenet_ddp.py --out pretrained/vqgan_1024.safetensors
    python tools/convert_checkpoints.py beitv2 vqkd_encoder_base_decoder_1x768x12_clip.pth \
        --options with_decoder:True --suffix .converted.with_decoder
    python tools/convert_checkpoints.py taming_transformers last.ckpt --check vqgan/1024_imagenet_ddp

Nothing is written unless every tensor of the file has a counterpart and every tensor of the tokenizer is set. A pickle
is read as plain tensors only: none of its content is executed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vq import cli
from vq import config as pages
from vq.interop import DIALECTS, InteropError
from vq.interop.convert import options_of
from vq.text import printable
from vq.tokenizers.published import convert_file

ALIASES = {"taming_transformers": "taming"}
"""Other names of dialects, by which the original documents call them."""


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.tool_parser(__doc__)
    parser.add_argument(
        "dialect", choices=sorted([*DIALECTS, *ALIASES]), help="the project that wrote the file"
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="its weights: .safetensors, .ckpt, .pt, .bin, .pth"
    )
    parser.add_argument(
        "--config",
        metavar="PAGE",
        help="the page whose tokenizer has these weights; default: the names and shapes of the weights say what it is",
    )
    parser.add_argument(
        "--options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY:VALUE",
        help="options of the dialect, without a page. beitv2: with_decoder:True keeps the decoder, which predicts the "
        "teacher's features; "
        "with_decoder:False, the default, drops it, because indices do not need it. llamagen_gpt: image_size:384, the "
        "size of the images that the transformer generates",
    )
    parser.add_argument(
        "--check",
        metavar="PAGE",
        help="write nothing unless the model of this page can hold the weights: it has the same tensors, and the "
        "distance, norms and heads of the project",
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--out", type=Path, metavar="F.safetensors", help="the file to write")
    target.add_argument(
        "--suffix",
        default=".converted",
        metavar=".TEXT",
        help="without --out, what is added to FILE to name the file to write (default: .converted)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Converts one file."""
    given = arguments().parse_args(argv)
    dialect = ALIASES.get(given.dialect, given.dialect)
    print(
        printable(
            convert(dialect, given.file, output(given), given.config, given.options, compared=given.check)
        )
    )


def output(given: argparse.Namespace) -> Path:
    """The file to write.

    Raises:
        UsageError: If `vq.load` could not read it, or it would replace the original file.
    """
    if given.out is not None:
        if given.out.suffix != ".safetensors":
            raise cli.UsageError(f"--out: expected a name that ends in .safetensors, got {given.out}")
        out: Path = given.out
    else:
        if not given.suffix or "/" in given.suffix:
            raise cli.UsageError(
                f"--suffix: expected the end of a file name, got {given.suffix!r}; try .converted"
            )
        out = Path(f"{given.file}{given.suffix}")
    if out.resolve() == given.file.resolve():
        raise cli.UsageError(f"--out: expected another file than the one to convert, got {out}")
    return out


def convert(
    dialect: str,
    file: Path,
    out: Path,
    page: str | None,
    options: Sequence[str],
    *,
    compared: str | None = None,
) -> str:
    """Reads, translates, checks and writes the weights; returns a line that says so.

    Args:
        dialect: The name of the project.
        file: Its weights.
        out: The file to write.
        page: The page whose tokenizer has these weights; None if the weights say what it is.
        options: `KEY:VALUE` words for the description of the tokenizer.
        compared: A page whose tokenizer must be able to hold the weights.

    Raises:
        UserError: If there is no such file, the page or an option cannot be used, or the weights are not those of the
            tokenizer.
    """
    values = given_options(dialect, page, options)
    converted = convert_file(file, out, dialect=dialect, page=page, options=options, compared=compared)
    count = sum(t.numel() for t in converted.tensors.values())
    left = (
        DIALECTS[dialect].options.get("with_decoder") is False and not values.get("with_decoder") and not page
    )
    dropped = ", without the decoder (--options with_decoder:True keeps it)" if left else ""
    return f"{out}: {converted.num_read} tensors of {file.name} read, {count / 1e6:.2f} M numbers written{dropped}"


def given_options(dialect: str, page: str | None, options: Sequence[str]) -> dict[str, Any]:
    """The options of the dialect.

    Raises:
        UsageError: If there are some beside a page, one does not exist, or has another type.
    """
    if options and page is not None:
        raise cli.UsageError(
            "--options: expected none with --config, whose page describes the whole tokenizer"
        )
    values = dict(pages.parse_assignments(list(options)))
    try:
        options_of(dialect, values)
    except InteropError as error:
        raise cli.UsageError(f"--options: {error}") from error
    return values


if __name__ == "__main__":
    cli.main(main)
