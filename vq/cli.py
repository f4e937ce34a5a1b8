"""The arguments that commands share, each defined once, and how a command ends on an error.

Nothing here imports torch: a misspelt key is reported before the slow part of a program begins.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq import config
from vq.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

WORK_DIRS = Path("work_dirs")


class UsageError(UserError, ValueError):
    """A command that cannot start; the message says what to do instead."""


def parser(command: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser whose help shows what the command does and a line to copy."""
    return argparse.ArgumentParser(
        prog=f"python -m vq.{command}",
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """NAME and CONFIG, and what changes the config."""
    parser.add_argument("name", metavar="NAME", help="the run; everything is written to work_dirs/NAME")
    parser.add_argument("config", metavar="CONFIG", help="a page such as configs/fsq/1000_emoji.py")
    add_config_changes(parser)


def add_config_changes(parser: argparse.ArgumentParser) -> None:
    """`--config-options` and `--override`."""
    parser.add_argument(
        "--config-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="K:LITERAL|K::TEXT",
        help="values for the options that the config declares (options = dict(...)), filled in before it runs; "
        "image_size:128 is a number, teacher::clip a string",
    )
    parser.add_argument(
        "--override",
        nargs="+",
        action="extend",
        default=[],
        metavar=".PATH:LITERAL|.PATH::TEXT",
        help="values assigned after the config ran: .trainer.max_steps:8 .evaluator.metrics[0].network::vgg; "
        "literals are parsed (None, [1, 2], dict(a=1)), never evaluated",
    )


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Device and precision."""
    parser.add_argument("--device", help="cuda, cpu, ... (default: cuda where there is one)")
    parser.add_argument(
        "--autocast",
        action="store_true",
        help="encoder and decoder in bfloat16; quantizer, losses in float32",
    )


def add_tuning(parser: argparse.ArgumentParser) -> None:
    """How fast training runs, beside `add_machine`."""
    parser.add_argument(
        "--channels-last",
        action="store_true",
        help="lay images and features out with the channels innermost, which convolutions on a GPU prefer",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile for the networks that are trained; the first steps take minutes",
    )


def add_weights(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """`--load-model-from` and the names that may differ."""
    parser.add_argument(
        "--load-model-from",
        nargs="+",
        default=[],
        required=required,
        metavar="F",
        help="weights: checkpoint folders (iter_N) or files; later ones win. "
        "What is missing or unexpected is an error unless allowed below",
    )
    parser.add_argument(
        "--allow-missing",
        default="",
        metavar="REGEX",
        help="parameters that the files may lack, e.g. 'quantizer.*'",
    )
    parser.add_argument(
        "--allow-unexpected", default="", metavar="REGEX", help="entries of the files that may be left out"
    )


def add_visual(parser: argparse.ArgumentParser) -> None:
    """`--visual`."""
    parser.add_argument(
        "--visual",
        default="",
        metavar="REGEX",
        help="also save a PNG per image of each kind that matches: image, reconstruction, indices",
    )


def add_wandb(parser: argparse.ArgumentParser) -> None:
    """`--wandb`."""
    parser.add_argument(
        "--wandb", action="store_true", help="also log to Weights & Biases (WANDB_MODE=offline: no network)"
    )


def add_tokenize(parser: argparse.ArgumentParser) -> None:
    """`--tokenize`."""
    parser.add_argument(
        "--tokenize",
        action="store_true",
        help="also write the indices of the validation set, beside metrics.json in tokens/ (as vq.tokenize does)",
    )


def load_config(args: argparse.Namespace) -> "Config":
    """The config of a command, with its options and overrides."""
    return config.load(
        args.config,
        options=config.parse_assignments(args.config_options),
        overrides=config.parse_assignments(args.override),
    )


def run_directory(name: str) -> Path:
    """`work_dirs/NAME`.

    Raises:
        UsageError: If the name would leave work_dirs or is not a plain path.
    """
    parts = name.split("/")
    if not all(re.fullmatch(r"[\w][\w.\-+=,]*", part) for part in parts) or ".." in parts:
        raise UsageError(
            f"NAME {name!r}: expected a relative name such as vqgan/1024_imagenet, made of letters, digits and "
            f"_ - + . = , in parts separated by /, without '..'; everything is written to {WORK_DIRS}/NAME"
        )
    return WORK_DIRS.joinpath(*parts)


def main(command: Callable[[Sequence[str] | None], Any]) -> None:
    """Runs a command as a program: exit code 2 and one message for what a user can mend."""
    try:
        command(None)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
