"""Trains a tokenizer, a generator or a probe: `vq train NAME CONFIG`, or `torchrun ... -m vq.train NAME CONFIG`."""

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq import cli
from vq.errors import UserError
from vq.run_config import config_to_continue, left_for_the_model, recorded_frozen_weights

if TYPE_CHECKING:
    from mmengine.config import Config

    from vq.engine.doctor.findings import Finding
    from vq.engine.jobs.training import TrainingOptions

logger = logging.getLogger("vq.train")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "train",
        "Trains the tokenizer (or the generator, or the probe) of CONFIG and writes everything to work_dirs/NAME. "
        "Several processes: auto_torchrun -m vq.train NAME CONFIG",
        "vq train emoji fsq/1000_emoji --override .trainer.max_steps:200\n  vq train emoji --auto-resume",
    )
    cli.add_run(parser)
    add_options(parser)
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="compute every sum in a fixed order, so that equal runs on equal machines give equal bits; slower",
    )
    parser.add_argument(
        "--profile",
        nargs="?",
        const="11-13",
        type=steps_to_profile,
        metavar="FIRST-LAST",
        help="write a trace of these steps, counted from the start of the command (11-13), to profile/ in the run",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="examine as vq doctor does, print the plan, train nothing"
    )
    return parser


def steps_to_profile(text: str) -> tuple[int, int]:
    """The first and the last step of `11-13`, or of `11`."""
    first, is_range, last = text.partition("-")
    if not (first.isdecimal() and (last if is_range else first).isdecimal()):
        raise argparse.ArgumentTypeError(
            f"expected steps such as 11-13, got {text!r}; put NAME and CONFIG before --profile"
        )
    steps = int(first), int(last if is_range else first)
    if not 1 <= steps[0] <= steps[1]:
        raise argparse.ArgumentTypeError(f"expected FIRST-LAST with 1 <= FIRST <= LAST, got {text!r}")
    return steps


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that decide how a training runs."""
    cli.add_machine(parser)
    cli.add_tuning(parser)
    cli.add_weights(parser)
    parser.add_argument(
        "--seed",
        type=int,
        help="base seed of weights, order, augmentation (default: that of the checkpoint to continue from, or 3407)",
    )
    parser.add_argument(
        "--load-from",
        metavar="DIR",
        help="continue from this checkpoint folder, e.g. work_dirs/X/checkpoints/iter_100",
    )
    parser.add_argument(
        "--auto-resume",
        action="store_true",
        help="continue from the newest valid checkpoint of NAME, if there is one (torchrun --max-restarts does so)",
    )
    parser.add_argument(
        "--changed-data",
        action="store_true",
        help="continue although images were added to the training set, removed or renamed",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="end the run when one of its processes gives no sign of life for this long (default 600)",
    )
    cli.add_wandb(parser)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Runs the command; returns the scores of the last validation."""
    args = arguments().parse_args(argv)
    run = cli.run_directory(args.name)
    config = config_of(args, run)

    from vq import pretrained
    from vq.engine.jobs import training
    from vq.engine.jobs.restarts import is_restart
    from vq.engine.loop.launch import launched, open_log
    from vq.engine.loop.run_lock import RunLock
    from vq.ops.numerics.determinism import deterministic

    has_trouble = args.dry_run and _log_examination(args, config.to_dict(), run)
    launch = launched(device=args.device, autocast=args.autocast, timeout=args.timeout)
    with cli.ends_on_signal(), deterministic(is_on=args.deterministic), launch as machine:
        if args.dry_run:
            open_log(None)
            with pretrained.without_writing():
                training.plan(config, run, machine, _options(args, config.to_dict()))
            if has_trouble:
                sys.exit(1)
            return {}
        with RunLock(run):
            args.auto_resume = args.auto_resume or is_restart(run)
            _refuse_overwriting(args, run)
            # A command that is refused leaves the log of the run that it would continue as it is.
            open_log(run / "log.txt", is_held=args.auto_resume or bool(args.load_from))
            try:
                return training.train(config, run, machine, _options(args, config.to_dict()))
            except ModuleNotFoundError as error:
                raise cli.UsageError(str(error)) from error


