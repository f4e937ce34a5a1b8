"""The `vq` script: `vq COMMAND ...`, or `python -m vq COMMAND ...`. A command is imported only when it runs."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from vq import __version__, failures
from vq.errors import UserError
from vq.text import suggest


class Command(NamedTuple):
    """A sub-command: the module with its `arguments` and `main`, and its line in the help."""

    module: str
    summary: str


COMMANDS: dict[str, Command] = {
    "train": Command("vq.train", "train a tokenizer, a generator or a probe"),
    "doctor": Command("vq.doctor", "examine a page or a run: what will go wrong"),
    "val": Command("vq.val", "score the checkpoints of a run"),
    "test": Command("vq.test", "score one checkpoint, given by its path"),
    "fid": Command("vq.fid", "compute the reference statistics that FID needs"),
    "compare": Command("vq.compare", "train several quantizers under equal conditions"),
    "report": Command("vq.report", "write one page that shows what runs did"),
    "inference": Command("vq.inference", "encode images as indices, and decode indices"),
    "tokenize": Command("vq.tokenize", "encode a whole data set as a token store"),
    "tokens": Command("vq.tokens", "exchange token stores with other projects (export, import)"),
    "export": Command("vq.export", "write a tokenizer as ONNX, TorchScript or an exported program"),
    "generate": Command("vq.generate", "sample images from a generator"),
    "configs": Command("vq.list_configs", "list the config pages that come with vq"),
    "list": Command("vq.list_parts", "list quantizers, networks, losses, metrics and other parts"),
    "weights": Command("vq.weights", "fetch the weights of frozen networks and of published models"),
    "convert": Command("vq.convert", "convert a weight file of another project"),
    "completion": Command("vq.completion", "print the completion script of a shell"),
}
"""Every sub-command, in the order of the help."""

HELP = """\
usage: vq COMMAND ...        vq COMMAND --help describes one command
       vq --help | --version

Discrete image tokenizers, and generators over their tokens.

A first run, in any folder:
  vq configs "fsq/*"                             list the pages of a quantizer
  vq train emoji fsq/1000_emoji                  train; everything is written to work_dirs/emoji
  vq val emoji                                   score its checkpoints
  vq inference emoji cat.png --out out           encode and decode an image
  vq tokenize emoji                              encode the validation set as a token store
  vq train emoji --override .trainer.max_steps:2000 --auto-resume     continue for longer

NAME is a run, below work_dirs/. CONFIG is a file, or a page that `vq configs` lists.
Several GPUs: auto_torchrun -m vq.train NAME CONFIG
In Python:    tokenizer = vq.load("work_dirs/emoji")

commands:
{commands}
"""


def help_text() -> str:
    """The text of `vq --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return HELP.format(commands="\n".join(lines))


def main(argv: Sequence[str] | None = None) -> Any:
    """Runs a sub-command; returns what it returns.

    Raises:
        UserError: If there is no such command.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        sys.stderr.write(help_text())
        sys.exit(failures.USER_ERROR)
    name, *rest = words
    if name in ("-h", "--help"):
        sys.stdout.write(help_text())
        return None
    if name == "--version":
        sys.stdout.write(f"vq {__version__}\n")
        return None
    if name not in COMMANDS:
        raise UserError(f"vq: there is no command {name!r}{suggest(name, COMMANDS)}")
    return importlib.import_module(COMMANDS[name].module).main(rest)


def script() -> None:
    """The entry point of the console script."""
    with failures.reported():
        main()


if __name__ == "__main__":
    script()
