"""Tokenizes a page's training images as LlamaGen trains on them: ten crops an image, in LlamaGen's files.

    python -m tools.llamagen NAME CONFIG [--load-model-from F] [what vq.tokenize takes]
    bash tools/torchrun.sh tools/llamagen.py NAME CONFIG ...

It is `vq.tokenize NAME CONFIG --train --crops 10`, whose store goes to work_dirs/NAME/tokens/train_ten_crops and can be
interrupted and started again, and then `tools.export_tokens --to llamagen`, which writes
work_dirs/NAME/llamagen_tokens/imagenet256_codes/0.npy (1, 10, indices), imagenet256_labels/0.npy (1,), and so on.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).parents[1])
)  # as a script, from any folder, it finds the tools beside it
from tools.export_tokens import export
from vq import cli, tokenize


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the tool; returns the folder of LlamaGen's files."""
    words = list(sys.argv[1:] if argv is None else argv)
    run = cli.run_directory(tokenize.arguments().parse_args(words).name)
    store, out = run / "tokens" / "train_ten_crops", run / "llamagen_tokens"
    tokenize.main([*words, "--train", "--crops", "10", "--out", str(store)])
    if os.environ.get("RANK", "0") == "0":  # the ranks have parted: the store is whole
        export(store, "llamagen", out)
    return out


if __name__ == "__main__":
    cli.main(main)
