"""Validates a run's checkpoints: `vq val NAME [CONFIG] [--load-from iter_100 ...]`."""

import argparse
import logging
from collections.abc import Sequence

from vq import cli
from vq.run_config import config_for, left_for_the_model

logger = logging.getLogger("vq.val")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "val",
        "Validates the named checkpoints of work_dirs/NAME, or all of them, oldest first, and ends. Writes "
        "work_dirs/NAME/val/iter_N/metrics.json and pictures, and a TensorBoard row at the checkpoint's step. "
        "Stopped and started again, it continues with those that have no scores yet.",
        "vq val fsq/1000_emoji --load-from iter_500 iter_1000\n"
        "  vq val fsq/1000_emoji --load-from iter_{5..10}00\n"
        "  vq val fsq/1000_emoji fsq/1000_emoji --as-given",
    )
    cli.add_run(parser, exists=True)
    cli.add_machine(parser)
    cli.add_weights(parser)
    cli.add_visual(parser)
    cli.add_tokenize(parser)
    cli.add_wandb(parser)
    parser.add_argument(
        "--load-from",
        nargs="+",
        default=[],
        metavar="iter_N",
        help="checkpoints of the run, by name; of several names, those that do not exist are reported and left out",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="wait for new checkpoints until the run's last step is validated, or its training has ended",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="also score checkpoints that have scores of the same weights, images and settings",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Runs the command; returns the scores of each checkpoint by its name."""
    args = arguments().parse_args(argv)
    run = cli.run_directory(args.name)
    tree = config_for(args, run=run, frozen_from=args.load_model_from)

    from vq.engine.jobs.following import checkpoints_to_score
    from vq.engine.jobs.scoring import scorer_of
    from vq.engine.loop.launch import launched, open_log

    last_step = tree.get("trainer", {}).get("max_steps", 0)
    with cli.ends_on_signal(), launched(device=args.device, autocast=args.autocast) as machine:
        open_log(run / "val" / "log.txt" if run.is_dir() else None)
        checkpoints = checkpoints_to_score(run, args.load_from, follow=args.follow, last_step=last_step)
        logger.info("%s", machine)
        below = cli.given_weights(args, left_for_the_model(tree, args.load_model_from))
        with scorer_of(
            tree,
            run,
            machine,
            wandb=cli.wandb_names(args, f"{args.name}-val"),
            visual=args.visual,
            is_tokenized=args.tokenize,
        ) as scorer:
            return scorer.score_run(
                run, checkpoints, again=args.again, is_strict=not args.follow, below=below
            )


if __name__ == "__main__":
    cli.main(main)
