"""Tells before a training what will go wrong: `vq doctor`, `vq doctor CONFIG`, `vq doctor NAME [CONFIG]`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq import cli, train
from vq.errors import UserError

if TYPE_CHECKING:
    from vq.engine.doctor.findings import Finding

TROUBLE = 1
"""The exit code if anything would end or spoil the training."""


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "doctor",
        "Examines a page or a run before hours are spent on it: the machine, disk, weights, data, memory, the "
        "schedule, and the checkpoints of a run. Faults that a training would show latest come first. Nothing is "
        "written. The exit code is 1 if there is trouble, and 0 if there are warnings alone. Without arguments it "
        "examines the machine. The other options are those of vq train.",
        "vq doctor vqgan/8192_imagenet_ddp --autocast\n  vq doctor emoji --override .trainer.max_steps:2000",
    )
    parser.add_argument(
        "name",
        metavar="NAME|CONFIG",
        nargs="?",
        help="a run in work_dirs, whose stored config is used and which --auto-resume would continue; or a CONFIG",
    )
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        help="the page, if NAME is the name that the run will have",
    )
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else to stdout")
    parser.add_argument(
        "--ranks",
        type=cli.positive,
        metavar="N",
        help="the number of processes that will train (default: as torchrun says, else 1); if there are several, the "
        "memory of one of them is estimated with DDP and with FSDP2",
    )
    cli.add_config_changes(parser)
    train.add_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> "list[Finding]":
    """Runs the command; returns what it found.

    Raises:
        SystemExit: With `TROUBLE`, if there is trouble.
    """
    args = arguments().parse_args(argv)
    run, subject = _subject(args)
    if not args.timeout > 0:
        raise cli.UsageError(f"--timeout: expected seconds above 0, got {args.timeout:g}")
    tree = _tree(args, run)
    if os.environ.get("RANK", "0") != "0":
        return []  # the first process of torchrun examines for all
    _check_torchvision()

    from vq.engine.doctor.findings import Level, count

    findings = train.examination(args, tree, run, num_ranks=args.ranks)
    _show(subject, findings, as_json=args.json)
    if count(findings, Level.TROUBLE):
        sys.exit(TROUBLE)
    return findings


def _subject(args: argparse.Namespace) -> tuple[Path | None, str]:
    """The run folder that the arguments mean, and what is examined, in words; fills in `--auto-resume` for a run."""
    if args.name is None:
        return None, "this machine"
    if args.config is not None:
        run = cli.run_directory(args.name)
        return run, f"{args.config} as {run}"
    if args.name in cli.run_names() or args.auto_resume or args.load_from:
        args.auto_resume = args.auto_resume or not args.load_from
        run = cli.run_directory(args.name)
        return run, f"run {run}"
    args.config = args.name
    return None, f"page {args.name}"


def _tree(args: argparse.Namespace, run: Path | None) -> dict[str, Any]:
    """The resolved config; empty to examine the machine alone."""
    if args.name is None:
        return {}
    config = train.config_of(args, cli.WORK_DIRS if run is None else run)
    tree: dict[str, Any] = config.to_dict()
    return tree


def _show(subject: str, findings: "Sequence[Finding]", *, as_json: bool) -> None:
    from rich.console import Console

    from vq.engine.doctor.report import as_json as in_json
    from vq.engine.doctor.report import show

    if as_json:
        sys.stdout.write(in_json(subject, findings) + "\n")
    else:
        show(Console(file=sys.stdout), subject, findings)


def _check_torchvision() -> None:
    """Refuses a torchvision that cannot be imported, which would end every command with a traceback.

    Raises:
        UserError: With the command that installs one that fits.
    """
    try:
        import torchvision  # noqa: F401
    except (RuntimeError, OSError) as error:  # its operators are for another version of torch
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"torchvision cannot be imported ({reason}): it is made for another version of torch; install both again "
            f"with one command: pip install --upgrade torch torchvision"
        ) from error


if __name__ == "__main__":
    cli.main(main)
