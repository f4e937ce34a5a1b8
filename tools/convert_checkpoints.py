r"""Converts the tokenizer weights of another project to a file that `vq.load` reads.

    python tools/convert_checkpoints.py taming last.ckpt \
        --config configs/vqgan/1024_imagenet_ddp.py --out pretrained/vqgan_1024.safetensors
    python tools/convert_checkpoints.py beitv2 vqkd_encoder_base_decoder_1x768x12_clip.pth \
        --options with_decoder:True --suffix .converted.with_decoder

Nothing is written unless every tensor of the file has a counterpart and every tensor of the tokenizer is set. A pickle
is read as plain tensors only: none of its content is executed.
"""

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from vq import cli
from vq import config as pages
from vq.engine.assembly.build import make_tokenizer
from vq.interop import DIALECTS, InteropError, describe_beitv2, from_dialect
from vq.text import printable
from vq.tokenizers.checkpoint import read_weights, save_weights


class Ignored:
    """Replaces a class that training files store beside the weights, and ignores its content."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


# The training files of taming have callbacks as keys, those of LlamaGen their arguments.
IGNORED = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "argparse.Namespace",
)


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.tool_parser(__doc__)
    parser.add_argument("dialect", choices=sorted(DIALECTS), help="the project that wrote the file")
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="its weights: .safetensors, .ckpt, .pt, .bin, .pth"
    )
    parser.add_argument(
        "--config",
        metavar="PAGE",
        help="the page whose tokenizer has these weights; beitv2 does not need one, because the names and shapes of "
        "its weights say what the tokenizer is",
    )
    parser.add_argument(
        "--options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY:VALUE",
        help="for beitv2 without a page: with_decoder:True keeps the decoder, which predicts the teacher's features; "
        "with_decoder:False, the default, drops it, because indices do not need it",
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
    print(printable(convert(given.dialect, given.file, output(given), given.config, given.options)))


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


def convert(dialect: str, file: Path, out: Path, page: str | None, options: Sequence[str]) -> str:
    """Reads, translates, checks and writes the weights; returns a line that says so.

    Args:
        dialect: The name of the project.
        file: Its weights.
        out: The file to write.
        page: The page whose tokenizer has these weights; None if the weights say what it is.
        options: `KEY:VALUE` words for the description of the tokenizer.

    Raises:
        UserError: If there is no such file, the page or an option cannot be used, or the weights are not those of the
            tokenizer.
    """
    with_decoder = wants_decoder(dialect, page, options)
    config = pages.load(page).to_dict() if page else None
    with ignoring_training_state():
        state, _ = read_weights(file)
    try:
        if config is None:
            config = {"tokenizer": describe_beitv2(state, with_decoder=with_decoder)}
        tokenizer = make_tokenizer(config)
        from_dialect(tokenizer, state, dialect)
    except InteropError as error:
        raise InteropError(f"{file}{f' with {page}' if page else ''}: {error}") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(tokenizer.state_dict(), out, config)
    count = sum(t.numel() for t in tokenizer.state_dict().values())
    dropped = "" if page or with_decoder else ", without the decoder (--options with_decoder:True keeps it)"
    return f"{out}: {len(state)} tensors of {file.name} read, {count / 1e6:.2f} M numbers written{dropped}"


def wants_decoder(dialect: str, page: str | None, options: Sequence[str]) -> bool:
    """The option `with_decoder`.

    Raises:
        UsageError: If a page is missing, or an option is unknown, has another type or has no effect.
    """
    if page is None and dialect != "beitv2":
        raise cli.UsageError(
            f"--config: expected the page whose tokenizer has these weights, got none; {dialect} weights do not say "
            "what their codebook and distance are"
        )
    values = pages.parse_assignments(list(options))
    if values and page is not None:
        raise cli.UsageError(
            "--options: expected none with --config, whose page says whether there is a decoder"
        )
    given = values.pop("with_decoder", False)
    if values or not isinstance(given, bool):
        raise cli.UsageError(
            f"--options: expected with_decoder:True or with_decoder:False, got {' '.join(options)}"
        )
    return given


@contextlib.contextmanager
def ignoring_training_state() -> Iterator[None]:
    """Lets torch's reader of plain tensors accept some classes, each replaced by one that does nothing."""
    with torch.serialization.safe_globals([(Ignored, name) for name in IGNORED]):
        yield


if __name__ == "__main__":
    cli.main(main)
