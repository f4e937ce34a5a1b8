"""`vq tokenize` as the reference framework spells it: `python -m vq.tasks.image_tokenization.tokenize NAME CONFIG ...`.

It takes the arguments of `vq tokenize`, and writes to the folder in which that framework puts tokens:
`work_dirs/NAME_tokenize/tokens`, or `work_dirs/NAME_tokenize_train/tokens` with `--train`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vq import cli, tokenize

if TYPE_CHECKING:
    from vq.engine.jobs.store_writing import StoredSet

VALIDATOR = ".validator"
REDUNDANT = f"{VALIDATOR}.type::VQITRunnerRegistry.Tokenizer"
"""The override that selects tokenization in the reference framework; this command does nothing else."""


def arguments() -> argparse.ArgumentParser:
    """The command's arguments: those of `vq tokenize`."""
    return tokenize.arguments()


def main(argv: Sequence[str] | None = None) -> "StoredSet":
    """Runs the command."""
    return tokenize.run_with(parsed(argv))


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of a command line as `vq tokenize` takes them.

    Raises:
        UsageError: If an override is one of the validator, but not `REDUNDANT`.
    """
    args = arguments().parse_args(argv)
    if REDUNDANT in args.override:
        args.override = [word for word in args.override if word != REDUNDANT]
        if os.environ.get("RANK", "0") == "0":
            sys.stderr.write(f"--override {REDUNDANT}: has no effect; this command always tokenizes\n")
    for word in args.override:
        if word.startswith(VALIDATOR):
            raise cli.UsageError(
                f"--override {word}: a config has no section validator; only {REDUNDANT} is accepted, and it has no "
                f"effect"
            )
    args.out = args.out or tokens_of(args.name, train=args.train)
    return args


def tokens_of(name: str, *, train: bool) -> Path:
    """The folder of the tokens of a run."""
    run = cli.run_directory(name)
    return run.with_name(f"{run.name}_tokenize{'_train' if train else ''}") / "tokens"


if __name__ == "__main__":
    cli.main(main)
