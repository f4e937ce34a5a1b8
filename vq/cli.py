"""The arguments that commands share, each defined once, and how a command ends on an error.

Nothing here imports torch: a misspelt key is reported before the slow part of a program begins.
"""

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from vq import config, failures
from vq.errors import UserError
from vq.known_weights import refuse_zoo
from vq.text import printable, suggest

if TYPE_CHECKING:
    from mmengine.config import Config

WORK_DIRS = Path("work_dirs")


class UsageError(UserError, ValueError):
    """A command that cannot start; the message says what to do instead."""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument as any other error that a user can mend: once, whatever the number of processes."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` lists what it takes")


def parser(command: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser whose help describes the command and ends with lines to copy.

    Args:
        command: The name of the sub-command of `vq`.
        description: What it does. A text of one line is wrapped, one of several lines stays as it is.
        example: One or more command lines.
    """
    return _Parser(prog=f"vq {command}", **_help(description, example))


def subparser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    summary: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """A parser below another one, as `export` in `vq tokens export`; `summary` is its line in the help of the other."""
    return commands.add_parser(name, help=summary, **_help(description, example))


def _help(description: str, example: str) -> dict[str, Any]:
    return {
        "description": description if "\n" in description else textwrap.fill(description, 100),
        "epilog": f"example:\n  {example}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def add_run(parser: argparse.ArgumentParser, *, exists: bool = False) -> None:
    """NAME and CONFIG, and what changes the config.

    Args:
        parser: Gets the arguments.
        exists: Whether the command is always about a run that exists, with which CONFIG must agree; see
            `vq.run_config`.
    """
    parser.add_argument("name", metavar="NAME", help="the run; everything is written to work_dirs/NAME")
    default = "the config that the run was trained with, its overrides included"
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        help="a page such as configs/fsq/1000_emoji.py; default: "
        + (
            f"{default}. One that differs from it in data, tokenizer or generator is refused"
            if exists
            else f"for a run that exists (--auto-resume, --load-from), {default}"
        ),
    )
    if exists:
        add_as_given(parser)
    add_config_changes(parser)


def add_as_given(parser: argparse.ArgumentParser) -> None:
    """`--as-given`."""
    parser.add_argument(
        "--as-given",
        action="store_true",
        help="use CONFIG as it is, also where it differs from what the weights were trained with",
    )


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
    parser.add_argument(
        "--weights",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=PATH",
        help="where weights that the config refers to are now, such as tokenizer=work_dirs/NAME; they must have the "
        "SHA-256 that a run has recorded",
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
        type=_pattern,
        metavar="REGEX",
        help="parameters that the files may lack, e.g. 'quantizer.*'",
    )
    parser.add_argument(
        "--allow-unexpected",
        default="",
        type=_pattern,
        metavar="REGEX",
        help="entries of the files that may be left out",
    )


def add_visual(parser: argparse.ArgumentParser) -> None:
    """`--visual`."""
    parser.add_argument(
        "--visual",
        default="",
        type=_pattern,
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


def positive(text: str) -> int:
    """The value of an argument that counts something."""
    number = int(text)  # argparse reports a ValueError
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from None
    return text


def load_config(args: argparse.Namespace, source: str | Path | None = None) -> "Config":
    """The config of a command, with its options and overrides.

    Args:
        args: With `config`, `config_options` and `override`.
        source: A file instead of `args.config`.
    """
    loaded = config.load(
        source or args.config,
        options=config.parse_assignments(args.config_options),
        overrides=config.parse_assignments(args.override),
    )
    moved = dict(_moved(word) for word in getattr(args, "weights", []))
    tree = config.with_weights(loaded.to_dict(), moved)
    if config.refers_to_weights(tree):
        from vq.tokenizers.pretrained import record_weights

        tree = record_weights(tree)
    return config.replaced(loaded, tree)


def _moved(word: str) -> tuple[str, str]:
    key, equals, path = word.partition("=")
    if not key or not equals or not path:
        raise UsageError(f"--weights {word}: expected KEY=PATH, such as tokenizer=work_dirs/NAME")
    return key, path


def run_directory(name: str) -> Path:
    """`work_dirs/NAME`; a NAME that begins with `work_dirs/` is the same run.

    Raises:
        UsageError: If the name would leave work_dirs, is not a plain path, or is that of a page or a file.
    """
    refuse_zoo(name)
    plain = name.removeprefix("./").removeprefix(f"{WORK_DIRS}/").rstrip("/")
    parts = plain.split("/")
    if name.endswith((".py", ".json")):
        raise UsageError(f"NAME {name!r}: this is a CONFIG; NAME comes first, then CONFIG")
    if not all(re.fullmatch(r"[\w][\w.\-+=,]*", part) for part in parts) or ".." in parts:
        raise UsageError(
            f"NAME {name!r}: expected a relative name such as vqgan/1024_imagenet, made of letters, digits and "
            f"_ - + . = , in parts separated by /, without '..'; everything is written to {WORK_DIRS}/NAME"
        )
    run = WORK_DIRS.joinpath(*parts)
    for folder in (run, *run.parents):
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"NAME {name!r}: {folder} is a file, and a run is a folder; choose another NAME")
    return run


def run_names() -> list[str]:
    """The names of all runs in work_dirs, sorted."""
    files = [file for depth in ("*", "*/*", "*/*/*") for file in WORK_DIRS.glob(f"{depth}/config.json")]
    return sorted(str(f.parent.relative_to(WORK_DIRS)) for f in files if "checkpoints" not in f.parts)


def known_runs(name: str) -> str:
    """The end of an error message: the run whose name is nearest, or a list of some."""
    runs = run_names()
    return suggest(name, runs[:10] if name not in runs else runs)


def check_out(directory: Path | None) -> None:
    """Refuses an `--out` that is a file, or lies inside one, before any work.

    Raises:
        UsageError: With the file's path.
    """
    for folder in () if directory is None else (directory, *directory.parents):
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--out {directory}: {folder} is a file, and a folder is needed; choose another")


@contextmanager
def ends_on_signal() -> Iterator[None]:
    """Inside, SIGTERM, SIGINT, SIGHUP and SIGUSR1 end the command at once with 128 + the signal's number.

    For commands that write each file whole or not at all, and go on where they were when started again.
    """
    from vq.engine.loop.stopping import StopRequest

    with StopRequest() as stop, stop.at_once():
        yield


def say(line: str) -> None:
    """Prints a line of a command's result to stdout at once."""
    sys.stdout.write(f"{printable(line)}\n")
    sys.stdout.flush()


def say_table(lines: list[str]) -> list[str]:
    """Prints the lines of a listing; returns them."""
    for line in lines:
        say(line)
    return lines


def nothing_found(message: str) -> NoReturn:
    """Ends a search without a result, with exit code 1.

    Raises:
        SystemExit: Always.
    """
    sys.stderr.write(f"{printable(message)}\n")
    sys.exit(1)


def main(command: Callable[[Sequence[str] | None], Any]) -> None:
    """Runs a command as a program: exit code 2 and one message for what a user can mend.

    Everything else that ends a command before its work is done is in `vq.failures`.
    """
    with failures.reported():
        command(None)