def config_of(args: argparse.Namespace, run: Path) -> "Config":
    """The config of a training: CONFIG, or that of the run or the checkpoint that it continues."""
    source = args.config or config_to_continue(args.name, run, args.load_from)
    frozen_from = args.load_model_from
    if not frozen_from and (args.auto_resume or args.load_from):
        frozen_from = recorded_frozen_weights(
            run, [args.load_from] if args.load_from and Path(args.load_from).is_dir() else []
        )
    return cli.load_config(args, source, frozen_from=frozen_from)


def examination(
    args: argparse.Namespace, tree: Mapping[str, Any], run: Path | None, *, num_ranks: int | None = None
) -> "list[Finding]":
    """What would go wrong in a training with these arguments; nothing is trained or written.

    Args:
        args: The options of `add_options`.
        tree: The resolved config; empty to examine the machine alone.
        run: The run folder, if it is known.
        num_ranks: The processes that will train, of which one is on this machine; None for those of torchrun.
    """
    from dataclasses import replace

    from vq.engine.doctor.case import Case, Options, World
    from vq.engine.doctor.examination import examine
    from vq.engine.steps.tuning import Tuning

    try:
        given = left_for_the_model(tree, args.load_model_from)
    except UserError:  # the files are missing or damaged, as the examination will say
        given = args.load_model_from
    options = Options(
        device=args.device,
        autocast=args.autocast,
        seed=args.seed,
        auto_resume=args.auto_resume,
        load_from=args.load_from,
        wandb=args.wandb,
        weights=given,
        allow_missing=".*" if args.non_strict else args.allow_missing,
        allow_unexpected=".*" if args.non_strict else args.allow_unexpected,
        tuning=Tuning(is_channels_last=args.channels_last, is_compiled=args.compile),
    )
    world = World.here()
    if num_ranks is not None:
        world = replace(world, ranks=num_ranks, local_ranks=1)
    return examine(Case(tree=tree, run=run, options=options, world=world))


def _log_examination(args: argparse.Namespace, tree: Mapping[str, Any], run: Path) -> bool:
    """Logs the faults that an examination finds, on the first process; returns whether there is trouble."""
    if os.environ.get("RANK", "0") != "0":
        return False
    from vq.engine.doctor.findings import Level, count
    from vq.engine.doctor.report import line, summary
    from vq.engine.loop.launch import open_log

    found = examination(args, tree, run)
    open_log(None)
    for finding in found:
        if finding.level is not Level.OK:
            logger.info("%s", line(finding))
    logger.info("examined: %s; `vq doctor` lists them", summary(found))
    return count(found, Level.TROUBLE) > 0


def _options(args: argparse.Namespace, tree: Mapping[str, Any]) -> "TrainingOptions":
    if args.non_strict and not args.load_model_from:
        logger.info("--override %s: has no effect without --load-model-from", cli.NON_STRICT)
    from vq.engine.jobs.training import TrainingOptions
    from vq.engine.steps.tuning import Tuning

    return TrainingOptions(
        seed=args.seed,
        auto_resume=args.auto_resume,
        load_from=args.load_from,
        weights=cli.given_weights(args, left_for_the_model(tree, args.load_model_from)),
        tuning=Tuning(is_channels_last=args.channels_last, is_compiled=args.compile),
        wandb=cli.wandb_names(args, args.name),
        is_deterministic=args.deterministic,
        may_data_differ=args.changed_data,
        profile=args.profile,
    )


def _refuse_overwriting(args: argparse.Namespace, run: Path) -> None:
    from vq.tokenizers.checkpoint import checkpoints_in

    if not args.auto_resume and not args.load_from and checkpoints_in(run / "checkpoints"):
        raise cli.UsageError(
            f"{run} already holds a trained run; continue it with --auto-resume, or choose another NAME"
        )


if __name__ == "__main__":
    cli.main(main)
