"""Converts the tokenizer weights of another project to a file that `vq.load` reads.

    python tools/convert_checkpoints.py taming last.ckpt \
        --config configs/vqgan/1024_imagenet_ddp.py --out pretrained/vqgan_1024.safetensors

Nothing is written unless every tensor of the file is used and every tensor of the page's tokenizer is set. A pickle is
read as plain tensors only: none of its content is executed.
"""

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from vq import cli
from vq import config as pages
from vq.engine.assembly.build import make_tokenizer
from vq.interop import DIALECTS, InteropError, from_dialect
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
    parser.add_argument("file", type=Path, metavar="FILE", help="its weights: .safetensors, .ckpt, .pt, .bin")
    parser.add_argument(
        "--config",
        required=True,
        metavar="PAGE",
        help="the page whose tokenizer has these weights",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="F.safetensors", help="the file to write")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Converts one file."""
    given = arguments().parse_args(argv)
    print(printable(convert(given.dialect, given.file, given.config, given.out)))


def convert(dialect: str, file: Path, page: str, out: Path) -> str:
    """Reads, translates, checks and writes the weights; returns a line that says so.

    Raises:
        UserError: If `vq.load` could not read `out`, there is no such file, the page cannot be used, or the weights
            are not those of its tokenizer.
    """
    if out.suffix != ".safetensors":
        raise cli.UsageError(f"--out: expected a name that ends in .safetensors, got {out}")
    config = pages.load(page).to_dict()
    tokenizer = make_tokenizer(config)
    with ignoring_training_state():
        state, _ = read_weights(file)
    try:
        from_dialect(tokenizer, state, dialect)
    except InteropError as error:
        raise InteropError(f"{file} with {page}: {error}") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(tokenizer.state_dict(), out, config)
    count = sum(t.numel() for t in tokenizer.state_dict().values())
    return f"{out}: {len(state)} tensors of {file.name} read, {count / 1e6:.2f} M numbers written"


@contextlib.contextmanager
def ignoring_training_state() -> Iterator[None]:
    """Lets torch's reader of plain tensors accept some classes, each replaced by one that does nothing."""
    with torch.serialization.safe_globals([(Ignored, name) for name in IGNORED]):
        yield


if __name__ == "__main__":
    cli.main(main)
