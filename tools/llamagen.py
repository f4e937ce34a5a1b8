"""Tokenizes a page's training images as LlamaGen trains on them: ten crops per image, in LlamaGen's files.

    python -m tools.llamagen NAME CONFIG [--load-model-from F] [other options of vq tokenize]
    auto_torchrun tools/llamagen.py NAME CONFIG ...

It runs `vq tokenize NAME CONFIG --train --crops 10`, which writes a store to work_dirs/NAME/tokens/train_ten_crops and
can be interrupted and started again, and then `vq tokens export --to llamagen`, which writes
work_dirs/NAME/llamagen_tokens/imagenet256_codes/0.npy (1, 10, indices), imagenet256_labels/0.npy (1,), and so on.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vq import cli, tokenize
from vq.interop.token_files import export_tokens


def arguments() -> argparse.ArgumentParser:
    """The tool's arguments: those of `vq tokenize`."""
    return tokenize.arguments()


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the tool; returns the folder of LlamaGen's files."""
    words = list(sys.argv[1:] if argv is None else argv)
    run = cli.run_directory(arguments().parse_args(words).name)
    store, out = run / "tokens" / "train_ten_crops", run / "llamagen_tokens"
    tokenize.main([*words, "--train", "--crops", "10", "--out", str(store)])
    if os.environ.get("RANK", "0") == "0":  # all ranks have left: the store is complete
        export_tokens(store, "llamagen", out)
    return out


if __name__ == "__main__":
    cli.main(main)
