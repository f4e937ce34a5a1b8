"""Validates a run's checkpoints: `vq val NAME [CONFIG] [--load-from iter_100 ...]`."""

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vq import cli
from vq.run_config import config_for

if TYPE_CHECKING:
    from vq.engine.jobs.checkpoints import Validation
    from vq.engine.loop.callbacks import Callback

logger = logging.getLogger("vq.val")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "val",
        "Validates the named checkpoints of work_dirs/NAME, or all there are, oldest first, and ends. Writes "
        "work_dirs/NAME/val/iter_N/metrics.json and pictures, and a TensorBoard row at the checkpoint's step. "
        "Stopped and started again, it goes on with what has no scores yet.",
        "vq val fsq/1000_emoji --load-from iter_500 iter_1000\n"
        "  vq val fsq/1000_emoji fsq/1000_emoji --as-given",
    )
    cli.add_run(parser, exists=True)
    cli.add_machine(parser)
    cli.add_visual(parser)
    cli.add_tokenize(parser)
    cli.add_wandb(parser)
    parser.add_argument(
        "--load-from", nargs="+", default=[], metavar="iter_N", help="checkpoints of the run, by name"
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="go on with new checkpoints until the run's last step is validated, or its training has ended",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="score what has scores of the same weights, images and settings too",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Runs the command; returns the scores of each checkpoint by its name."""
    args = arguments().parse_args(argv)
    run = cli.run_directory(args.name)
    tree = config_for(args, run=run)

    from vq.engine.assembly.build import make_score_callback
    from vq.engine.jobs.checkpoints import Validation
    from vq.engine.loop.launch import launched, open_log
    from vq.tokenizers.checkpoint import CheckpointError

    last_step = tree.get("trainer", {}).get("max_steps", 0)
    with cli.ends_on_signal(), launched(device=args.device, autocast=args.autocast) as machine:
        open_log(run / "val" / "log.txt" if run.is_dir() else None)
        checkpoints = _wanted(run, args.load_from, follow=args.follow, last_step=last_step)
        logger.info("%s", machine)
        validation = Validation.of(
            tree,
            device=machine.device,
            autocast=args.autocast,
            visual=args.visual,
            is_tokenized=args.tokenize,
        )
        callback = make_score_callback(tree, run, name=f"{run.name}-val", wandb=args.wandb)
        callback.on_start(0, last_step)
        scores, damaged = {}, []
        for checkpoint in checkpoints:
            if problem := _problem_of(checkpoint):
                logger.warning("%s: passed over: %s", checkpoint, problem)
                damaged += [] if args.follow else [f"{checkpoint}: {problem}"]
            else:
                found = _validate(validation, run, checkpoint, callback, again=args.again)
                scores[checkpoint.name] = found
        callback.on_end(last_step)
        if damaged:
            raise CheckpointError("; ".join(damaged))
        return scores


def _problem_of(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be scored, on every rank the same; None if it can."""
    from vq import distributed
    from vq.tokenizers.manifest import verify

    problem = verify(checkpoint)
    if not checkpoint.exists():
        problem = "it is gone: the run keeps only its newest checkpoints"
    elif problem:
        problem = f"damaged: {problem}"
    return distributed.broadcast_object(problem)


def _validate(
    validation: "Validation", run: Path, checkpoint: Path, callback: "Callback", *, again: bool
) -> dict[str, float]:
    from vq.tokenizers.checkpoint import find_weights, step_of

    directory, weights = run / "val" / checkpoint.name, [find_weights(checkpoint)]
    if not again and (scores := validation.found_before(weights, directory)) is not None:
        logger.info(
            "%s: scored before with the same weights, images and settings; --again repeats it", directory
        )
        return scores
    return validation.run(weights, directory, callback=callback, step=step_of(checkpoint))


def _wanted(run: Path, names: list[str], *, follow: bool, last_step: int) -> Iterator[Path]:
    """The checkpoints to validate; the first is looked for before anything is built."""
    from vq.engine.jobs import following
    from vq.tokenizers.checkpoint import CheckpointError, checkpoints_in

    directory = run / "checkpoints"
    there = checkpoints_in(directory)
    known = {path.name for path in there}
    for name in names:
        if name not in known and not follow:
            inside = ", ".join(path.name for path in reversed(there)) or "none"
            raise CheckpointError(f"{directory}: has no checkpoint {name!r}; there are: {inside}")
    if not there and not follow:
        raise CheckpointError(
            f"{directory}: there is no checkpoint; train first with vq train {run.name} ..."
        )
    return following.follow(run, names, last_step=last_step) if follow else iter(_named(there, names))


def _named(checkpoints: list[Path], names: list[str]) -> list[Path]:
    return [path for path in reversed(checkpoints) if not names or path.name in names]


if __name__ == "__main__":
    cli.main(main)
